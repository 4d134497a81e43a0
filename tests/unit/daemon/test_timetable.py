"""Fires on a grid that restarts do not move, with a shift that stays the same for a host and a job."""

from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.config import Schedule
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.timetable import Entry, stable_shift
from pra_agent.model.runs import Operation

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BACKUP = RunRequest(Operation.BACKUP, "app", scheduled=True)


def entry(schedule: Schedule, shift: timedelta = timedelta(0), zone: str = "UTC") -> Entry:
    return Entry(BACKUP, schedule, zone, shift)


def test_an_interval_lies_on_a_grid():
    hourly = entry(Schedule(every=timedelta(hours=1)), timedelta(minutes=3))
    assert hourly.next_after(T0) == T0 + timedelta(minutes=3)
    assert hourly.next_after(T0 + timedelta(minutes=3)) == T0 + timedelta(hours=1, minutes=3)


def test_a_cron_fire_is_shifted():
    daily = entry(Schedule(cron="0 5 * * *"), timedelta(minutes=7))
    assert daily.next_after(T0) == datetime(2026, 3, 2, 5, 7, tzinfo=UTC)
    assert daily.next_after(datetime(2026, 3, 2, 5, 6, tzinfo=UTC)) == datetime(2026, 3, 2, 5, 7, tzinfo=UTC)


def test_cron_keeps_to_its_zone():
    daily = entry(Schedule(cron="0 5 * * *"), zone="Europe/Paris")
    assert daily.next_after(T0) == datetime(2026, 3, 2, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize("schedule", [Schedule(every=timedelta(hours=1)), Schedule(cron="0 * * * *")])
def test_fires_are_counted_with_the_last_and_without_the_first(schedule):
    hourly = entry(schedule)
    assert hourly.fires(T0, T0) == 0
    assert hourly.fires(T0, T0 + timedelta(minutes=59)) == 0
    assert hourly.fires(T0, T0 + timedelta(hours=1)) == 1
    assert hourly.fires(T0, T0 + timedelta(hours=5, minutes=1)) == 5
    assert hourly.fires(T0, T0 - timedelta(hours=1)) == 0


def test_years_of_absence_are_not_counted_one_by_one():
    assert entry(Schedule(cron="0 * * * *")).fires(T0, T0 + timedelta(days=4000)) == 1000


def test_the_shift_is_stable_and_within_the_jitter():
    jitter = timedelta(minutes=5)
    shifts = {stable_shift(f"web-{n}", "app", jitter) for n in range(50)}
    assert stable_shift("web-1", "app", jitter) == stable_shift("web-1", "app", jitter)
    assert stable_shift("web-1", "app", jitter) != stable_shift("web-1", "db", jitter)
    assert len(shifts) > 30
    assert all(timedelta(0) <= shift < jitter for shift in shifts)
    assert stable_shift("web-1", "app", timedelta(0)) == timedelta(0)
