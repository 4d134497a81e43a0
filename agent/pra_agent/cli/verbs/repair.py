"""repair: save what can be saved of a damaged repository."""

from typing import Annotated

import typer

from pra_agent.cli.asking import ask_secret, confirm
from pra_agent.cli.directly import stoppable
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, count
from pra_agent.cli.progress import showing
from pra_agent.cli.reaching import configuration, direct
from pra_agent.cli.subset import ReadData, ReadDataSubset, chosen_subset
from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.config.secrets import Resolver
from pra_agent.daemon.composition import opened_backend
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.repair import RepairDone, RepairRequest, host_files, repair
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.repair_config import rebuild_config


def command(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    read_data: ReadData = False,
    read_data_subset: ReadDataSubset = "",
    recover: Annotated[
        bool, typer.Option("--recover", help="Make snapshots of trees that no snapshot refers to.")
    ] = False,
    host: Annotated[
        bool, typer.Option("--host/--no-host", help="Read lost content again from this host's files, where it is so.")
    ] = True,
    config_lost: Annotated[
        bool, typer.Option("--rebuild-config", help="The repository's config file is lost or broken: write a new one.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show the plan.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Save what can be saved: indexes are made anew from the packs, lost content is read again from this host.

    Snapshots that still lack something are written again without it, and those of which nothing is left are dropped.
    Opens the repository in this process, under the exclusive lock. Start with --dry-run.
    """
    chosen = options(context)
    output = Output.of(chosen)
    subset = chosen_subset(read_data, read_data_subset)
    if not dry_run and not yes:
        confirm("Rewrite indexes and snapshots of this repository?")
    config = configuration(chosen)
    if config_lost and not dry_run:
        _rebuild(config)
    request = RepairRequest(
        subset=parse_subset(subset) if subset else None,
        recover=recover,
        dry_run=dry_run,
        opener=host_files(lambda snapshot, path: _captured(config, snapshot, path)) if host else None,
    )
    with direct(chosen) as repository, showing(output) as report, stoppable() as stop:
        done = repair(request, repository, report=report, stop=stop)
    _tell(output, done)
    if done.done is not None and done.done.still_lost:
        raise typer.Exit(3)


def _rebuild(config: Config) -> None:
    """Write the repository's config file anew; the key slots still have the master key."""
    password = Resolver(ask=ask_secret).resolve(config.repository.password)
    with opened_backend(config, SystemClock()) as backend:
        rebuild_config(backend, password)


def _captured(config: Config, snapshot: Snapshot, path: bytes) -> bytes | None:
    """Where a path of a snapshot is on this host: only jobs of files have the paths of the host."""
    job = config.jobs.get(snapshot.job)
    return path if job is not None and job.source.type == "files" and snapshot.hostname == config.node else None


def _tell(output: Output, done: RepairDone) -> None:
    output.data({"type": "repair", "plan": done.plan.lines(), "empty": done.plan.empty, "done": done.done})
    if done.done is None:
        output.line("repair: nothing to do" if done.plan.empty else "repair: a plan only, nothing was changed")
        return
    made = done.done
    output.line(
        f"repair: {count(made.indexes_written, 'index file')} written, {count(made.blobs_saved, 'blob')} saved,"
        f" {made.blobs_read_again:,} read again from this host, {count(len(made.rewritten), 'snapshot')} rewritten,"
        f" {len(made.dropped):,} dropped, {len(made.recovered):,} recovered"
    )
    if made.still_lost:
        output.line(f"still lost: {count(made.still_lost, 'blob')}; pra-agent check tells what that hits")
