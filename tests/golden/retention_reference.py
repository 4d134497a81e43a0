"""A second, slow reading of the keep rules, written as sets instead of a walk; makes `retention.json`.

    PYTHONPATH=agent python -m tests.golden.retention_reference > tests/golden/retention.json

It shares no code with the product. What a rule keeps is said as a set: of the buckets (an hour, a day ...) that hold
snapshots, the newest N; of each its newest member; and of all the oldest member, when there were fewer than N.
"""

import json
import random
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Record = dict[str, Any]

ZONE = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
LABELS = {
    "hourly": "%Y-%m-%d %H",
    "daily": "%Y-%m-%d",
    "weekly": "%G week %V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


def history() -> list[Record]:
    """Three years: dense at the end, thinner before, with bursts, holes, both changes of the clocks, odd ones."""
    rng = random.Random(2026)
    times: set[datetime] = set()
    moment = NOW - timedelta(minutes=7)
    while len(times) < 60:  # hourly with jitter over the change of the clocks on 2026-10-25 follows below
        times.add(moment)
        moment -= timedelta(minutes=rng.choice([5, 55, 60, 61, 240, 600]))
    for change in (datetime(2026, 10, 24, 21, tzinfo=UTC), datetime(2026, 3, 28, 21, tzinfo=UTC)):
        times |= {change + timedelta(minutes=20 * n + rng.randrange(19)) for n in range(20)}
    day = datetime(2026, 10, 20, 1, tzinfo=UTC)
    while day > datetime(2026, 5, 1, tzinfo=UTC):
        times.add(day + timedelta(seconds=rng.randrange(86_400)))
        day -= timedelta(days=rng.choice([1, 1, 1, 2, 5]))
    while day > datetime(2023, 11, 15, tzinfo=UTC):
        times.add(day + timedelta(seconds=rng.randrange(86_400)))
        day -= timedelta(days=rng.choice([3, 9, 20, 41]))
    times |= {datetime(2024, 12, 30, 23, 30, tzinfo=UTC), datetime(2024, 12, 31, 22, 59, tzinfo=UTC)}
    times |= {datetime(2024, 12, 31, 23, 1, tzinfo=UTC), datetime(2026, 3, 31, 12, tzinfo=UTC)}
    first = min(times).replace(minute=1)
    times |= {first, first + timedelta(minutes=40)}  # the oldest is not the newest of its hour
    tags = [(), (), (), (), ("partial",), ("suspect",), ("weekly-tape",), ("weekly-tape", "audit"), (), ()]
    shots = [(when, rng.choice(tags)) for when in sorted(times)]
    shots += [(NOW + timedelta(days=n), ()) for n in (1, 400)]
    shots[:2] = [(shots[0][0], ()), (shots[1][0], ())]
    shots[17] = (shots[17][0], ("pinned",))
    return [{"time": when.isoformat(), "tags": list(tags)} for when, tags in shots]


def policies() -> list[Record]:
    """At least forty policies, each rule alone and in company."""
    some: list[Record] = [{"last": n} for n in (1, 3, 30, 1000)]
    some += [{name: n} for name in LABELS for n in (1, 5, 24, 400, "all")]
    some += [{"within": text} for text in ("1h", "26h", "8d", "1m", "1y2m3d4h", "9y")]
    some += [{f"within_{name}": text} for name in LABELS for text in ("9d", "13m")]
    some += [
        {"hourly": 48, "daily": 30, "weekly": 8, "min_count": 3},
        {"last": 2, "daily": 7, "weekly": 5, "monthly": 12, "yearly": 3},
        {"daily": 3, "min_count": 25},
        {"min_count": 5},
        {},
        {"tags": ["weekly-tape"]},
        {"tags": ["weekly-tape,audit"], "yearly": 2},
        {"tags": ["audit", "weekly-tape"], "last": 1, "min_count": 0},
        {"within": "2d", "within_daily": "1m", "within_monthly": "2y", "hourly": 3},
        {"last": "all"},
    ]
    return some


def shifted(text: str, moment: datetime) -> datetime:
    """The moment minus a span, in local calendar time; hours are real ones."""
    number = ""
    left: dict[str, int] = {}
    for char in text:
        if char.isdigit():
            number += char
        else:
            left[char], number = int(number), ""
    year, month = moment.year - left.get("y", 0), moment.month - left.get("m", 0)
    while month < 1:
        year, month = year - 1, month + 12
    spill = max(0, moment.day - monthrange(year, month)[1])
    when = date(year, month, moment.day - spill) + timedelta(days=spill - left.get("d", 0))
    local = datetime(when.year, when.month, when.day, moment.hour, moment.minute, moment.second, tzinfo=ZONE)
    return local.astimezone(UTC) - timedelta(hours=left.get("h", 0))


def newest_of_buckets(shots: list[Record], label: str) -> list[Record]:
    """The newest snapshot of each bucket, newest first."""
    found: dict[str, Record] = {}
    for shot in shots:
        found.setdefault(shot["local"].strftime(label), shot)
    return list(found.values())


def by_count(shots: list[Record], name: str, count: int | str) -> Iterator[tuple[int, str]]:
    """What a counting rule keeps, and why."""
    candidates = shots if name == "last" else newest_of_buckets(shots, LABELS[name])
    chosen = candidates if isinstance(count, str) else candidates[:count]
    yield from ((shot["index"], f"{name} snapshot") for shot in chosen)
    unused = isinstance(count, str) or len(candidates) < count
    if unused and shots[-1] not in chosen:
        yield shots[-1]["index"], f"oldest {name} snapshot"


def by_rules(shots: list[Record], keep: Record) -> Iterator[tuple[int, str]]:
    """What each rule keeps of these snapshots (given newest first), and why."""
    for wanted in keep.get("tags", []):
        tagged = (shot for shot in shots if set(wanted.split(",")) <= set(shot["tags"]))
        yield from ((shot["index"], f"has tags [{wanted.replace(',', ', ')}]") for shot in tagged)
    if "within" in keep:
        since = shifted(keep["within"], shots[0]["local"])
        yield from ((shot["index"], f"within {keep['within']}") for shot in shots if shot["when"] > since)
    for name in ("last", *LABELS):
        if keep.get(name, 0):
            yield from by_count(shots, name, keep[name])
    for name, label in LABELS.items():
        if f"within_{name}" in keep:
            since = shifted(keep[f"within_{name}"], shots[0]["local"])
            newest = newest_of_buckets([s for s in shots if s["when"] > since], label)
            yield from ((shot["index"], f"{name} within {keep[f'within_{name}']}") for shot in newest)
    yield from ((shot["index"], "minimum count") for shot in shots[: keep.get("min_count", 1)])


def reasons_among(shots: list[Record], keep: Record) -> dict[int, list[str]]:
    """What keeps which of these snapshots: index -> reasons."""
    kept: dict[int, list[str]] = {shot["index"]: [] for shot in shots}
    for index, reason in by_rules(shots, keep) if shots else ():
        kept[index].append(reason)
    return kept


def table(shots: list[Record], keep: Record) -> dict[str, list[str]]:
    """Every kept snapshot's reasons, by its index in the history."""
    full = [{"index": n, "tags": s["tags"], "when": datetime.fromisoformat(s["time"])} for n, s in enumerate(shots)]
    for shot in full:
        shot["local"] = shot["when"].astimezone(ZONE)
    full.reverse()
    future = [s for s in full if s["when"] > NOW + timedelta(minutes=5)]
    past = [s for s in full if s not in future]
    result = {str(s["index"]): ["from the future"] for s in future}
    if not set(keep) - {"min_count"}:
        return result | {str(s["index"]): ["policy is empty"] for s in past}
    lame = {s["index"] for s in past if {"partial", "suspect"} & set(s["tags"])}
    alone = reasons_among([s for s in past if s["index"] not in lame], keep)
    beside = reasons_among(past, keep)
    for shot in past:
        why = ["pinned"] if "pinned" in shot["tags"] else []
        why += beside[shot["index"]] if shot["index"] in lame else alone[shot["index"]]
        if why:
            result[str(shot["index"])] = why
    return result


def main() -> None:
    shots = history()
    cases = [{"keep": keep, "kept": table(shots, keep)} for keep in policies()]
    body = ",\n".join(json.dumps(case) for case in cases)
    rows = ",\n".join(json.dumps(shot) for shot in shots)
    head = f'"zone": "{ZONE.key}", "now": "{NOW.isoformat()}"'
    print(f'{{{head}, "snapshots": [\n{rows}\n], "cases": [\n{body}\n]}}')  # noqa: T201 - makes the file


if __name__ == "__main__":
    main()
