"""forget: drop snapshots that no keep policy needs."""

from collections.abc import Sequence
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from pra_agent.cli.asking import confirm
from pra_agent.cli.decisions import show_decisions
from pra_agent.cli.operating import number, operate
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output, count, instant
from pra_agent.cli.pruning import everywhere
from pra_agent.cli.reaching import configuration, daemon, direct, pruning_configuration, reader
from pra_agent.cli.runs import exit_code
from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.errors import UsageError
from pra_agent.model.runs import Operation
from pra_agent.retention import Decision, Scope, decide_all


def command(
    context: typer.Context,
    snapshots: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SNAPSHOT]...", help="Drop these (the beginnings of ids), whatever the policies say."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would stay, and why.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before snapshots that are named go.")] = False,
) -> None:
    """Drop the snapshots that no keep policy needs. Their space comes back with the next prune.

    Only snapshots of this node's configured jobs are dropped; pinned ones, those of other tools, and those of a job
    whose last backup looked too small are left alone. On a pruning host (pruner in the configuration) --direct walks
    all hosts that are named there, or the one that --as-node names; exit code 1 when one failed, or when something had
    been written over.
    """
    chosen = options(context)
    output = Output.of(chosen)
    if snapshots:
        _drop(chosen, output, snapshots, dry_run=dry_run, yes=yes)
        return
    pruning = pruning_configuration(chosen)
    if pruning is not None:
        raise typer.Exit(everywhere(pruning, output, Operation.FORGET, node=chosen.as_node, dry_run=dry_run))
    if dry_run:
        show_decisions(output, _decisions(chosen))
        return
    record = operate(chosen, output, Operation.FORGET, {"dry_run": False})
    output.data({"type": "run", "run": record})
    kept, forgotten = number(record, "kept"), number(record, "forgotten")
    output.line(f"forget: {record.outcome}, {count(forgotten, 'snapshot')} forgotten, {kept:,} kept")
    raise typer.Exit(exit_code([record]))


def _drop(chosen: Options, output: Output, wanted: Sequence[str], *, dry_run: bool, yes: bool) -> None:
    """Drop snapshots that are named: fakes that quarantine set aside, or what nobody wants to keep."""
    if not chosen.direct:
        raise UsageError("snapshots are dropped by name with --direct only", advice="Say --direct, too.")
    with direct(chosen) as repository, repository.lock():
        found = {one.id: one for one in (repository.find_snapshot(prefix) for prefix in wanted)}
        for one in found.values():
            output.note(f"{one.id[:8]}: {one.job or one.hostname}, {instant(one.time)} UTC")
        if not dry_run and not yes:
            confirm(f"Drop {count(len(found), 'snapshot')} for good?")
        for snapshot_id in found if not dry_run else ():
            repository.remove_snapshot(snapshot_id)
    output.data({"type": "dropped", "dry_run": dry_run, "snapshots": list(found)})
    output.line(f"forget: {count(len(found), 'snapshot')} {'would be ' if dry_run else ''}dropped")


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
