"""What a run does in its child process, for each operation; the operations themselves know no configuration."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import cast

from pra_agent.archiver.values import Limits
from pra_agent.config import Config, Job
from pra_agent.config.secrets import Resolver
from pra_agent.daemon import identity
from pra_agent.daemon.composition import Opening, build_source, host_of, never_captured, opened_repository
from pra_agent.daemon.worker import Work
from pra_agent.errors import PraError, SourceError, UsageError
from pra_agent.model.events import Notice
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import AGENT_TAG, SUSPECT_TAG, Snapshot
from pra_agent.operations import coverage
from pra_agent.operations.backup import BackupRequest
from pra_agent.operations.backup import backup as run_backup
from pra_agent.operations.hooks import around
from pra_agent.repository.repository import Repository
from pra_agent.sources.scratch import Room, demand_free, used_below
from pra_agent.storage.backend import Kind
from pra_agent.storage.metered import Meter


def backup(work: Work) -> RunRecord:
    """Back a job up."""
    config = config_of(work)
    job = _job(config, work.request.job)
    demand_free(config.state.dir, config.limits.free_bytes)
    hooks = around(job.hooks, job=job.name, run=work.run.id, report=work.report)
    with hooks, repository_of(work) as (repository, meter):
        usual = work.journal.usual_bytes(job.name)
        request = BackupRequest(
            run=work.run.id,
            job=job.name,
            node=config.node,
            source=build_source(job),
            state=work.journal.state_before(job.name),
            full=work.request.full,
            partial_ok=job.partial_ok,
            usual_bytes=usual or None,
            tags=(*job.tags, *identity.machine_tags(repository.host)),
            excludes=tuple(getattr(job.source, "exclude", ())),
            scratch=scratch_of(config),
            never=never_captured(config),
            limits=Limits(workers=config.limits.workers) if config.limits.workers else Limits(),
        )
        record = run_backup(request, repository, clock=work.clock, report=work.report, stop=work.stop)
        work.gauge("snapshots", 1, job.name, add=True)
        local = record.detail.get("local_snapshot_bytes")
        work.gauge("local_snapshot_bytes", float(local) if isinstance(local, int | float) else None, job.name)
        if isinstance(held := record.detail.get("local_snapshot_bytes"), int):
            work.gauge("local_snapshot_bytes", held, job.name)
        return with_requests(work, record, meter)


def undo(work: Work) -> RunRecord:
    """Put back what captures of crashed runs left behind. Jobs that fail are named; their state stays journalled."""
    config = config_of(work)
    failed: list[str] = []
    for name in work.journal.jobs_with_state():
        try:
            job = _job(config, name)
            build_source(job).undo(work.journal.state_before(name))
        except PraError as error:
            failed.append(f"{name}: {error.message}")
    if failed:
        raise SourceError("what a crashed run left could not be undone: " + "; ".join(failed))
    return replace(work.run, outcome=Outcome.SUCCESS, finished=work.clock.now())


def survey(work: Work) -> RunRecord:
    """Look at the repository: is it ours, what is in it; an empty journal is seeded from its snapshots."""
    config = config_of(work)
    _cover(work)
    with repository_of(work, confirm=False) as (repository, _):
        snapshots = repository.snapshots()
        if repository.state is not None:
            identity.confirm(snapshots, repository.host, repository.state)
        ours = [one for one in snapshots if AGENT_TAG in one.tags and one.hostname == config.node]
        count_snapshots(work, ours)
        for name in config.jobs:
            own = [one for one in ours if one.job == name]
            if work.journal.last_run(name, Operation.BACKUP) is None:
                _seed(work, own, off_host=repository.backend.off_host)
        sizes = [info.size for kind in Kind for info in repository.backend.list(kind)]
        work.gauge("repository_size_bytes", sum(sizes))
        work.gauge("scratch_bytes", used_below(config.scratch_dir))
        if repository.state is not None:
            work.gauge("cache_bytes", used_below(repository.state / "cache"))
        locks = [lock.time.timestamp() for lock in repository.locks.read_all()]
        work.gauge("repository_oldest_lock_timestamp_seconds", min(locks, default=None))
        skew = _skew(repository, work.clock.now())
        if skew is not None:
            work.gauge("clock_skew_seconds", skew)
        return replace(
            work.run, outcome=Outcome.SUCCESS, finished=work.clock.now(), detail={"repository_id": repository.id}
        )


def _cover(work: Work) -> None:
    """Count what no job protects."""
    config = config_of(work)
    sources = {name: job.source for name, job in config.jobs.items()}
    found = coverage.look(sources, Resolver().resolve, intended=config.unprotected_ok)
    for kind, number in found.numbers().items():
        work.gauge("unprotected_resources", number, kind)
    for one in found.unprotected:
        work.report(Notice(f"{one.kind} {one.name} is protected by no job (pra-agent doctor)", "warning"))


def adopt(work: Work) -> RunRecord:
    """Take the repository over from another machine."""
    with repository_of(work, confirm=False) as (repository, _):
        if repository.state is None:
            raise UsageError("adopting needs a state directory")
        identity.adopt(repository.host, repository.state, work.clock.now())
    return replace(work.run, outcome=Outcome.SUCCESS, finished=work.clock.now())


def count_snapshots(work: Work, snapshots: Sequence[Snapshot]) -> None:
    """Leave how many snapshots each job has, and how old its oldest is."""
    config = config_of(work)
    for name in config.jobs:
        times = [one.time for one in snapshots if one.job == name and one.hostname == config.node]
        work.gauge("snapshots", len(times), name)
        oldest = min(times).timestamp() if times else None
        work.gauge("oldest_snapshot_timestamp_seconds", oldest, name)


@contextmanager
def repository_of(work: Work, *, confirm: bool = True, copy: str = "") -> Generator[tuple[Repository, Meter]]:
    """The configured repository, with a meter; `confirm` sees first that it is this host's."""
    config = config_of(work)
    meter = Meter()
    opening = Opening(copy=copy, state=Path(config.state.dir), meter=meter)
    with opened_repository(config, work.clock, opening) as repository:
        state = repository.state
        if confirm and state is not None and not identity.confirmed(host_of(config), state):
            identity.confirm(repository.snapshots(), repository.host, state)
        yield repository, meter


