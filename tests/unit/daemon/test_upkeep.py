"""What follows from what: another try after a failure, copies after a backup, no second run beside the first."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.daemon import upkeep
from pra_agent.daemon.desk import Standing
from pra_agent.daemon.processes import Processes
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.rules import ConfigRules
from pra_agent.daemon.upkeep import DIED, STOPPED, Upkeep
from pra_agent.model.runs import Operation, Outcome, RunRecord
from tests.unit.daemon.house import House, house

CLOCK = SystemClock()
_LIMIT = 60
_JOB = {"source": {"type": "files", "paths": ["/srv"]}}
CONFIG = Config.model_validate(
    {
        "node": "web-1",
        "repository": {"url": "/backups", "password": {"file": "/none"}},
        "copies": [{"url": "/second"}],
        "jobs": dict.fromkeys(("locked", "succeed", "wait"), _JOB),
    }
)


@pytest.fixture(scope="module")
def processes():
    started = Processes()
    started.start()
    yield started
    started.close()


def upkeep_of(made: House) -> Upkeep:
    rules = ConfigRules(CONFIG, made.journal, CLOCK)
    standing = Standing(CONFIG, rules, CLOCK.now(), 1, CLOCK.now())
    made_upkeep = Upkeep(made.runner, made.journal, standing)
    made.runner.on_finished = made_upkeep.finished
    return made_upkeep


def backup(job: str) -> RunRequest:
    return RunRequest(Operation.BACKUP, job, scheduled=True)


async def runs_of(made: House, job: str, number: int) -> None:
    async with asyncio.timeout(_LIMIT):
        while len(made.journal.runs(job=job)) < number or made.journal.running():  # noqa: ASYNC110  the journal is mute
            await asyncio.sleep(0.01)


def test_a_failed_backup_is_tried_again(tmp_path, processes, monkeypatch):
    monkeypatch.setattr(upkeep, "RETRIES", (0.01,))

    async def main() -> None:
        async with house(tmp_path, processes) as h:
            assert upkeep_of(h).due(backup("locked"))
            await runs_of(h, "locked", 4)
            assert {run.outcome for run in h.journal.runs(job="locked")[1:]} == {Outcome.FAILED}

    asyncio.run(main())


@pytest.mark.parametrize("why", ["its turn comes soon", "on hold", "asked for by somebody"])
def test_a_failed_backup_is_left_alone(tmp_path, processes, monkeypatch, why):
    monkeypatch.setattr(upkeep, "RETRIES", (0.01,))

    async def main() -> None:
        async with house(tmp_path, processes) as h:
            made = upkeep_of(h)
            if why == "its turn comes soon":
                h.journal.set_next_run("locked", CLOCK.now() - timedelta(seconds=1))
            if why == "on hold":
                h.journal.set_hold(True)
            if why == "asked for by somebody":
                await h.run("locked")
            else:
                made.due(backup("locked"))
            await runs_of(h, "locked", 1)
            await asyncio.sleep(0.1)
            assert len(h.journal.runs(job="locked")) == 1

    asyncio.run(main())


def test_the_same_is_not_begun_twice(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            made = upkeep_of(h)
            assert made.due(backup("wait"))
            assert not made.due(backup("wait"))
            h.go()

    asyncio.run(main())


def test_what_the_daemon_before_did_not_copy_is_copied(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            made = upkeep_of(h)
            made.catch_up()
            assert [a.request for a in (*h.runner.running, *h.runner.queued)] == []
            h.journal.advance("succeed", "", CLOCK.now(), off_host=False)
            made.catch_up()
            copy = RunRequest(Operation.COPY, destination="/second", scheduled=True)
            assert [a.request for a in (*h.runner.running, *h.runner.queued)] == [copy]
            h.go()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("outcome", "error", "again"),
    [
        (Outcome.FAILED, STOPPED, True),
        (Outcome.FAILED, DIED, True),
        (Outcome.FAILED, "no space left", False),
        (Outcome.SUCCESS, "", False),
    ],
)
def test_what_ended_with_the_daemon_before_begins_again(tmp_path, processes, monkeypatch, outcome, error, again):
    monkeypatch.setattr(upkeep, "RETRIES", (0.01,))

    async def main() -> None:
        async with house(tmp_path, processes) as h:
            now = CLOCK.now()
            begun = RunRecord("run-1", Operation.BACKUP, "succeed", now, full=True)
            h.journal.start(begun)
            h.journal.finish(replace(begun, finished=now, outcome=outcome, error=error))
            upkeep_of(h).catch_up()
            await runs_of(h, "succeed", 2 if again else 1)
            await asyncio.sleep(0.1)
            runs = h.journal.runs(job="succeed")
            assert len(runs) == (2 if again else 1)
            assert all(run.full for run in runs)

    asyncio.run(main())
