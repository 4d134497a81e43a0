"""Inline SVG: a strip of runs, a bar of how much of an objective is used, size over time. Each says itself in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pra_agent.exporter.text import size, span, text
from pra_agent.model.runs import Outcome, RunRecord

#: What an outcome looks like; None stands for a run that goes on.
CLASSES: Final[Mapping[Outcome | None, str]] = {
    Outcome.SUCCESS: "good",
    Outcome.PARTIAL: "warn",
    Outcome.SUSPECT: "warn",
    Outcome.FAILED: "bad",
    Outcome.SKIPPED: "idle",
    None: "going",
}
BADGES: Final[Mapping[Outcome | None, str]] = {None: "running"}
#: Heights tell outcomes apart where colours do not.
_HEIGHTS: Final[Mapping[Outcome | None, int]] = {
    Outcome.SUCCESS: 10,
    Outcome.PARTIAL: 16,
    Outcome.SUSPECT: 16,
    Outcome.FAILED: 24,
    Outcome.SKIPPED: 4,
    None: 10,
}
_STEP, _BAR, _HIGH = 5, 4, 24
_WIDE, _TALL = 120, 28


def strip(history: Sequence[RunRecord]) -> str:
    """Draw the runs, the newest at the right; the higher a bar, the worse the outcome."""
    if not history:
        return "no run yet"
    counts = Counter("running" if run.outcome is None else run.outcome.value for run in history)
    label = f"Last {len(history)} runs: " + ", ".join(f"{number} {name}" for name, number in counts.items())
    bars = "".join(
        f'<rect class="{CLASSES[run.outcome]}" x="{place * _STEP}" y="{_HIGH - _HEIGHTS[run.outcome]}" '
        f'width="{_BAR}" height="{_HEIGHTS[run.outcome]}"><title>{_told(run)}</title></rect>'
        for place, run in enumerate(history)
    )
    width = len(history) * _STEP
    return f'<svg role="img" aria-label="{text(label)}" width="{width}" height="{_HIGH}">{bars}</svg>'


def _told(run: RunRecord) -> str:
    outcome = "running" if run.outcome is None else run.outcome.value
    return text(f"{run.started:%Y-%m-%d %H:%M} UTC: {outcome}")


def gauge(used: float | None, objective: float | None) -> str:
    """Draw how much of an objective is used; full and red when it is missed."""
    if used is None or not objective:
        return ""
    share = max(0.0, used / objective)
    grade = "bad" if share > 1 else "warn" if share > 0.5 else "good"
    label = f"{share:.0%} used: {span(used)} of {span(objective)}"
    return (
        f'<svg role="img" aria-label="{text(label)}" width="{_WIDE}" height="8">'
        f'<rect class="track" width="{_WIDE}" height="8" rx="4"/>'
        f'<rect class="{grade}" width="{min(share, 1.0) * _WIDE:.1f}" height="8" rx="4"/></svg>'
    )


def curve(sizes: Sequence[tuple[datetime, int]]) -> str:
    """Draw size over time, from zero."""
    if len(sizes) < 2:
        return ""
    first, last = sizes[0][0].timestamp(), sizes[-1][0].timestamp()
    most = max(number for _, number in sizes) or 1
    points = " ".join(
        f"{(when.timestamp() - first) / max(last - first, 1) * _WIDE:.1f},{_TALL - 1 - number / most * (_TALL - 2):.1f}"
        for when, number in sizes
    )
    label = f"Size over time: from {size(sizes[0][1])} to {size(sizes[-1][1])}, at most {size(most)}"
    return (
        f'<svg role="img" aria-label="{text(label)}" width="{_WIDE}" height="{_TALL}" '
        f'viewBox="0 0 {_WIDE} {_TALL}"><polyline class="curve" points="{points}"/></svg>'
    )
