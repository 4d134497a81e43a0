"""The care of the repository and its copies, in a run's child process: forget, prune, check, copy.

The first three work on the host's own repository and then on every copy; the record is that of the repository, what the
copies gave is in `detail["copies"]`. A copy that fails makes the run fail, after all others had their turn.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pra_agent.config import CopySettings
from pra_agent.config.models import PruneBounds
from pra_agent.daemon.actions import config_of, count_snapshots, repository_of, with_requests
from pra_agent.daemon.composition import find_copy
from pra_agent.daemon.worker import Work
from pra_agent.errors import PraError, UsageError
from pra_agent.model.runs import Outcome, RunRecord
from pra_agent.operations import check as checking
from pra_agent.operations import copy as copying
from pra_agent.operations import forget as forgetting
from pra_agent.operations import prune as pruning
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, Scope
from pra_agent.storage.settings import StorageSettings

#: The gauge that says when a check that read a share of the data last succeeded.
LAST_READ = "check_data_last_success_timestamp_seconds"

#: Does one place: the repository, and the copy's settings (None: the host's own repository).
OnePlace = Callable[[Repository, CopySettings | None], RunRecord]


def forget(work: Work) -> RunRecord:
    """Drop the snapshots that no policy keeps; a job whose newest backup is suspect loses nothing."""
    config = config_of(work)
    dry_run = bool(work.request.options.get("dry_run"))
    suspect = frozenset(name for name in config.jobs if work.journal.job_state(name).suspect)

    def one(repository: Repository, copy: CopySettings | None) -> RunRecord:
        request = forgetting.ForgetRequest(
            run=work.run.id,
            scope=Scope(config.node, _keeps(work, copy), suspect=suspect),
            zone=ZoneInfo(config.timezone),
            dry_run=dry_run,
        )
        done = forgetting.forget(request, repository, clock=work.clock, report=work.report, stop=work.stop)
        if copy is None and not dry_run:
            count_snapshots(work, [each.snapshot for each in done.decisions if each.keep])
        return done.record

    return _everywhere(work, one)


def prune(work: Work) -> RunRecord:
    """Give back what no snapshot needs, within the configured budget."""
    config = config_of(work)
    bounds = config.maintenance.prune or PruneBounds()

    def one(repository: Repository, copy: CopySettings | None) -> RunRecord:
        place: StorageSettings = config.repository if copy is None else copy
        request = pruning.PruneRequest(
            run=work.run.id,
            settings=PruneSettings(max_unused=bounds.max_unused, max_repack=bounds.max_repack, budget=bounds.budget),
            dry_run=bool(work.request.options.get("dry_run")),
            retain=place.object_lock.retain if place.object_lock is not None else None,
        )
        record = pruning.prune(request, repository, clock=work.clock, report=work.report, stop=work.stop).record
        _size(work, record, copy)
        return record

    return _everywhere(work, one)


def check(work: Work) -> RunRecord:
    """Verify the structure, and a share of the data: what was asked for, or by schedule what is due."""
    every = config_of(work).maintenance.check.read_data_every
    asked = str(work.request.options.get("read_data_subset") or "")
    try:
        subset = parse_subset(asked) if asked else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    last = work.journal.gauge(LAST_READ)
    walks = work.request.scheduled and every is not None

    def one(repository: Repository, copy: CopySettings | None) -> RunRecord:
        request = checking.CheckRequest(
            run=work.run.id,
            subset=subset,
            read_every=every if walks else None,
            last=datetime.fromtimestamp(last, UTC) if last is not None else None,
        )
        record = checking.check(request, repository, clock=work.clock, report=work.report, stop=work.stop).record
        _size(work, record, copy)
        return record

    record = _everywhere(work, one)
    if walks and record.outcome is Outcome.SUCCESS:
        work.gauge(LAST_READ, record.started.timestamp())
    return record


def copy(work: Work) -> RunRecord:
    """Bring one copy up to date; the data instants of all jobs there advance."""
    config = config_of(work)
    place = find_copy(config, work.request.destination)
    with repository_of(work) as (source, meter), repository_of(work, confirm=False, copy=place.url) as (there, _):
        request = copying.CopyRequest(
            run=work.run.id,
            node=config.node,
            jobs=frozenset(config.jobs),
            keeps=_keeps(work, place),
            zone=ZoneInfo(config.timezone),
        )
        done = copying.copy(request, source, there, clock=work.clock, report=work.report, stop=work.stop)
        for job, instant in done.instants.items():
            work.instant(job, place.url, instant, off_host=there.backend.off_host)
        return replace(with_requests(work, done.record, meter), destination=place.url)


def _everywhere(work: Work, one: OnePlace) -> RunRecord:
    with repository_of(work) as (repository, meter):
        record = with_requests(work, one(repository, None), meter)
    copies: dict[str, object] = {}
    troubles: list[str] = []
    for copy in config_of(work).copies:
        try:
            with repository_of(work, confirm=False, copy=copy.label) as (repository, _):
                done = one(repository, copy)
            copies[copy.label] = {"outcome": str(done.outcome), **done.detail}
            trouble = done.error
        except PraError as error:
            trouble = error.message
        if trouble:
            troubles.append(f"copy {copy.label}: {trouble}")
    if not copies and not troubles:
        return record
    detail: Mapping[str, object] = {**record.detail, "copies": copies}
    told = "; ".join([record.error, *troubles] if record.error else troubles)
    outcome = Outcome.FAILED if troubles else record.outcome
    return replace(record, outcome=outcome, error=told, detail=detail, finished=work.clock.now())


def _keeps(work: Work, copy: CopySettings | None) -> Mapping[str, Keep]:
    jobs = config_of(work).jobs
    return {name: copy.keep if copy is not None and copy.keep is not None else job.keep for name, job in jobs.items()}


def _size(work: Work, record: RunRecord, copy: CopySettings | None) -> None:
    size = record.detail.get("repository_size_bytes")
    if copy is None and isinstance(size, int):
        work.gauge("repository_size_bytes", size)
