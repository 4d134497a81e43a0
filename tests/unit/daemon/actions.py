"""What the children of the runner's tests do; found by name, as the daemon's own actions are."""

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from pra_agent.daemon.worker import Work
from pra_agent.errors import Interrupted, Locked
from pra_agent.model.events import FileFailed, Notice, Progress
from pra_agent.model.runs import Outcome, RunRecord


def succeed(work: Work) -> RunRecord:
    work.report(Progress("read", files_done=1))
    work.report(FileFailed("/a", "denied"))
    work.report(Notice("hello"))
    work.gauge("snapshots", 3)
    work.gauge("requests", 2, "put", add=True)
    now = work.clock.now()
    work.instant("app", "s3://copy", now, off_host=True)
    return replace(
        work.run, outcome=Outcome.SUCCESS, finished=now, data_instant=now, bytes=7, detail={"pid": os.getpid()}
    )


def locked(_work: Work) -> RunRecord:
    raise Locked("somebody prunes")


def crash(_work: Work) -> RunRecord:
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def blunder(_work: Work) -> RunRecord:
    raise ValueError("no such thing")


def wait(work: Work) -> RunRecord:
    """Until the file `go` is there or it is asked to stop; says when it begins and ends in `order`."""
    here = work.task.journal.parent
    _note(here, f"+{work.request.job or work.request.operation}")
    work.report(Progress("waiting"))
    while not (here / "go").exists():
        if work.stop.wait(0.01):
            _note(here, f"!{work.request.job or work.request.operation}")
            raise Interrupted("asked to stop")
    _note(here, f"-{work.request.job or work.request.operation}")
    return replace(work.run, outcome=Outcome.SUCCESS, finished=work.clock.now())


def deaf(work: Work) -> RunRecord:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    work.report(Progress("deaf"))
    threading.Event().wait()
    raise AssertionError


def orphan(work: Work) -> RunRecord:
    """Leaves a worker in its group that would hold the pipes for ever."""
    if os.fork() == 0:
        threading.Event().wait()
        os._exit(0)
    return replace(work.run, outcome=Outcome.SUCCESS, finished=work.clock.now())


def _note(here: Path, text: str) -> None:
    with (here / "order").open("a") as out:
        out.write(text + "\n")
