"""Which snapshot is meant, and the options that say so."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from pra_agent.cli.jobs import job_names
from pra_agent.cli.options import Options
from pra_agent.cli.when import HELP, METAVAR, when
from pra_agent.config import load
from pra_agent.errors import ConfigError
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.restore import choose_snapshot

Which = Annotated[
    str,
    typer.Argument(
        metavar="JOB|SNAPSHOT",
        autocompletion=job_names,
        help="A job (its newest snapshot), latest, or the beginning of a snapshot's id.",
    ),
]
At = Annotated[
    datetime | None,
    typer.Option(
        "--at", parser=when, metavar=METAVAR, help=f"The newest snapshot of the job that is not newer; {HELP}."
    ),
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        parser=when,
        metavar=METAVAR,
        help="Read the versioned bucket as it was then, whatever was deleted or hidden since (with --direct).",
    ),
]


def node_of(options: Options) -> str:
    """The node whose snapshots a job's name stands for; "" (any) when the configuration cannot be read."""
    if options.as_node:
        return options.as_node
    try:
        return load(options.config).node
    except ConfigError:
        return ""


def choose(options: Options, snapshots: Sequence[Snapshot], which: str, at: datetime | None = None) -> Snapshot:
    """Find the snapshot that is meant; raises `UsageError`."""
    return choose_snapshot(snapshots, which, node=node_of(options), at=at)
