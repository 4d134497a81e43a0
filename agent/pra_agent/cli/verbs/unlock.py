"""unlock: remove locks of processes that are dead."""

from typing import Annotated

import typer

from pra_agent.cli.asking import confirm
from pra_agent.cli.options import options
from pra_agent.cli.output import Output
from pra_agent.cli.reaching import direct


def command(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove live locks, too. Only when nobody works on the repository.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove stale locks: of this host's dead processes, and those that nobody has refreshed.

    Opens the repository in this process. Runs clear dead locks of their own host by themselves.
    """
    output = Output.of(options(context))
    if everything and not yes:
        confirm("Remove every lock? A process that still works under one stops, or harms the repository.")
    with direct(options(context)) as repository:
        removed = repository.unlock(everything=everything)
        left = repository.locks.read_all()
    output.data({"type": "unlock", "removed": removed, "left": left})
    for lock in removed:
        output.line(f"removed: {lock}")
    for lock in left:
        output.line(f"left: {lock}")
    if not removed and not left:
        output.line("there are no locks")
