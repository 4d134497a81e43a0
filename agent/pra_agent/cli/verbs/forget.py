"""forget: drop snapshots that no keep policy needs."""

from collections.abc import Sequence
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from pra_agent.cli.operating import number, operate
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output, count, instant
from pra_agent.cli.pruning import everywhere, forget_one
from pra_agent.cli.reaching import configuration, daemon, reader
from pra_agent.cli.runs import exit_code
from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.model.runs import Operation
from pra_agent.retention import Decision, Scope, decide_all

COLUMNS = ("SNAPSHOT", "DATA OF (UTC)", "NODE", "JOB", "", "WHY")


def command(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would stay, and why.")] = False,
) -> None:
    """Drop the snapshots that no keep policy needs. Their space comes back with the next prune.

    Only snapshots of this node's configured jobs are dropped; pinned ones, those of other tools, and those of a job
    whose last backup looked too small are left alone. On a pruning host (pruner in the configuration) --direct walks
    all hosts that are named there.
    """
    chosen = options(context)
    output = Output.of(chosen)
    if dry_run:
        _show(output, _decisions(chosen))
        return
    config = configuration(chosen)
    if chosen.direct and config.pruner is not None:
        raise typer.Exit(everywhere(config, output, forget_one))
    record = operate(chosen, output, Operation.FORGET, {"dry_run": False})
    output.data({"type": "run", "run": record})
    kept, forgotten = number(record, "kept"), number(record, "forgotten")
    output.line(f"forget: {record.outcome}, {count(forgotten, 'snapshot')} forgotten, {kept:,} kept")
    raise typer.Exit(exit_code([record]))


def _decisions(chosen: Options) -> Sequence[Decision]:
    config = configuration(chosen)
    with reader(chosen, "forget --dry-run") as source:
        snapshots = source.snapshots()
    scope = Scope(config.node, {name: job.keep for name, job in config.jobs.items()}, suspect=_suspect(chosen, config))
    return decide_all(snapshots, scope, SystemClock().now(), ZoneInfo(config.timezone))


def _suspect(chosen: Options, config: Config) -> frozenset[str]:
    """Jobs whose last backup looked too small: the daemon knows them."""
    if chosen.direct:
        return frozenset()
    with daemon(chosen) as client:
        return frozenset(job.fact.name for job in client.jobs() if job.suspect and job.fact.name in config.jobs)


def _show(output: Output, decisions: Sequence[Decision]) -> None:
    output.data(
        {
            "type": "forget_plan",
            "snapshots": [
                {
                    "id": one.snapshot.id,
                    "time": one.snapshot.time,
                    "node": one.snapshot.hostname,
                    "job": one.snapshot.job,
                    "keep": one.keep,
                    "reasons": one.reasons,
                }
                for one in decisions
            ],
        }
    )
    output.table(
        COLUMNS,
        [
            (
                one.snapshot.id[:8],
                instant(one.snapshot.time),
                one.snapshot.hostname,
                one.snapshot.job or "-",
                "keep" if one.keep else "forget",
                ", ".join(one.reasons) or "no rule keeps it",
            )
            for one in decisions
        ],
    )
    gone = sum(not one.keep for one in decisions)
    output.line(f"would forget {count(gone, 'snapshot')}, and keep {len(decisions) - gone:,}")
