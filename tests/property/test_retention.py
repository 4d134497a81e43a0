"""Retention: a wider policy never keeps less, the guards hold, and what is kept does not depend on the order."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from pra_agent.model.snapshots import Snapshot
from pra_agent.retention import FUTURE_TOLERANCE, Keep, decide, incomplete

NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
ZONES = st.sampled_from([UTC, ZoneInfo("Europe/Paris"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns")])
COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
WITHINS = ("within", "within_hourly", "within_daily", "within_weekly", "within_monthly", "within_yearly")
TAGS = st.sampled_from([(), (), (), ("partial",), ("suspect",), ("pinned",), ("audit",)])


@st.composite
def histories(draw: st.DrawFn) -> list[Snapshot]:
    """Snapshots from hours to years apart, some of them odd, some from the future."""
    gaps = draw(st.lists(st.one_of(st.integers(1, 7200), st.integers(1, 5_000_000)), max_size=40))
    moment = NOW + timedelta(minutes=draw(st.integers(-600, 600)))
    shots: list[Snapshot] = []
    for number, gap in enumerate(gaps):
        tags = ("pra-agent", "job=files", *draw(TAGS))
        shots.append(Snapshot(time=moment, tree=bytes(32), paths=("/",), hostname="h", tags=tags, id=f"{number:064x}"))
        moment -= timedelta(seconds=gap)
    return shots


def spans(parts: tuple[int, int, int, int]) -> str:
    return "".join(f"{number}{unit}" for number, unit in zip(parts, "ymdh", strict=True) if number)


SPANS = st.tuples(st.integers(0, 3), st.integers(0, 14), st.integers(0, 40), st.integers(0, 50))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Keep, Keep]:
    """A policy that is not empty, and one that asks for as much or more in every rule."""
    narrow: dict[str, Any] = {}
    wide: dict[str, Any] = {}
    for name in (*COUNTS, "min_count"):
        count = draw(st.integers(0, 12))
        narrow[name] = count
        wide[name] = count + draw(st.integers(0, 12))
    for name in COUNTS:
        if draw(st.integers(0, 9)) == 0:
            wide[name] = "all"
    for name in WITHINS:
        if draw(st.booleans()):
            base, more = draw(SPANS), draw(SPANS)
            narrow[name] = spans(base)
            wide[name] = spans((base[0] + more[0], base[1] + more[1], base[2] + more[2], base[3] + more[3]))
    if draw(st.booleans()):
        narrow["tags"], wide["tags"] = ("audit",), ("audit", "job=files,pinned")
    return Keep(**narrow), Keep(**wide)


def kept(shots: list[Snapshot], keep: Keep, zone: tzinfo) -> set[str]:
    return {decision.snapshot.id for decision in decide(shots, keep, NOW, zone) if decision.keep}


@given(histories(), pairs(), ZONES)
def test_a_wider_policy_never_keeps_less(shots, policies, zone):
    narrow, wide = policies
    if not narrow.empty:
        assert kept(shots, narrow, zone) <= kept(shots, wide, zone)


@given(histories(), pairs(), ZONES)
def test_never_below_the_minimum_and_never_what_is_out_of_reach(shots, policies, zone):
    keep = policies[0]
    staying = kept(shots, keep, zone)
    present = [s for s in shots if s.time <= NOW + FUTURE_TOLERANCE]
    complete = [s for s in present if not incomplete(s)]
    assert len(staying & {s.id for s in present}) >= min(keep.min_count, len(present))
    assert {s.id for s in complete[: keep.min_count]} <= staying
    assert {s.id for s in shots if s.pinned or s.time > NOW + FUTURE_TOLERANCE} <= staying


@given(histories(), pairs(), ZONES)
def test_incomplete_snapshots_cost_the_complete_ones_nothing(shots, policies, zone):
    keep = policies[0]
    complete = [s for s in shots if not incomplete(s)]
    assert kept(complete, keep, zone) == kept(shots, keep, zone) & {s.id for s in complete}


@given(histories(), pairs(), ZONES, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_forgetting_again_forgets_nothing(shots, policies, zone, rng):
    keep = policies[0]
    staying = kept(shots, keep, zone)
    shuffled = list(shots)
    rng.shuffle(shuffled)
    assert kept(shuffled, keep, zone) == staying
    assert kept([s for s in shots if s.id in staying], keep, zone) == staying
