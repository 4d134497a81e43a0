"""--direct: an operation in this process, with a journal and a cache of the caller's own.

The actions are those of the daemon's children; only what they tell goes to the terminal instead of to the daemon.
"""

import os
import secrets
import signal
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import cast

from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.config.models import StateSettings
from pra_agent.daemon import child
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.keeping import keep
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.rules import ConfigRules
from pra_agent.daemon.worker import RunTask, Work
from pra_agent.errors import PraError, UsageError
from pra_agent.model.events import Event as RunEvent
from pra_agent.model.events import Reporter
from pra_agent.model.runs import Outcome, RunRecord


def private_state() -> Path:
    """Where this user keeps cache and journal of what is done without the daemon."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(home) / "pra-agent"


def privately(config: Config) -> Config:
    """The configuration with this user's own state directory, so that nothing of the daemon's is touched."""
    return config.model_copy(update={"state": StateSettings(dir=private_state())})


class DirectWork(Work):
    """A run's surroundings in this process."""

    def __init__(self, task: RunTask, journal: Journal, reporter: Reporter, stop: Event) -> None:
        super().__init__(task, -1, SystemClock())
        self._journal = journal
        self._reporter = reporter
        self.stop = stop

    def report(self, event: RunEvent) -> None:
        self._reporter(event)

    def send(self, message: Mapping[str, object]) -> None:
        """Keep what is for the journal: numbers. The rest is the daemon's."""
        if message.get("type") == "gauge":
            keep(self.journal, message)

    def close(self) -> None:
        """Leave the journal open; it belongs to who made this."""


@contextmanager
def stoppable() -> Generator[Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets, so that work ends in order; the second one interrupts it."""
    stop = Event()

    def ask_to_stop(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_directly(config: Config, request: RunRequest, reporter: Reporter, *, action: str = "") -> RunRecord:
    """Run an operation here and write it into this user's journal; returns its record, also when it failed.

    `action` names another action than the operation's own. Raises `UsageError` for what cannot be done.
    """
    clock = SystemClock()
    private = privately(config)
    private.state.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(Journal(private.state.dir / "journal.sqlite")) as journal, stoppable() as stop:
        rules = ConfigRules(private, journal, clock)
        if not action and not rules.can(request.operation):
            raise UsageError(f"{request.operation} cannot be done here", advice="It may be the pruning host's to do.")
        now = clock.now()
        run = RunRecord(
            id=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
            operation=request.operation,
            job=request.job,
            started=now,
            destination=request.destination,
            full=request.full,
        )
        task = rules.errand(action, run, request) if action else rules.task(run, request)
        payload = cast("RunTask", task.payload)
        work = DirectWork(payload, journal, reporter, stop)
        journal.start(run)
        try:
            record = cast("RunRecord", _call(payload.action, work))
        except PraError as error:
            failed = replace(run, finished=clock.now(), outcome=Outcome.FAILED, error=error.message)
            journal.finish(failed)
            raise
        journal.finish(record, advances=rules.judge(record))
        return record


def _call(name: str, work: Work) -> object:
    action = child.resolve(name)
    if not callable(action):
        raise UsageError(f"{name} is no action")
    return action(work)
