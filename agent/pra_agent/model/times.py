"""RFC 3339 with nanoseconds, as Go writes it: trailing zeros trimmed, years 0000 to 9999.

Own calendar arithmetic (days_from_civil and back, Gregorian without limit), since a datetime has neither year 0 nor
nanoseconds.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

SECOND = 1_000_000_000
_DAY = 86_400
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


def _civil_from_days(days: int) -> tuple[int, int, int]:
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_index = (5 * day_of_year + 2) // 153
    month = month_index + 3 if month_index < 10 else month_index - 9
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * month_index + 2) // 5 + 1


def _days_from_civil(year: int, month: int, day: int) -> int:
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


# A tree of many files is mostly times: the calendar is asked once a day, and the clock is looked up.
_MINUTES = [f"T{hour:02}:{minute:02}" for hour in range(24) for minute in range(60)]
_SECONDS = [f":{second:02}" for second in range(60)]
_MINUTE_OF = {text: index * 60 * SECOND for index, text in enumerate(_MINUTES)}
_SECOND_OF = {text: index * SECOND for index, text in enumerate(_SECONDS)}


@lru_cache(maxsize=4096)
def _format_day(days: int) -> str:
    year, month, day = _civil_from_days(days)
    if not 0 <= year <= 9999:  # as restic: the nearest year that RFC 3339 can say, same day
        year = 0 if year < 0 else 9999
        return _format_day(_days_from_civil(year, month, day))
    return f"{year:04}-{month:02}-{day:02}"


@lru_cache(maxsize=4096)
def _parse_day(text: str) -> int:
    """Nanoseconds since the epoch at which a day (YYYY-MM-DD) starts."""
    return _parse(text + "T00:00:00Z")[0] * SECOND


def format_ns(ns: int) -> str:
    """Write nanoseconds since the epoch in UTC; years outside 0-9999 become the nearest of them."""
    seconds, fraction = divmod(ns, SECOND)
    days, rest = divmod(seconds, _DAY)
    minute, second = divmod(rest, 60)
    text = _format_day(days) + _MINUTES[minute] + _SECONDS[second]
    return f"{text}.{fraction:09}".rstrip("0") + "Z" if fraction else text + "Z"


def parse_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; raises ValueError for anything else."""
    minute = _MINUTE_OF.get(text[10:16])
    second = _SECOND_OF.get(text[16:19])
    if minute is not None and second is not None:
        if text[19:] == "Z":
            return _parse_day(text[:10]) + minute + second
        fraction = text[20:-1]
        if text[19:20] == "." and text[-1] == "Z" and len(fraction) <= 9 and fraction.isascii() and fraction.isdigit():
            return _parse_day(text[:10]) + minute + second + int(fraction.ljust(9, "0"))
    seconds, nanoseconds, offset = _parse(text)
    return (seconds - offset) * SECOND + nanoseconds


def _parse(text: str) -> tuple[int, int, int]:
    """Give seconds of the local calendar, nanoseconds, and the zone's offset in seconds."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31 and int(hour) < 24 and int(minute) < 60 and int(second) < 61):
        raise ValueError(f"not a time: {text!r}")
    seconds = _days_from_civil(int(year), int(month), int(day)) * _DAY
    seconds += int(hour) * 3600 + int(minute) * 60 + int(second)
    offset = 0 if sign is None else (int(zone_hours) * 3600 + int(zone_minutes) * 60) * (-1 if sign == "-" else 1)
    return seconds, int(fraction.ljust(9, "0")) if fraction else 0, offset


def parse_time(text: str) -> tuple[datetime, int]:
    """Read a time into an aware datetime, in the zone that it names, and the nanoseconds that it cannot hold (0-999).

    Raises ValueError for what is not RFC 3339 or not within a datetime's years.
    """
    seconds, fraction, offset = _parse(text)
    zone = UTC if text.endswith("Z") else timezone(timedelta(seconds=offset))
    try:
        local = datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=seconds, microseconds=fraction // 1000)
    except OverflowError:
        raise ValueError(f"not a time that we can hold: {text!r}") from None
    return local, fraction % 1000


def format_time(time: datetime, nanoseconds: int = 0) -> str:
    """Write an aware datetime and its further nanoseconds, in its own zone; `parse_time` is the way back."""
    offset = time.utcoffset()
    if offset is None:
        raise ValueError("a time without a zone")
    text = time.strftime("%Y").rjust(4, "0") + time.strftime("-%m-%dT%H:%M:%S")
    fraction = time.microsecond * 1000 + nanoseconds
    if fraction:
        text += f".{fraction:09}".rstrip("0")
    minutes = round(offset.total_seconds() / 60)
    if not minutes:
        return text + "Z"
    return f"{text}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
