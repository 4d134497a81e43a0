"""Cron expressions: what fires, changes of clocks, gaps, and what is refused."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.config.cron import Cron

PARIS = ZoneInfo("Europe/Paris")
ZONE = ZoneInfo("UTC")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "after", "fires"),
    [
        ("0 * * * *", "2026-03-01T10:00:00", "2026-03-01T11:00:00"),
        ("0 * * * *", "2026-03-01T10:59:59", "2026-03-01T11:00:00"),
        ("*/15 * * * *", "2026-03-01T10:16:00", "2026-03-01T10:30:00"),
        ("0 5 * * 0", "2026-03-02T00:00:00", "2026-03-08T05:00:00"),  # 0 is Sunday
        ("0 5 * * 7", "2026-03-02T00:00:00", "2026-03-08T05:00:00"),
        ("0 5 * * sun", "2026-03-02T00:00:00", "2026-03-08T05:00:00"),
        ("0 5 * * 1", "2026-03-03T00:00:00", "2026-03-09T05:00:00"),
        ("30 2 1 * *", "2026-12-31T23:00:00", "2027-01-01T02:30:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 13 * 5", "2026-03-01T00:00:00", "2026-03-06T00:00:00"),  # day of month OR weekday
        ("0 9-17/4 * * mon-fri", "2026-03-06T17:00:00", "2026-03-09T09:00:00"),
        ("5,35 0 * jan,jul *", "2026-02-01T00:00:00", "2026-07-01T00:05:00"),
        ("@daily", "2026-03-01T00:00:00", "2026-03-02T00:00:00"),
        ("@Weekly", "2026-03-02T00:00:00", "2026-03-08T00:00:00"),
    ],
)
def test_next_fire(text, after, fires):
    assert Cron.parse(text).next_after(at(after), ZONE) == at(fires)


def test_an_hour_that_is_skipped_fires_after_the_gap():
    # On 29 March 2026 Paris goes from 02:00 to 03:00 at 01:00 UTC.
    assert Cron.parse("30 2 * * *").next_after(at("2026-03-29T00:00:00"), PARIS) == at("2026-03-29T01:30:00")


def test_an_hour_that_comes_twice_fires_once_for_a_daily_job():
    # On 25 October 2026 02:30 comes at 00:30 UTC and at 01:30 UTC.
    cron = Cron.parse("30 2 * * *")
    first = cron.next_after(at("2026-10-24T12:00:00"), PARIS)
    assert first == at("2026-10-25T00:30:00")
    assert cron.next_after(first, PARIS) == at("2026-10-26T01:30:00")


def test_an_hourly_job_fires_every_hour_when_clocks_change():
    cron = Cron.parse("0 * * * *")
    for day in ("2026-10-24T20:00:00", "2026-03-28T20:00:00"):
        instant = at(day)
        for _ in range(10):
            following = cron.next_after(instant, PARIS)
            assert following - instant == timedelta(hours=1)
            instant = following


@pytest.mark.parametrize(
    ("text", "zone", "gap"),
    [
        ("0 * * * *", "UTC", timedelta(hours=1)),
        ("0 * * * *", "Europe/Paris", timedelta(hours=1)),
        ("* * * * *", "UTC", timedelta(minutes=1)),
        ("0 0 * * *", "UTC", timedelta(days=1)),
        ("0 0 * * *", "Europe/Paris", timedelta(days=1, hours=1)),
        ("0 8-18 * * *", "UTC", timedelta(hours=14)),
        ("0 8-18 * * 1-5", "UTC", timedelta(days=2, hours=14)),
        ("0 0 1 * *", "UTC", timedelta(days=31)),
        ("0 0 29 2 *", "UTC", timedelta(days=1461)),
        ("0,5 0 * * *", "UTC", timedelta(hours=23, minutes=55)),
    ],
)
def test_largest_gap(text, zone, gap):
    assert Cron.parse(text).largest_gap(ZoneInfo(zone)) == gap


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 * * *", "five fields"),
        ("61 * * * *", "outside 0-59"),
        ("0 24 * * *", "outside 0-23"),
        ("0 5-3 * * *", "outside"),
        ("0 * * * fun", "weekday"),
        ("*/0 * * * *", "step"),
        ("*/ * * * *", "step"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 0 * *", "outside 1-31"),
        ("", "five fields"),
        ("- * * * *", "no value"),
    ],
)
def test_refused(text, says):
    with pytest.raises(ValueError, match=says):
        Cron.parse(text)


@given(
    st.sampled_from(["0 * * * *", "*/7 */3 * * *", "30 2 * * *", "0 0 1,15 * 1", "59 23 28-31 * *"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001 - made aware below
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"]),
)
def test_fires_lie_within_the_largest_gap_and_on_the_fields(text, naive, zone):
    cron, instant, place = Cron.parse(text), naive.replace(tzinfo=UTC), ZoneInfo(zone)
    fire = cron.next_after(instant, place)
    following = cron.next_after(fire, place)
    assert instant < fire < following
    assert following - fire <= cron.largest_gap(place)
    assert fire.second == 0
