"""snapshots: list what can be restored."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pra_agent.cli.choosing import AsOf
from pra_agent.cli.jobs import JobNames
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count, instant
from pra_agent.cli.reaching import reader
from pra_agent.model.snapshots import AGENT_TAG, PARTIAL_TAG, PINNED_TAG, SUSPECT_TAG, Snapshot
from pra_agent.units import human_size

COLUMNS = ("ID", "DATA OF (UTC)", "JOB", "NODE", "FILES", "SIZE", "NEW", "NOTES", "PATHS")
_NOTES = (PARTIAL_TAG, SUSPECT_TAG, PINNED_TAG)


def command(
    context: typer.Context,
    jobs: JobNames = None,
    latest: Annotated[int, typer.Option("--latest", "-n", min=0, help="Only so many of each job; 0: all.")] = 0,
    node: Annotated[str, typer.Option("--node", help="Only of this node.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only with this tag; all of them if several.")] = None,
    as_of: AsOf = None,
) -> None:
    """List the snapshots, the oldest first. The time is the instant that the data stands for."""
    chosen = options(context)
    output = Output.of(chosen)
    with reader(chosen, "snapshots", as_of) as source:
        found = source.snapshots()
    shown = [
        one
        for one in found
        if (not jobs or one.job in jobs) and (not node or one.hostname == node) and set(tag or ()) <= set(one.tags)
    ]
    shown = _newest(shown, latest) if latest else shown
    output.data({"type": "snapshots", "snapshots": [snapshot_json(one) for one in shown]})
    output.table(COLUMNS, [_row(one) for one in shown], right=("FILES", "SIZE", "NEW"))
    output.note(count(len(shown), "snapshot"))


def snapshot_json(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot's JSON."""
    return {
        "id": snapshot.id,
        "time": snapshot.time,
        "job": snapshot.job,
        "run": snapshot.run,
        "node": snapshot.hostname,
        "paths": snapshot.paths,
        "tags": snapshot.tags,
        "tree": snapshot.tree.hex(),
        "parent": snapshot.parent,
        "partial": snapshot.partial,
        "suspect": SUSPECT_TAG in snapshot.tags,
        "pinned": snapshot.pinned,
        "program_version": snapshot.program_version,
        "summary": snapshot.summary,
    }


def _newest(snapshots: Sequence[Snapshot], count: int) -> list[Snapshot]:
    kept: list[Snapshot] = []
    seen: dict[tuple[str, str], int] = {}
    for one in reversed(snapshots):
        key = (one.hostname, one.job)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= count:
            kept.append(one)
    return kept[::-1]


def _row(snapshot: Snapshot) -> tuple[str, ...]:
    summary = snapshot.summary
    files, size, new = (
        summary.get(key) for key in ("total_files_processed", "total_bytes_processed", "data_added_packed")
    )
    notes = [tag for tag in snapshot.tags if tag in _NOTES]
    if AGENT_TAG not in snapshot.tags:
        notes.append("of another tool")
    return (
        snapshot.id[:8],
        instant(snapshot.time),
        snapshot.job or "-",
        snapshot.hostname,
        f"{files:,}" if isinstance(files, int) else "-",
        human_size(size) if isinstance(size, int) else "-",
        human_size(new) if isinstance(new, int) else "-",
        ", ".join(notes),
        ", ".join(snapshot.paths),
    )
