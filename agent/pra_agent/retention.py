"""Retention: snapshots and a keep policy in, for each snapshot a decision with its reasons out. Pure, no I/O.

The rules are restic's since 0.16. Snapshots are walked from the newest to the oldest; a rule such as `daily: 7` keeps
the newest snapshot of each day until its count is used up, and when the oldest snapshot is reached with some count
left, that one is kept as well. `within` rules look back from the newest snapshot, not from now. Hours, days, weeks
(ISO), months and years are those of the zone that is given. Guards come on top; they only ever keep more:

- `min_count`: that many of the newest snapshots stay, whatever the other rules say;
- a partial or suspect snapshot never displaces a complete one: the rules are applied to the complete ones alone, and
  what they would keep of the incomplete ones among all is kept beside them;
- a snapshot from the future is neither counted nor deleted, so that it cannot push real ones out;
- a snapshot is forgotten only when a job made it, on this node, the job is configured (or a policy is given for those
  that are not) and not suspect, and the snapshot is not pinned and not in quarantine.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pra_agent.model.snapshots import SUSPECT_TAG, Snapshot

#: A snapshot that is so much newer than now is from the future; less is the skew of honest clocks.
FUTURE_TOLERANCE = timedelta(minutes=5)

_SPAN_PART = re.compile(r"([0-9]{1,5})([ymdh])")


@dataclass(frozen=True, slots=True)
class Span:
    """A length of calendar time, written as `1y5m7d2h`."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> "Span":
        """Read `1y5m7d2h`, any part left out, none twice; "" is no time at all. ValueError for anything else."""
        parts = _SPAN_PART.findall(text)
        found = {unit: int(number) for number, unit in parts}
        if "".join(number + unit for number, unit in parts) != text or len(found) != len(parts):
            raise ValueError(f"{text!r} is not a length of time such as 36h, 14d or 1y6m")
        return cls(found.get("y", 0), found.get("m", 0), found.get("d", 0), found.get("h", 0))

    def __bool__(self) -> bool:
        return self != Span()

    def __str__(self) -> str:
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number)

    def before(self, moment: datetime) -> datetime:
        """The moment that lies so long before, on the calendar of the moment's zone; the first of all when too long.

        A day that the month does not have runs over into the next month, as restic's does. Hours are real hours.
        """
        months = (moment.year - self.years) * 12 + moment.month - 1 - self.months
        if months < 12:  # before the year 1
            return datetime.min.replace(tzinfo=UTC)
        first = moment.replace(year=months // 12, month=months % 12 + 1, day=1, fold=0)
        try:
            day = first + timedelta(days=moment.day - 1 - self.days)  # arithmetic of the wall clock
            return day.astimezone(UTC) - timedelta(hours=self.hours)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)


def _span(text: str) -> str:
    Span.parse(text)
    return text


Count = Annotated[int, Field(ge=0, strict=True)] | Literal["all"]
SpanText = Annotated[str, AfterValidator(_span), Field(pattern=r"^([0-9]+[ymdh])*$", examples=["36h", "1y6m"])]


