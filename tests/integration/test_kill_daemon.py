"""kill -9 of the daemon at random moments of a backup, many times in a row: nothing that was acknowledged is lost."""

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.control.client import Client
from pra_agent.errors import PraError
from pra_agent.model.runs import Outcome, RunRecord
from tests.support.agent import AGENT, Agent
from tests.support.process import wait_until
from tests.support.restic import Restic

KILLS = 50
CLOCK = SystemClock()
#: A process that has imported everything forks a daemon for each line: 50 starts cost a few seconds, not a minute.
_HATCHERY = """
import os, signal, sys
from pathlib import Path
import pra_agent.daemon.actions, pra_agent.daemon.reader
from pra_agent.daemon import service
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(service.main(Path(line.strip())))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("ended", flush=True)
"""


class Hatchery:
    """Starts daemons one after the other."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.pid = 0
        with agent.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _HATCHERY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(AGENT)},
                text=True,
            )

    def start(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self.agent.config}\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())
        wait_until(self.agent.ready, "the daemon")

    def end(self, number: int) -> None:
        """Send the daemon a signal and wait for its end."""
        assert self._process.stdout is not None
        os.kill(self.pid, number)
        assert self._process.stdout.readline() == "ended\n"
        self.pid = 0

    def close(self) -> None:
        if self.pid:
            self.end(signal.SIGKILL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def agent(tmp_path):
    made = Agent(tmp_path / "host")
    made.configure()
    made.init()
    return made


@pytest.fixture
def hatchery(agent):
    made = Hatchery(agent)
    yield made
    made.close()


def acknowledged(agent: Agent, told: list[RunRecord]) -> threading.Thread:
    """Ask for a backup, as a client that waits for its end, in a thread."""

    def wait() -> None:
        with suppress(PraError), Client(agent.socket) as client:
            record = client.run_job("app")
            if record.outcome is Outcome.SUCCESS:
                told.append(record)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.timeout(300)
def test_fifty_kills_lose_nothing_that_was_acknowledged(agent, hatchery, tmp_path):
    moments = random.Random(20240501)
    agent.fill(40, 50_000, name="base")
    hatchery.start()
    with agent.client() as client:
        first = client.run_job("app")
    usual = ((first.finished or first.started) - first.started).total_seconds()
    hatchery.end(signal.SIGKILL)
    told = [first]
    for n in range(KILLS):
        agent.fill(2, 400_000, name=f"new-{n}")
        (agent.data / f"small-{n}").write_text(str(n))
        hatchery.start()
        client_thread = acknowledged(agent, told)
        # From before the run begins to a while after its end.
        CLOCK.sleep(moments.uniform(0, usual * 2.2))
        hatchery.end(signal.SIGKILL)
        client_thread.join(60)
        assert not client_thread.is_alive()

    hatchery.start()
    with agent.client() as client:
        last = client.run_job("app")
        assert last.outcome is Outcome.SUCCESS
        again = client.run_job("app")
        assert again.outcome is Outcome.SUCCESS
    hatchery.end(signal.SIGTERM)

    with agent.journal() as journal:
        assert journal.running() == []
        runs = journal.runs(limit=1000)
        outcomes = {run.id: run.outcome for run in runs}
        assert all(outcomes[record.id] is Outcome.SUCCESS for record in told)
        successes = [run for run in runs if run.outcome is Outcome.SUCCESS]
        failures = [run for run in runs if run.outcome is Outcome.FAILED]
    # Both ends of a run were hit, or this test shows nothing.
    assert len(told) > 3
    assert len(failures) > 10
    assert {run.error for run in failures} == {"the daemon ended while this ran"}

    # Nothing that was stored is stored again: what is new in all runs together fits into the new files.
    data = sum(file.stat().st_size for file in agent.data.iterdir())
    assert again.bytes_added < 20_000
    assert last.bytes_stored < data / 2
    stored = sum(file.stat().st_size for file in agent.repository.glob("data/*/*"))
    print(f"{len(failures)} of {KILLS} kills hit a run, {len(told)} were acknowledged; {data} bytes made {stored}")  # noqa: T201
    restic = Restic(agent.repository)
    restic.run("check", "--read-data")
    there = {file.name for file in (agent.repository / "snapshots").iterdir()}
    assert {run.snapshot for run in successes} <= there
    for snapshot in (told[0].snapshot, told[len(told) // 2].snapshot, last.snapshot):
        restic.run("restore", snapshot, "--target", tmp_path / snapshot)
    back = tmp_path / last.snapshot / agent.data.relative_to("/")
    assert contents(back) == contents(agent.data)


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}
