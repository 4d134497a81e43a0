"""copy: bring the copies up to date."""

from collections.abc import Mapping, Sequence
from typing import cast

import typer

from pra_agent.cli.directly import run_directly
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output, count, duration
from pra_agent.cli.progress import showing
from pra_agent.cli.reaching import configuration, daemon
from pra_agent.cli.runs import exit_code
from pra_agent.daemon.requests import RunRequest
from pra_agent.errors import Interrupted, UsageError
from pra_agent.model.runs import Operation, RunRecord
from pra_agent.units import human_size


def command(context: typer.Context) -> None:
    """Bring every configured copy up to date: snapshots that it lacks, and what they need.

    The daemon does this after each backup by itself.
    """
    chosen = options(context)
    output = Output.of(chosen)
    records = _here(chosen, output) if chosen.direct else _through_daemon(chosen, output)
    for record in records:
        output.data({"type": "run", "run": record})
        took = (record.finished - record.started).total_seconds() if record.finished is not None else 0.0
        error = f", {record.error}" if record.error else ""
        output.line(
            f"copy to {record.destination}: {record.outcome}, {count(_copied(record), 'snapshot')},"
            f" {human_size(record.bytes_stored)} in {duration(took)}{error}"
        )
    raise typer.Exit(exit_code(records))


def _copied(record: RunRecord) -> int:
    snapshots = record.detail.get("snapshots")
    return len(cast("Mapping[str, str]", snapshots)) if isinstance(snapshots, Mapping) else 0


def _here(chosen: Options, output: Output) -> Sequence[RunRecord]:
    config = configuration(chosen)
    if not config.copies:
        raise UsageError("no copies are configured", advice="Add some below copies: in the configuration.")
    records: list[RunRecord] = []
    for copy in config.copies:
        with showing(output) as report:
            records.append(run_directly(config, RunRequest(Operation.COPY, destination=copy.url), report))
    return records


def _through_daemon(chosen: Options, output: Output) -> Sequence[RunRecord]:
    """Start the copies to all places; the answer names one of their runs, and the others run beside it."""
    with daemon(chosen) as client:
        try:
            with showing(output) as report:
                last = client.follow(client.start(Operation.COPY), report)
                others = [
                    client.follow(run.id, report)
                    for run in client.runs(limit=50)
                    if run.operation is Operation.COPY and run.id != last.id and run.finished is None
                ]
        except KeyboardInterrupt as error:
            raise Interrupted(
                "interrupted; the daemon goes on with the copies", advice="pra-agent status shows it."
            ) from error
        started = [
            run
            for run in client.runs(limit=50)
            if run.operation is Operation.COPY and run.id[:15] == last.id[:15] and run.finished is not None
        ]
    return list({run.id: run for run in (*started, *others, last)}.values())