class Keep(BaseModel):
    """A keep policy. A snapshot that any of its rules keeps is kept; without any rule all are kept.

    Counts are numbers of snapshots, or `all`. `tags` keeps what carries all tags of one of its items ("a,b").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    last: Count = 0
    hourly: Count = 0
    daily: Count = 0
    weekly: Count = 0
    monthly: Count = 0
    yearly: Count = 0
    within: SpanText = ""
    within_hourly: SpanText = ""
    within_daily: SpanText = ""
    within_weekly: SpanText = ""
    within_monthly: SpanText = ""
    within_yearly: SpanText = ""
    tags: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    min_count: Annotated[int, Field(ge=0, strict=True)] = 1

    @property
    def empty(self) -> bool:
        """Whether no rule says anything (`min_count` alone is none), so that everything is kept."""
        return not self.tags and not any(left for _, _, left in _counts(self)) and not any(_withins(self))


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one snapshot. `reasons` say why it is kept; there are none when it is to be forgotten."""

    snapshot: Snapshot
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether the snapshot stays."""
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class Scope:
    """What forget may touch: snapshots of this node made by these jobs.

    `gone` is the policy for jobs that have left the configuration; without one they are left alone. `suspect` names
    jobs whose last backup looked too small; nothing of theirs goes until that is accepted. `quarantined` are ids of
    snapshots whose own time is not to be believed (see `disagreeing`).
    """

    node: str
    keeps: Mapping[str, Keep]
    gone: Keep | None = None
    suspect: frozenset[str] = frozenset()
    quarantined: frozenset[str] = frozenset()


Bucket = Callable[[datetime, int], int]

_BUCKETS: Mapping[str, Bucket] = {
    "last": lambda _local, number: number,
    "hourly": lambda local, _number: ((local.year * 12 + local.month) * 31 + local.day) * 24 + local.hour,
    "daily": lambda local, _number: local.toordinal(),
    "weekly": lambda local, _number: local.isocalendar().year * 100 + local.isocalendar().week,
    "monthly": lambda local, _number: local.year * 12 + local.month,
    "yearly": lambda local, _number: local.year,
}


def _counts(keep: Keep) -> Sequence[tuple[str, Bucket, float]]:
    """The counting rules: name, bucket, how many."""
    counts = (keep.last, keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly)
    return [
        (name, bucket, float("inf") if count == "all" else count)
        for (name, bucket), count in zip(_BUCKETS.items(), counts, strict=True)
    ]


def _withins(keep: Keep) -> Sequence[Span]:
    """The spans of the looking-back rules: plain, hourly ... yearly."""
    texts = (
        keep.within,
        keep.within_hourly,
        keep.within_daily,
        keep.within_weekly,
        keep.within_monthly,
        keep.within_yearly,
    )
    return [Span.parse(text) for text in texts]


@dataclass(slots=True)
class _Rule:
    """One rule on its walk from the newest snapshot to the oldest."""

    reason: str
    bucket: Bucket
    left: float = float("inf")
    since: datetime | None = None
    keeps_oldest: bool = True
    last: int | None = field(default=None, init=False)

    def look(self, moment: datetime, local: datetime, number: int, *, oldest: bool) -> str:
        """Why this rule keeps the snapshot, "" when it does not."""
        if self.left <= 0 or (self.since is not None and moment <= self.since):
            return ""
        value = self.bucket(local, number)
        repeated = value == self.last
        if repeated and not (oldest and self.keeps_oldest):
            return ""
        self.last = value
        self.left -= 1
        return f"oldest {self.reason}" if repeated else self.reason


def _rules(keep: Keep, newest: datetime) -> list[_Rule]:
    """The rules of a policy, in the order in which restic names its reasons."""
    plain, *spans = _withins(keep)
    rules: list[_Rule] = []
    if plain:
        rules.append(_Rule(f"within {plain}", _BUCKETS["last"], since=plain.before(newest), keeps_oldest=False))
    rules += [_Rule(f"{name} snapshot", bucket, left=count) for name, bucket, count in _counts(keep) if count]
    rules += [
        _Rule(f"{name} within {span}", _BUCKETS[name], since=span.before(newest), keeps_oldest=False)
        for name, span in zip(list(_BUCKETS)[1:], spans, strict=True)
        if span
    ]
    if keep.min_count:
        rules.append(_Rule("minimum count", _BUCKETS["last"], left=keep.min_count))
    return rules


def _tag_reasons(snapshot: Snapshot, keep: Keep) -> list[str]:
    have = set(snapshot.tags)
    return [f"has tags [{', '.join(wanted.split(','))}]" for wanted in keep.tags if have.issuperset(wanted.split(","))]


def _walk(newest_first: Sequence[Snapshot], keep: Keep, zone: tzinfo) -> list[list[str]]:
    """The reasons of each snapshot when the rules are applied to exactly these."""
    if not newest_first:
        return []
    rules = _rules(keep, newest_first[0].time.astimezone(zone))
    last = len(newest_first) - 1
    reasons: list[list[str]] = []
    for number, snapshot in enumerate(newest_first):
        local = snapshot.time.astimezone(zone)
        found = (rule.look(snapshot.time, local, number, oldest=number == last) for rule in rules)
        reasons.append(_tag_reasons(snapshot, keep) + [reason for reason in found if reason])
    return reasons


def age_order(snapshot: Snapshot) -> tuple[datetime, int, str]:
    """Sort key: by time, to the nanosecond, then by id."""
    return snapshot.time, snapshot.nanoseconds, snapshot.id


def incomplete(snapshot: Snapshot) -> bool:
    """Whether a snapshot lacks something, or looks as if it did; such a one never displaces a complete one."""
    return snapshot.partial or SUSPECT_TAG in snapshot.tags


def decide(snapshots: Iterable[Snapshot], keep: Keep, now: datetime, zone: tzinfo = UTC) -> list[Decision]:
    """Decide over the snapshots of one job on one node; the newest comes first in what is returned."""
    ordered = sorted(snapshots, key=age_order, reverse=True)
    future = [snapshot for snapshot in ordered if snapshot.time > now + FUTURE_TOLERANCE]
    present = ordered[len(future) :]
    decisions = [Decision(snapshot, ("from the future",)) for snapshot in future]
    if keep.empty:
        return decisions + [Decision(snapshot, ("policy is empty",)) for snapshot in present]
    complete = [snapshot for snapshot in present if not incomplete(snapshot)]
    among_complete = iter(_walk(complete, keep, zone))
    among_all = _walk(present, keep, zone)
    for snapshot, beside in zip(present, among_all, strict=True):
        reasons = beside if incomplete(snapshot) else next(among_complete)
        pinned = ["pinned"] if snapshot.pinned else []
        decisions.append(Decision(snapshot, (*pinned, *reasons)))
    return decisions


def decide_all(snapshots: Iterable[Snapshot], scope: Scope, now: datetime, zone: tzinfo = UTC) -> list[Decision]:
    """Decide over all snapshots of a repository; groups by node and job, the newest first within each group."""
    groups: dict[tuple[str, str], list[Snapshot]] = {}
    for snapshot in snapshots:
        groups.setdefault((snapshot.hostname, snapshot.job), []).append(snapshot)
    decisions: list[Decision] = []
    for (node, job), members in sorted(groups.items()):
        excuse, keep = _standing(node, job, scope)
        trusted = [snapshot for snapshot in members if snapshot.id not in scope.quarantined]
        held = [snapshot for snapshot in members if snapshot.id in scope.quarantined]
        if keep is None:
            decided = [Decision(snapshot, (excuse,)) for snapshot in trusted]
        else:
            decided = decide(trusted, keep, now, zone)
        decided += [Decision(snapshot, ("in quarantine: its time disagrees with the store's",)) for snapshot in held]
        decisions += sorted(decided, key=lambda decision: age_order(decision.snapshot), reverse=True)
    return decisions


def _standing(node: str, job: str, scope: Scope) -> tuple[str, Keep | None]:
    """Why nothing of a group is forgotten, or the policy that holds for it."""
    keep = scope.keeps.get(job, scope.gone)
    if not job:
        return "not made by a job", None
    if node != scope.node:
        return f"of another node, {node}", None
    if job in scope.suspect:
        return "job is suspect until its last backup is accepted", None
    if keep is None:
        return "job is no longer configured", None
    return "", keep


def disagreeing(
    snapshots: Iterable[Snapshot], stored: Mapping[str, datetime], *, tolerance: timedelta
) -> frozenset[str]:
    """Ids of snapshots whose own time is further than `tolerance` from when the store says that it was written.

    A taken-over host can write snapshots with any time in them, so that they take the places of real ones in a keep
    policy; the store's clock is not in its hands. Nothing is written before the instant that it stands for, so only the
    skew of honest clocks is allowed in that direction. Snapshots that the store tells nothing about are believed.
    """
    ahead = min(tolerance, FUTURE_TOLERANCE)
    return frozenset(
        snapshot.id
        for snapshot in snapshots
        if snapshot.id in stored and not -ahead <= stored[snapshot.id] - snapshot.time <= tolerance
    )
