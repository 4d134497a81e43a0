"""hold, release, accept: what a person decides about jobs; the daemon remembers it."""

from typing import Annotated

import typer

from pra_agent.cli.jobs import JobNames, OneJob
from pra_agent.cli.options import options
from pra_agent.cli.output import Output
from pra_agent.cli.reaching import daemon


def hold(
    context: typer.Context,
    jobs: JobNames = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for the journal.")] = "",
) -> None:
    """Start no scheduled run of these jobs (none named: of all) until they are released.

    For a host that was just restored: what is half restored must not be saved as good.
    """
    chosen = options(context)
    with daemon(chosen) as client:
        client.hold(jobs or [], reason)
    _tell(Output.of(chosen), "hold", jobs or [])


def release(context: typer.Context, jobs: JobNames = None) -> None:
    """End the hold of these jobs (none named: of all)."""
    chosen = options(context)
    with daemon(chosen) as client:
        client.release(jobs or [])
    _tell(Output.of(chosen), "release", jobs or [])


def accept(context: typer.Context, job: OneJob) -> None:
    """Take a job's suspect backup for good: it is smaller than usual, and that is right."""
    chosen = options(context)
    with daemon(chosen) as client:
        client.accept(job)
    _tell(Output.of(chosen), "accept", [job])


def _tell(output: Output, done: str, jobs: list[str]) -> None:
    output.data({"type": done, "jobs": jobs})
    output.line(f"{done}: {', '.join(jobs) or 'all jobs'}")
