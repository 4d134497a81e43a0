"""RFC 3339 beyond what a datetime can say."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pra_agent.model.times import format_ns, format_time, parse_ns, parse_time


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T05:30:00.5+05:30", 500_000_000),
        ("1969-12-31T19:00:00-05:00", 0),
        ("0000-02-29T00:00:00Z", -62_162_121_600_000_000_000),
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_799_999_999_999),
    ],
)
def test_parsing(text: str, ns: int):
    assert parse_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-13-01T00:00:00Z",
        "1970-01-32T00:00:00Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:60:00Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00.1234567890Z",
        "1970-01-01T00:00:00.12x4Z",
        "1970-01-01T00:00:00.\u0661Z",
        "1970-01-01 00:00:00Z",
        "x970-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time(text: str):
    with pytest.raises(ValueError, match="not a"):
        parse_ns(text)


def test_years_that_cannot_be_said_become_the_nearest():
    assert format_ns(parse_ns("9999-06-01T01:02:03Z") + 400 * 366 * 86_400 * 10**9).startswith("9999-")
    assert format_ns(parse_ns("0000-06-01T01:02:03Z") - 400 * 366 * 86_400 * 10**9).startswith("0000-")


@pytest.mark.parametrize(
    ("text", "extra"),
    [
        ("2026-11-30T14:38:17.946685365+05:30", 365),
        ("2026-11-30T09:08:18.5Z", 0),
        ("2026-11-30T09:08:18-08:00", 0),
        ("0999-01-01T00:00:00.000001Z", 0),
    ],
)
def test_datetimes_keep_their_zone(text: str, extra: int):
    time, nanoseconds = parse_time(text)
    assert nanoseconds == extra
    assert time.tzinfo is not None
    assert format_time(time, nanoseconds) == text


def test_a_datetime_by_value():
    kolkata = timezone(timedelta(hours=5, minutes=30))
    assert parse_time("2026-01-02T03:04:05.000006007+05:30") == (datetime(2026, 1, 2, 3, 4, 5, 6, kolkata), 7)
    assert parse_time("2026-01-02T03:04:05Z") == (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 0)


def test_times_that_a_datetime_cannot_hold():
    with pytest.raises(ValueError, match="not a time"):
        parse_time("0000-01-01T00:00:00Z")
    with pytest.raises(ValueError, match="without a zone"):
        format_time(datetime(2026, 1, 1))  # noqa: DTZ001 - the point
