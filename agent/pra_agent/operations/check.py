"""Check: is all there that snapshots need? A share of the data is read each time, so that all is in so many days."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.model.events import FileFailed, Notice, Reporter, ignore
from pra_agent.model.runs import Failure, Operation, Outcome, RunRecord
from pra_agent.repository.check import check as check_repository
from pra_agent.repository.check_report import CheckReport
from pra_agent.repository.check_subset import Subset, Window
from pra_agent.repository.repository import Repository

#: So many paths, of all snapshots together, are kept in the record of the run.
_RECORDED_PATHS = 200


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check. `subset` chooses the packs to read; None: the structure alone.

    `read_every` walks the whole data once in that time instead; `last` is when a check that did so last succeeded.
    """

    run: str
    subset: Subset | None = None
    read_every: timedelta | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """The record of the run (failed when there is damage), and what was found."""

    record: RunRecord
    report: CheckReport


def check(
    request: CheckRequest,
    repository: Repository,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> Checked:
    """Check the repository under a shared lock. Damage makes the outcome `failed`; it is not raised."""
    clock = clock or SystemClock()
    started = clock.now()
    subset = request.subset
    if subset is None and request.read_every is not None:
        subset = Window.since(request.last, started, request.read_every)
    with repository.lock():
        found = check_repository(repository, subset, report=report, stop=stop)
    for finding in found.damage:
        report(Notice(str(finding), "warning"))
    failures = [
        Failure(path, f"in snapshot {hit.snapshot[:8]} of job {hit.job or '-'}")
        for hit in found.hits
        for path in hit.paths
    ][:_RECORDED_PATHS]
    for failure in failures:
        report(FileFailed(failure.path, failure.reason))
    record = RunRecord(
        id=request.run,
        operation=Operation.CHECK,
        job="",
        started=started,
        finished=clock.now(),
        outcome=Outcome.SUCCESS if found.ok else Outcome.FAILED,
        off_host=repository.backend.off_host,
        files_failed=sum(hit.count for hit in found.hits),
        bytes=found.bytes_read,
        error="" if found.ok else f"{len(found.damage)} things are damaged: {found.damage[0]}",
        failures=failures,
        full=subset is not None,
        detail={
            "snapshots": found.snapshots,
            "trees": found.trees,
            "blobs": found.blobs,
            "packs": found.packs,
            "packs_read": found.packs_read,
            "repository_size_bytes": found.bytes_stored,
            "bytes_unused": found.bytes_unused,
            "damage": [str(finding) for finding in found.damage[:50]],
            "notes": [str(finding) for finding in found.notes[:50]],
            "jobs_hit": found.jobs,
            "snapshots_hit": [hit.snapshot for hit in found.hits],
        },
    )
    return Checked(record, found)
