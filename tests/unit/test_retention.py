"""Retention against golden tables (made by a second reading of the rules) and its guards."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from pra_agent.model.snapshots import Snapshot
from pra_agent.retention import Decision, Keep, Scope, Span, decide, decide_all, disagreeing

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "retention.json").read_text())
NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)


def shot(hours_ago: float, *tags: str, job: str = "files", host: str = "web-1") -> Snapshot:
    """A snapshot of so many hours ago; its id is that number."""
    return Snapshot(
        time=NOW - timedelta(hours=hours_ago),
        tree=bytes(32),
        paths=("/srv",),
        hostname=host,
        tags=("pra-agent", f"job={job}", *tags) if job else tags,
        id=f"{hours_ago:g}",
    )


def kept(decisions: list[Decision]) -> set[str]:
    return {decision.snapshot.id for decision in decisions if decision.keep}


def golden_history() -> list[Snapshot]:
    return [
        Snapshot(
            time=datetime.fromisoformat(row["time"]),
            tree=bytes(32),
            paths=("/srv",),
            hostname="web-1",
            tags=tuple(row["tags"]),
            id=str(number),
        )
        for number, row in enumerate(GOLDEN["snapshots"])
    ]


def test_there_are_enough_golden_tables():
    assert len(GOLDEN["cases"]) >= 40
    assert len(GOLDEN["snapshots"]) > 150
    seen = {reason for case in GOLDEN["cases"] for reasons in case["kept"].values() for reason in reasons}
    assert {"oldest daily snapshot", "oldest yearly snapshot", "pinned", "from the future"} <= seen


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: json.dumps(case["keep"])[1:-1].replace('"', ""))
def test_golden_table(case):
    decisions = decide(
        golden_history(),
        Keep(**case["keep"]),
        datetime.fromisoformat(GOLDEN["now"]),
        ZoneInfo(GOLDEN["zone"]),
    )
    assert {d.snapshot.id: list(d.reasons) for d in decisions if d.keep} == case["kept"]
    assert len(decisions) == len(GOLDEN["snapshots"])


def test_decisions_come_newest_first_whatever_the_order_given():
    decisions = decide([shot(3), shot(1), shot(2)], Keep(last=1), NOW)
    assert [d.snapshot.id for d in decisions] == ["1", "2", "3"]


def test_a_partial_snapshot_takes_no_place_of_a_complete_one():
    history = [shot(1, "partial"), shot(2), shot(3, "suspect"), shot(4), shot(5)]
    assert kept(decide(history, Keep(last=2, min_count=0), NOW)) == {"1", "2", "4"}


def test_snapshots_from_the_future_neither_count_nor_go():
    history = [shot(-30), shot(-29), shot(1), shot(2), shot(3)]
    assert kept(decide(history, Keep(last=2), NOW)) == {"-30", "-29", "1", "2"}


def test_within_looks_back_from_the_newest_that_is_not_from_the_future():
    history = [shot(-500), shot(100), shot(110), shot(130)]
    assert kept(decide(history, Keep(within="24h"), NOW)) == {"-500", "100", "110"}


def test_a_clock_that_is_a_little_ahead_is_no_future():
    history = [shot(-1 / 60), shot(1)]
    assert kept(decide(history, Keep(last=1), NOW)) == {history[0].id}


def test_minimum_count_holds_against_a_policy_that_keeps_less():
    history = [shot(n) for n in range(1000, 1010)]
    assert kept(decide(history, Keep(yearly=1, min_count=4), NOW)) == {"1000", "1001", "1002", "1003"}


def test_without_any_complete_snapshot_partial_ones_fill_the_minimum():
    history = [shot(n, "partial") for n in range(5)]
    assert len(kept(decide(history, Keep(yearly=1, min_count=3), NOW))) == 3


def test_pinned_is_kept():
    decisions = decide([shot(1), shot(2), shot(9, "pinned")], Keep(last=1), NOW)
    assert kept(decisions) == {"1", "9"}
    assert decisions[-1].reasons == ("pinned",)


def test_jobs_are_judged_apart_and_strangers_left_alone():
    history = [
        *(shot(n) for n in (1, 2, 3)),
        *(shot(n, job="db") for n in (10, 20, 30)),
        *(shot(n, job="old") for n in (4, 5)),
        *(shot(n, job="") for n in (6, 7)),
        *(shot(n, host="web-2") for n in (8, 9)),
    ]
    scope = Scope(node="web-1", keeps={"files": Keep(last=1), "db": Keep(last=2)})
    decisions = decide_all(history, scope, NOW)
    assert kept(decisions) == {"1", "10", "20", "4", "5", "6", "7", "8", "9"}
    reasons = {d.snapshot.id: d.reasons for d in decisions}
    assert reasons["4"] == ("job is no longer configured",)
    assert reasons["6"] == ("not made by a job",)
    assert reasons["8"] == ("of another node, web-2",)
    asked = decide_all(history, Scope(node="web-1", keeps={"files": Keep(), "db": Keep()}, gone=Keep(last=1)), NOW)
    assert {d.snapshot.id for d in asked if not d.keep} == {"5"}


def test_nothing_of_a_suspect_job_goes():
    scope = Scope(node="web-1", keeps={"files": Keep(last=1)}, suspect=frozenset({"files"}))
    decisions = decide_all([shot(1), shot(2)], scope, NOW)
    assert kept(decisions) == {"1", "2"}
    assert "suspect" in decisions[0].reasons[0]


def test_backdated_fakes_go_to_quarantine_and_push_nothing_out():
    real = [shot(24 * n + 2) for n in range(1, 4)]
    fakes = [shot(24 * n + 1) for n in range(1, 4)]
    stored = {s.id: s.time + timedelta(minutes=20) for s in real} | {s.id: NOW for s in fakes}
    quarantined = disagreeing([*real, *fakes], stored, tolerance=timedelta(hours=6))
    assert quarantined == {s.id for s in fakes}
    scope = Scope(node="web-1", keeps={"files": Keep(daily=3)}, quarantined=quarantined)
    assert kept(decide_all([*real, *fakes], scope, NOW)) == {s.id for s in [*real, *fakes]}
    trusting = Scope(node="web-1", keeps={"files": Keep(daily=3)})
    assert kept(decide_all([*real, *fakes], trusting, NOW)) == {s.id for s in fakes}


@pytest.mark.parametrize(
    "fields", [{"last": -1}, {"daily": "some"}, {"within": "3w"}, {"within": "1d1d"}, {"tags": [""]}, {"dialy": 3}]
)
def test_a_policy_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        Keep(**fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1m", "2026-03-03T12:00:00+01:00"),  # there is no 31 February
        ("2d", "2026-03-29T12:00:00+02:00"),
        ("3d", "2026-03-28T12:00:00+01:00"),  # a calendar day, 71 hours ago
        ("72h", "2026-03-28T11:00:00+01:00"),  # real hours
        ("1y", "2025-03-31T12:00:00+02:00"),
        ("9999y", "0001-01-01T00:00:00+00:00"),
        ("99999d99999h99999m", "0001-01-01T00:00:00+00:00"),
        ("99999y99999h", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_spans_go_back_on_the_calendar(text, expected):
    moment = datetime(2026, 3, 31, 12, tzinfo=ZoneInfo("Europe/Paris"))
    assert Span.parse(text).before(moment) == datetime.fromisoformat(expected)


def test_spans_print_in_one_form():
    assert str(Span.parse("2h1y")) == "1y2h"
    assert not Span.parse("0d")
