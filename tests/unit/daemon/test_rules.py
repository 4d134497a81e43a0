"""What counts as data that is safe, what is urgent, and when every byte is due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.config import Config
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.rules import ConfigRules
from pra_agent.daemon.timetable import timetable
from pra_agent.model.runs import Operation, Outcome, RunRecord
from tests.support.clock import FakeClock

HOUR = timedelta(hours=1)
CONFIG = Config.model_validate(
    {
        "node": "web-1",
        "repository": {"url": "/backups", "password": {"file": "/none"}},
        "jobs": {
            "app": {"source": {"type": "files", "paths": ["/srv"]}, "partial_ok": 3, "rpo": "4h"},
            "rare": {"source": {"type": "files", "paths": ["/srv"]}, "rpo": "24h", "full": "never", "schedule": None},
            "db": {"source": {"type": "dump", "preset": "mariadb"}, "partial_ok": 3},
        },
    }
)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


@pytest.fixture
def rules(journal, clock):
    return ConfigRules(CONFIG, journal, clock)


def record(outcome: Outcome, job: str = "app", **more: object) -> RunRecord:
    begun = RunRecord("r", Operation.BACKUP, job, datetime(2026, 3, 1, tzinfo=UTC), outcome=outcome)
    return replace(begun, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "counts"),
    [
        (record(Outcome.SUCCESS), True),
        (record(Outcome.PARTIAL, files_failed=3, detail={"advances": True}), True),
        (record(Outcome.PARTIAL, files_failed=4, detail={"advances": True}), False),
        (record(Outcome.PARTIAL, files_failed=1, detail={"advances": False}), False),
        (record(Outcome.PARTIAL, job="db", files_failed=1, detail={"advances": True}), False),
        (record(Outcome.PARTIAL, job="gone", files_failed=0, detail={"advances": True}), False),
        (record(Outcome.SUSPECT, detail={"advances": True}), False),
        (record(Outcome.FAILED), False),
        (record(Outcome.SUCCESS, operation=Operation.CHECK), False),
    ],
)
def test_what_advances_the_data_instant(rules, ended, counts):
    assert rules.judge(ended) is counts


def test_the_job_that_is_nearest_to_its_rpo_has_the_least_slack(rules, journal, clock):
    journal.advance("app", "", clock.now() - HOUR, off_host=False)
    journal.advance("rare", "", clock.now() - 23 * HOUR, off_host=False)
    slacks = {job: rules.slack(RunRequest(Operation.BACKUP, job)) for job in ("app", "rare", "db")}
    assert slacks == {"app": 3 * 3600.0, "rare": 3600.0, "db": float("-inf")}


def test_every_byte_is_due_once_a_day(rules, journal, clock):
    assert rules.full_due("app")
    assert not rules.full_due("rare")
    assert not rules.full_due("gone")
    journal.set_gauge("backup_last_full_timestamp_seconds", clock.timestamp(), "app")
    assert not rules.full_due("app")
    journal.set_gauge("backup_last_full_timestamp_seconds", clock.timestamp() - 24 * 3600, "app")
    assert rules.full_due("app")


def test_the_timetable_has_the_jobs_with_a_schedule_and_the_upkeep():
    requests = [(entry.request.operation, entry.request.job) for entry in timetable(CONFIG)]
    assert requests == [
        (Operation.BACKUP, "app"),
        (Operation.BACKUP, "db"),
        (Operation.FORGET, ""),
        (Operation.PRUNE, ""),
        (Operation.CHECK, ""),
    ]
