"""ls: list what is in a snapshot."""

import os
from typing import Annotated

import typer

from pra_agent.cli.choosing import AsOf, At, Which, choose
from pra_agent.cli.entries import entry_json, long_line
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, instant
from pra_agent.cli.reaching import reader
from pra_agent.model.printable import printable
from pra_agent.operations.browse import list_entries


def command(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    which: Which,
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="A directory or file of the snapshot.")] = "/",
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Everything below, too.")] = False,
    long: Annotated[bool, typer.Option("--long", "-l", help="With mode, owner, size and time.")] = False,
    at: At = None,
    as_of: AsOf = None,
) -> None:
    """List what is in a snapshot: a directory, or all below it."""
    chosen = options(context)
    output = Output.of(chosen)
    with reader(chosen, f"ls {which}", as_of) as source:
        snapshot = choose(chosen, source.snapshots(), which, at)
        output.note(f"snapshot {snapshot.id[:8]} of {snapshot.job or snapshot.hostname}, {instant(snapshot.time)} UTC")
        for entry in list_entries(source, snapshot, os.fsencode(path), recursive=recursive):
            output.data({"type": "entry", "snapshot": snapshot.id, **entry_json(entry.path, entry.node)})
            output.line(long_line(entry.path, entry.node) if long else printable(entry.path))