def with_requests(work: Work, record: RunRecord, meter: Meter) -> RunRecord:
    """Add what was asked of the store to the record, and to the exporter's sums."""
    reading = meter.reading()
    for (operation, code), number in reading.requests.items():
        work.gauge("storage_requests_total", number, f"{operation}/{code}", add=True)
    work.gauge("storage_retries_total", reading.retries, add=True)
    work.gauge("storage_bytes_total", reading.bytes_sent, "up", add=True)
    work.gauge("storage_bytes_total", reading.bytes_received, "down", add=True)
    detail: Mapping[str, object] = {**record.detail, "storage": reading.as_detail()}
    return replace(record, detail=detail)


def config_of(work: Work) -> Config:
    """The daemon's configuration."""
    return cast("Config", work.config)


def _job(config: Config, name: str) -> Job:
    job = config.jobs.get(name)
    if job is None:
        raise UsageError(f"no job is called {name}")
    return job


def scratch_of(config: Config) -> Room:
    """Where a source may put what it needs for a while, and how much."""
    return Room(config.scratch_dir, config.limits.scratch.quota, config.limits.free_bytes)


def _seed(work: Work, snapshots: list[Snapshot], *, off_host: bool) -> None:
    """Let the newest good snapshot of a job stand for the runs that the journal does not know."""
    good = [one for one in snapshots if not one.partial and SUSPECT_TAG not in one.tags]
    if not good:
        return
    newest = max(good, key=lambda one: one.time)
    summary = newest.summary
    work.seed(
        RunRecord(
            id=newest.run or newest.id,
            operation=Operation.BACKUP,
            job=newest.job,
            started=newest.time,
            finished=newest.time,
            outcome=Outcome.SUCCESS,
            snapshot=newest.id,
            data_instant=newest.time,
            off_host=off_host,
            files=_number(summary, "total_files_processed"),
            bytes=_number(summary, "total_bytes_processed"),
            bytes_added=_number(summary, "data_added"),
            bytes_stored=_number(summary, "data_added_packed"),
            detail={"seeded": True},
        )
    )


def _number(summary: Mapping[str, object], name: str) -> int:
    value = summary.get(name)
    return value if isinstance(value, int) else 0


def _skew(repository: Repository, now: datetime) -> float | None:
    theirs = repository.backend.store_time()
    return (now - theirs).total_seconds() if theirs is not None else None
