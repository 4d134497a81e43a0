"""pause, resume, stop: what a person does about a run that goes on."""

from collections.abc import Callable
from typing import Annotated

import typer

from pra_agent.cli.options import options
from pra_agent.cli.output import Output
from pra_agent.cli.reaching import daemon
from pra_agent.control.client import Client
from pra_agent.errors import UsageError
from pra_agent.model.runs import RunRecord

Wanted = Annotated[
    str, typer.Argument(metavar="[RUN|JOB|OPERATION]", help="Which run; may be left out when one only goes on.")
]


def pause(context: typer.Context, wanted: Wanted = "") -> None:
    """Let a run stand still, with all its processes: to have the line or the disks for something else.

    After some twenty minutes its lock is stale, and it fails when it goes on; the next run uses what it had stored.
    """
    _steer(context, wanted, "paused", Client.pause)


def resume(context: typer.Context, wanted: Wanted = "") -> None:
    """Let a paused run go on."""
    _steer(context, wanted, "resumed", Client.resume)


def stop(context: typer.Context, wanted: Wanted = "") -> None:
    """Ask a run to stop in order. The next one uses what it had stored."""
    _steer(context, wanted, "stopped", Client.stop)


def _steer(context: typer.Context, wanted: str, done: str, steer: Callable[[Client, str], None]) -> None:
    chosen = options(context)
    with daemon(chosen) as client:
        run = _find(client, wanted)
        steer(client, run.id)
    output = Output.of(chosen)
    output.data({"type": done, "run": run.id, "operation": run.operation, "job": run.job})
    output.line(f"{done}: {run.operation} {run.job}".rstrip() + f", run {run.id}")


def _find(client: Client, wanted: str) -> RunRecord:
    going = [run for run in client.runs(limit=1000) if run.outcome is None]
    found = [run for run in going if not wanted or wanted in {run.id, run.job, run.operation.value}]
    if len(found) != 1:
        names = ", ".join(f"{run.operation} {run.job} ({run.id})".replace("  ", " ") for run in going)
        raise UsageError(
            f"{len(found) or 'no'} runs {'of ' + wanted + ' ' if wanted else ''}go on",
            advice=f"Now: {names or 'none'}.",
        )
    return found[0]
