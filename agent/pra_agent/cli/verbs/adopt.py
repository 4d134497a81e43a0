"""adopt: take a repository over from another machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.asking import confirm
from pra_agent.cli.directly import private_state
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, instant
from pra_agent.cli.reaching import configuration, direct
from pra_agent.clock import SystemClock
from pra_agent.daemon import identity
from pra_agent.errors import UsageError
from pra_agent.model.snapshots import AGENT_TAG, Snapshot
from pra_agent.repository.state import repository_state


def command(
    context: typer.Context, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Take the repository over: from now on this machine writes into it under its node's name.

    For a host that was rebuilt, or whose machine-id changed. The other machine, if it still runs, must not use it any
    more: two machines under one name would mix their snapshots.
    """
    chosen = options(context)
    output = Output.of(chosen)
    config = configuration(chosen)
    with direct(chosen) as repository:
        newest = max(
            (one for one in repository.snapshots() if AGENT_TAG in one.tags), key=lambda one: one.time, default=None
        )
        if not yes:
            confirm(f"The newest snapshot is {_of(newest)}. Let {config.node} on this machine go on from there?")
        now = SystemClock().now()
        for state in (private_state(), config.state.dir):
            place = repository_state(state, repository.id) if state.exists() or state == private_state() else None
            if place is not None:
                identity.adopt(repository.host, place, now)
                _like(place, state)
            elif state.exists():
                raise UsageError(f"{state} cannot be written", advice="Run it as root.")
    output.data({"type": "adopted", "node": config.node, "repository_id": repository.id, "from": _of(newest)})
    output.line(f"adopted: {config.repository.url} is {config.node}'s on this machine now")


def _of(newest: Snapshot | None) -> str:
    return f"of {newest.hostname}, {instant(newest.time)} UTC" if newest is not None else "none"


def _like(place: Path, state: Path) -> None:
    """Leave what root wrote into the daemon's state directory to that directory's owner."""
    if os.geteuid() != 0:
        return
    owner = state.stat()
    for path in (place.parent, place, *place.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
