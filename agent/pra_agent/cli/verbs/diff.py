"""diff: what differs between two snapshots."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from pra_agent.cli.choosing import Which, choose, node_of
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output, instant
from pra_agent.cli.reaching import reader
from pra_agent.errors import UsageError
from pra_agent.model.printable import printable
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.browse import ChangeKind, diff


def command(
    context: typer.Context,
    before: Which,
    after: Annotated[
        str, typer.Argument(metavar="[SNAPSHOT]", help="The other one; for a job alone: its last two are compared.")
    ] = "",
    metadata: Annotated[
        bool, typer.Option("--metadata", "-m", help="Show what differs in owner, mode or times only, too.")
    ] = False,
) -> None:
    """Show what differs between two snapshots, by path.

    + added, - removed, M content changed, T type changed, U only metadata changed.
    """
    chosen = options(context)
    output = Output.of(chosen)
    counts: Counter[str] = Counter()
    with reader(chosen, f"diff {before} {after}") as source:
        old, new = _two(chosen, source.snapshots(), before, after)
        output.note(f"from {old.id[:8]}, {instant(old.time)} UTC, to {new.id[:8]}, {instant(new.time)} UTC")
        for change in diff(source, old, new, metadata=metadata):
            counts[change.kind.value] += 1
            size = change.after.size if change.after is not None else 0
            output.data(
                {"type": "change", "change": change.kind.name.lower(), "path": printable(change.path), "size": size}
            )
            output.line(f"{change.kind.value}  {printable(change.path)}")
    totals = {kind.name.lower(): counts[kind.value] for kind in ChangeKind}
    output.data({"type": "diff", "before": old.id, "after": new.id, "counts": totals})
    output.note(", ".join(f"{number:,} {name}" for name, number in totals.items() if number) or "no difference")


def _two(chosen: Options, known: Sequence[Snapshot], before: str, after: str) -> tuple[Snapshot, Snapshot]:
    if after:
        return choose(chosen, known, before), choose(chosen, known, after)
    node = node_of(chosen)
    own = [one for one in known if one.job == before and (not node or one.hostname == node)]
    if len(own) < 2:
        raise UsageError(
            f"{before} has {len(own)} snapshots, two are compared", advice="Name two snapshots, or a job with two."
        )
    return own[-2], own[-1]
