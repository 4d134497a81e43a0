"""What is due fires; what was missed is caught up once and counted."""

import asyncio
from datetime import timedelta

import pytest

from pra_agent.clock import SystemClock
from pra_agent.config import Schedule
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.scheduler import Scheduler
from pra_agent.daemon.timetable import Entry
from pra_agent.model.runs import Operation

_LIMIT = 60
CLOCK = SystemClock()
BACKUP = RunRequest(Operation.BACKUP, "app", scheduled=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


def hourly(request: RunRequest = BACKUP, shift: timedelta = timedelta(0)) -> Entry:
    return Entry(request, Schedule(every=HOUR), "UTC", shift)


def fired(journal: Journal, entry: Entry, *, taken: bool = True) -> list[RunRequest]:
    """Start a scheduler, wait until it fired once, stop it."""

    async def main() -> list[RunRequest]:
        heard: list[RunRequest] = []
        event = asyncio.Event()

        def due(request: RunRequest) -> bool:
            heard.append(request)
            event.set()
            return taken

        scheduler = Scheduler(journal, CLOCK, due)
        scheduler.start([entry])
        await asyncio.wait_for(event.wait(), _LIMIT)
        scheduler.stop()
        return heard

    return asyncio.run(main())


def planned(journal: Journal, *entries: Entry) -> None:
    """Start a scheduler and stop it before it fires."""

    async def main() -> None:
        scheduler = Scheduler(journal, CLOCK, lambda _request: True)
        scheduler.start(entries)
        scheduler.stop()

    asyncio.run(main())


def test_the_next_run_is_written_down(journal):
    planned(journal, hourly(shift=timedelta(minutes=7)))
    next_run = journal.job_state("app").next_run
    now = CLOCK.now()
    assert next_run is not None
    assert now < next_run <= now + HOUR
    assert next_run.minute == 7
    assert journal.job_state("app").missed_runs == 0


def test_missed_runs_are_coalesced_and_each_is_counted(journal):
    journal.set_next_run("app", CLOCK.now().replace(minute=0, second=0, microsecond=0) - 5 * HOUR)
    assert fired(journal, hourly()) == [BACKUP]
    state = journal.job_state("app")
    assert state.missed_runs == 6
    assert state.next_run is not None
    assert state.next_run > CLOCK.now()


def test_the_run_that_catches_up_has_its_jitter(journal):
    now = CLOCK.now()
    journal.set_next_run("app", now - 5 * HOUR)
    planned(journal, hourly(shift=timedelta(minutes=50)))
    next_run = journal.job_state("app").next_run
    assert next_run is not None
    assert now < next_run <= now + timedelta(minutes=51)


def test_a_fire_during_the_run_before_counts_as_missed(journal):
    journal.set_next_run("app", CLOCK.now() + timedelta(milliseconds=50))
    fired(journal, hourly(), taken=False)
    assert journal.job_state("app").missed_runs == 1


def test_an_upkeep_operation_is_caught_up_as_well(journal):
    check = RunRequest(Operation.CHECK, scheduled=True)
    journal.set_due(Operation.CHECK, CLOCK.now() - 30 * HOUR)
    assert fired(journal, hourly(check)) == [check]
    due = journal.due(Operation.CHECK)
    assert due is not None
    assert due > CLOCK.now()


def test_on_hold_nothing_is_due(journal):
    journal.set_hold(True)
    soon = CLOCK.now() + timedelta(milliseconds=100)
    journal.set_next_run("app", soon)
    check = RunRequest(Operation.CHECK, scheduled=True)

    async def main() -> list[RunRequest]:
        heard: list[RunRequest] = []

        def due(request: RunRequest) -> bool:
            heard.append(request)
            return True

        scheduler = Scheduler(journal, CLOCK, due)
        scheduler.start([hourly(), hourly(check)])
        async with asyncio.timeout(_LIMIT):
            while journal.job_state("app").next_run in {None, soon}:  # noqa: ASYNC110  the journal tells nobody
                await asyncio.sleep(0.01)
        scheduler.stop()
        return heard

    assert asyncio.run(main()) == []


def test_what_left_the_timetable_fires_no_more(journal):
    async def main() -> None:
        scheduler = Scheduler(journal, CLOCK, lambda _request: True)
        scheduler.start([hourly()])
        kept = journal.job_state("app").next_run
        scheduler.plan([hourly()])
        assert journal.job_state("app").next_run == kept
        scheduler.plan([])
        assert journal.job_state("app").next_run is None
        scheduler.wake()
        scheduler.stop()

    asyncio.run(main())
