"""How a job stands, in the words of the design."""

from datetime import timedelta

import pytest

from pra_agent.model.jobs import LATE, Destination, Health, JobFact, assess
from pra_agent.model.runs import JobState, Operation, Outcome, RunRecord
from tests.support.daemons import START, MemoryJournal

HOUR = timedelta(hours=1)
JOB = JobFact("app", "files", rpo=4 * 3600.0)


def ended(outcome: Outcome | None) -> RunRecord:
    return RunRecord("r", Operation.BACKUP, "app", START, None if outcome is None else START, outcome)


def health(
    age: timedelta | None, outcome: Outcome | None = Outcome.SUCCESS, state: JobState | None = None, fact: JobFact = JOB
) -> Health:
    now = START + 100 * HOUR
    journal = MemoryJournal([ended(outcome)], {"app": state or JobState("app")})
    if age is not None:
        journal.instants["app"] = {"": now - age}
    return assess(fact, journal, now).health


@pytest.mark.parametrize(
    ("age", "outcome", "expected"),
    [
        (1 * HOUR, Outcome.SUCCESS, Health.OK),
        (3 * HOUR, Outcome.SUCCESS, Health.OK),
        (1 * HOUR, Outcome.FAILED, Health.OK),
        (3 * HOUR, Outcome.FAILED, Health.AT_RISK),
        (3 * HOUR, Outcome.PARTIAL, Health.AT_RISK),
        (3 * HOUR, None, Health.OK),
        (4 * HOUR, Outcome.SUCCESS, Health.OK),
        (5 * HOUR, Outcome.SUCCESS, Health.BREACHED),
        (None, Outcome.FAILED, Health.AWAITING_FIRST),
    ],
)
def test_by_age_and_last_attempt(age: timedelta | None, outcome: Outcome | None, expected: Health) -> None:
    assert health(age, outcome) is expected


def test_a_start_that_was_due_and_did_not_come_is_a_risk() -> None:
    due = START + 100 * HOUR - LATE - timedelta(seconds=1)

    assert health(3 * HOUR, state=JobState("app", next_run=due)) is Health.AT_RISK
    assert health(3 * HOUR, state=JobState("app", next_run=due + timedelta(seconds=2))) is Health.OK


def test_hold_and_suspect_show_and_a_breach_goes_first() -> None:
    held, odd = JobState("app", on_hold=True), JobState("app", suspect=True)

    assert health(HOUR, state=held) is Health.ON_HOLD
    assert health(HOUR, state=odd) is Health.SUSPECT
    assert health(5 * HOUR, state=held) is Health.BREACHED


def test_the_destination_that_is_farthest_behind_counts() -> None:
    copy = Destination("c", "copy", off_host=True)
    fact = JobFact("app", "files", rpo=4 * 3600.0, destinations=(Destination(), copy))
    now = START + 100 * HOUR
    journal = MemoryJournal(instants={"app": {"": now - HOUR, "c": now - 6 * HOUR}})

    status = assess(fact, journal, now)

    assert (status.health, status.age) == (Health.BREACHED, 6 * 3600)
    assert status.data_instants == {"repository": now - HOUR, "copy": now - 6 * HOUR}
    slower = JobFact(
        "app", "files", rpo=4 * 3600.0, destinations=(Destination(), Destination("c", "copy", rpo=90000.0))
    )
    assert assess(slower, journal, now).health is Health.OK


def test_a_missing_destination_has_no_age() -> None:
    fact = JobFact("app", "files", rpo=3600.0, destinations=(Destination(), Destination("c", "copy")))
    journal = MemoryJournal(instants={"app": {"": START}})

    status = assess(fact, journal, START)

    assert (status.health, status.age) == (Health.AWAITING_FIRST, None)


def test_a_running_backup_shows_its_progress() -> None:
    journal = MemoryJournal([ended(None)], going={"r": {"stage": "read"}})

    assert assess(JOB, journal, START).progress == {"stage": "read"}
