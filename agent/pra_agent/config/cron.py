"""Cron expressions as cron(5) has them: five fields, names, steps, and day-of-month OR day-of-week.

Pure: instants come in and go out. Times are matched in a zone; over a change of clocks an hour that is
skipped fires right after the gap, and an hour that comes twice fires once unless the hour field is a wildcard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import pairwise
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_DAY = timedelta(days=1)
#: A leap day comes within eight years, also around a century.
_HORIZON_DAYS = 8 * 366
#: Gaps are measured over fixed years, so that the answer does not depend on today.
_GAPS_FROM = date(2024, 1, 1)


@dataclass(frozen=True)
class Cron:
    """A parsed expression. `text` is what was written."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 = Sunday
    any_hour: bool
    any_day: bool
    any_weekday: bool

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Read an expression. Raises ValueError, one line."""
        fields = _MACROS.get(text.strip().lower(), text).split()
        if len(fields) != 5:
            raise ValueError(f"{text!r} is no cron expression; five fields: minute hour day month weekday")
        minute, hour, day, month, weekday = fields
        cron = cls(
            text=text.strip(),
            minutes=_field(minute, "minute", 0, 59),
            hours=_field(hour, "hour", 0, 23),
            days=_field(day, "day", 1, 31),
            months=_field(month, "month", 1, 12, _MONTHS, 1),
            weekdays=frozenset(n % 7 for n in _field(weekday, "weekday", 0, 7, _DAYS)),
            any_hour=hour.startswith("*"),
            any_day=day.startswith("*"),
            any_weekday=weekday.startswith("*"),
        )
        if next(cron._dates(_GAPS_FROM), None) is None:
            raise ValueError(f"{text!r} never fires; there is no such day in those months")
        return cron

    def next_after(self, instant: datetime, zone: ZoneInfo) -> datetime:
        """The first fire strictly after an instant, in UTC. Always exists: `parse` refuses what never fires."""
        start = instant.astimezone(zone).date() - _DAY
        for day in self._dates(start):
            for fire in self._fires(day, zone):
                if fire > instant:
                    return fire
        raise ValueError(f"{self.text!r} never fires")

    def largest_gap(self, zone: ZoneInfo) -> timedelta:
        """The longest time between two fires, changes of clocks included."""
        largest = timedelta(0)
        last: datetime | None = None
        inner: dict[bool, timedelta] = {}
        for day in self._dates(_GAPS_FROM):
            midnight = datetime.combine(day, time(), zone)
            plain = midnight.utcoffset() == (datetime.combine(day + _DAY, time(), zone)).utcoffset()
            if plain and inner:
                offset = midnight.utcoffset() or timedelta(0)
                first, end = (datetime.combine(day, t, UTC) - offset for t in (self._times[0], self._times[-1]))
                largest = max(largest, inner[True])
            else:
                fires = self._fires(day, zone)
                first, end = fires[0], fires[-1]
                within = max((b - a for a, b in pairwise(fires)), default=timedelta(0))
                largest = max(largest, within)
                if plain:
                    inner[True] = within
            if last is not None:
                largest = max(largest, first - last)
            last = end
        return largest

    @cached_property
    def _times(self) -> list[time]:
        return [time(h, m) for h in sorted(self.hours) for m in sorted(self.minutes)]

    def _dates(self, start: date) -> Iterator[date]:
        for n in range(_HORIZON_DAYS):
            day = start + n * _DAY
            if day.month in self.months and self._day_matches(day):
                yield day

    def _day_matches(self, day: date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return in_month and in_week
        return in_month or in_week

    def _fires(self, day: date, zone: ZoneInfo) -> list[datetime]:
        fires: set[datetime] = set()
        for moment in self._times:
            local = datetime.combine(day, moment, zone)
            fires.add(local.astimezone(UTC))
            again = local.replace(fold=1)
            # A fold that is later in UTC is an hour that comes twice; one that is earlier lies in a gap.
            if self.any_hour and again.astimezone(UTC) > local.astimezone(UTC):
                fires.add(again.astimezone(UTC))
        return sorted(fires)


def _field(
    text: str, name: str, low: int, high: int, words: tuple[str, ...] = (), first: int = 0
) -> frozenset[int]:  # one field of five: ranges, lists, steps
    numbers: set[int] = set()
    for part in text.lower().split(","):
        span, _, step_text = part.partition("/")
        if ("/" in part and not step_text.isdecimal()) or step_text == "0":
            raise ValueError(f"bad step {part!r} in the {name} field")
        step = int(step_text or 1)
        if span == "*":
            start, stop = low, high
        else:
            left, dash, right = span.partition("-")
            start = _number(left, name, words, first)
            stop = _number(right, name, words, first) if dash else (high if step_text else start)
        if not low <= start <= stop <= high:
            raise ValueError(f"{part!r} in the {name} field is outside {low}-{high}")
        numbers.update(range(start, stop + 1, step))
    return frozenset(numbers)


def _number(text: str, name: str, words: tuple[str, ...], first: int) -> int:
    if text in words:
        return words.index(text) + first
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no value for the {name} field")
    return int(text)
