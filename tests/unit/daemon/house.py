"""A runner with real children for tests: which action a run does, its test decides."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pra_agent.clock import SystemClock
from pra_agent.daemon.child import Task
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.processes import Processes
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.runner import Runner
from pra_agent.daemon.worker import RunTask
from pra_agent.model.runs import Operation, Outcome, RunRecord

_LIMIT = 60


class Rules:
    """Runs the action that the job is called, unless all are to do one."""

    def __init__(self, journal: Path, action: str = "") -> None:
        self.journal = journal
        self.action = action
        self.concurrent_backups = 2
        self.slacks: dict[str, float] = {}

    def slack(self, request: RunRequest) -> float:
        return self.slacks.get(request.job, 0)

    def task(self, run: RunRecord, request: RunRequest) -> Task:
        action = f"tests.unit.daemon.actions:{self.action or request.job}"
        return Task("pra_agent.daemon.worker:run", RunTask(action, run, request, None, self.journal))

    def judge(self, record: RunRecord) -> bool:
        return record.outcome is Outcome.SUCCESS


class House:
    def __init__(self, path: Path, processes: Processes) -> None:
        self.path = path
        self.journal = Journal(path / "journal.db")
        self.rules = Rules(path / "journal.db")
        self.runner = Runner(self.journal, processes, self.rules, SystemClock())
        self.heard: list[Any] = []

    async def run(self, job: str, operation: Operation = Operation.BACKUP) -> RunRecord:
        active = self.runner.submit(RunRequest(operation, job))
        active.listeners.append(self.heard.append)
        return await asyncio.wait_for(active.ended, _LIMIT)

    def order(self) -> list[str]:
        try:
            return (self.path / "order").read_text().split()
        except FileNotFoundError:
            return []

    async def until(self, *lines: str) -> None:
        async with asyncio.timeout(_LIMIT):
            while sorted(self.order()) != sorted(lines):  # noqa: ASYNC110  another process writes them
                await asyncio.sleep(0.01)

    def go(self) -> None:
        (self.path / "go").touch()


@contextlib.asynccontextmanager
async def house(path: Path, processes: Processes) -> AsyncIterator[House]:
    made = House(path, processes)
    try:
        yield made
        await made.runner.close("the test ends")
    finally:
        made.journal.close()
