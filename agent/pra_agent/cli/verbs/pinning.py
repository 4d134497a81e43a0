"""pin, unpin: a snapshot that forget must leave alone."""

from typing import Annotated

import typer

from pra_agent.cli.options import options
from pra_agent.cli.output import Output, instant
from pra_agent.cli.reaching import direct
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.pin import pin as pin_snapshot
from pra_agent.operations.pin import unpin as unpin_snapshot

Wanted = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="The beginning of its id, or latest.")]


def pin(context: typer.Context, snapshot: Wanted) -> None:
    """Keep a snapshot until it is unpinned, whatever the keep policies say. It gets a new id."""
    with direct(options(context)) as repository:
        pinned = pin_snapshot(snapshot, repository)
    _tell(Output.of(options(context)), "pinned", pinned)


def unpin(context: typer.Context, snapshot: Wanted) -> None:
    """Let the keep policies judge a snapshot again. It gets a new id."""
    with direct(options(context)) as repository:
        unpinned = unpin_snapshot(snapshot, repository)
    _tell(Output.of(options(context)), "unpinned", unpinned)


def _tell(output: Output, done: str, snapshot: Snapshot) -> None:
    output.data({"type": done, "snapshot": snapshot.id, "job": snapshot.job, "time": snapshot.time})
    output.line(f"{done}: {snapshot.job or snapshot.hostname}, {instant(snapshot.time)} UTC, {snapshot.id[:8]} now")
