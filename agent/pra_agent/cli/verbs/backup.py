"""backup: run jobs now."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pra_agent.cli.directly import run_directly
from pra_agent.cli.jobs import JobNames
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output
from pra_agent.cli.progress import showing
from pra_agent.cli.reaching import chosen_jobs, configuration, daemon
from pra_agent.cli.runs import exit_code, show_runs
from pra_agent.daemon.requests import RunRequest
from pra_agent.errors import Interrupted
from pra_agent.model.runs import Operation, RunRecord


def command(
    context: typer.Context,
    jobs: JobNames = None,
    full: Annotated[bool, typer.Option("--full", help="Read every byte instead of trusting size and times.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, or only start.")] = True,
) -> None:
    """Back jobs up now: those that are named, or all.

    The daemon runs them, and goes on when this command is interrupted. With --direct they run here, one after another.
    Exit code 3 when files are missing from a snapshot, or when it looks too small.
    """
    chosen = options(context)
    output = Output.of(chosen)
    if chosen.direct:
        records = _here(chosen, output, jobs or [], full=full)
    else:
        records = _through_daemon(chosen, output, jobs or [], (full, wait))
    show_runs(output, records)
    raise typer.Exit(exit_code(records))


def _here(chosen: Options, output: Output, names: Sequence[str], *, full: bool) -> Sequence[RunRecord]:
    config = configuration(chosen)
    records: list[RunRecord] = []
    for name in chosen_jobs(config, names):
        with showing(output) as report:
            records.append(run_directly(config, RunRequest(Operation.BACKUP, name, full=full), report))
    return records


def _through_daemon(
    chosen: Options, output: Output, names: Sequence[str], how: tuple[bool, bool]
) -> Sequence[RunRecord]:
    full, wait = how
    with daemon(chosen) as client:
        names = names or [job.fact.name for job in client.jobs()]
        started = {name: client.start_job(name, full=full) for name in names}
        if not wait:
            for name, run in started.items():
                output.data({"type": "started", "job": name, "run": run})
                output.line(f"backup {name}: started, run {run}")
            return []
        try:
            with showing(output) as report:
                return [client.follow(run, report) for run in started.values()]
        except KeyboardInterrupt as error:
            raise Interrupted(
                "interrupted; the daemon goes on with the backup", advice="pra-agent status shows it."
            ) from error
