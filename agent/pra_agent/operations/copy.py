"""Copy: the second place of a backup. Incremental, with the destination's own key and its own retention."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.model.events import Reporter, ignore
from pra_agent.model.runs import Failure, Operation, Outcome, RunRecord
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.copy import Copied, missing
from pra_agent.repository.copy import copy as copy_snapshots
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, decide, incomplete


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What to copy. Only snapshots of this node that a job made.

    `jobs` None means all. `newest` copies so many of each job's newest at most. `keeps` are the destination's keep
    policies by job: what they would forget at once is not copied.
    """

    run: str
    node: str
    jobs: Collection[str] | None = None
    newest: int | None = None
    keeps: Mapping[str, Keep] = field(default_factory=lambda: dict[str, Keep]())
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class CopyDone:
    """The record of the run, what was copied, and the newest complete data instant of each job at the destination."""

    record: RunRecord
    copied: Copied
    instants: Mapping[str, datetime]


def copy(
    request: CopyRequest,
    source: Repository,
    destination: Repository,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> CopyDone:
    """Copy what the destination lacks, under shared locks of both."""
    clock = clock or SystemClock()
    started = clock.now()
    with source.lock(), destination.lock():
        there = destination.snapshots()
        wanted = choose(request, source.snapshots(), there, started)
        if wanted:
            source.load_index()
            destination.load_index()
            copied = copy_snapshots(source, destination, wanted, report=report, stop=stop)
            there = destination.snapshots()
        else:
            copied = Copied()
    instants = _instants(request, there)
    record = RunRecord(
        id=request.run,
        operation=Operation.COPY,
        job="",
        started=started,
        finished=clock.now(),
        outcome=Outcome.PARTIAL if copied.failed else Outcome.SUCCESS,
        data_instant=max(instants.values(), default=None),
        destination=destination.backend.location,
        off_host=destination.backend.off_host,
        bytes_added=copied.bytes_added,
        bytes_stored=copied.bytes_stored,
        error=f"{len(copied.failed)} snapshots are damaged and were not copied" if copied.failed else "",
        failures=[Failure(f"snapshot {name[:8]}", why) for name, why in copied.failed.items()],
        detail={
            "snapshots": dict(copied.snapshots),
            "blobs": copied.blobs,
            "instants": {job: instant.isoformat() for job, instant in instants.items()},
        },
    )
    return CopyDone(record, copied, instants)


def choose(
    request: CopyRequest, source: Sequence[Snapshot], destination: Sequence[Snapshot], now: datetime
) -> list[Snapshot]:
    """The snapshots to copy, the oldest first."""
    ours: dict[str, list[Snapshot]] = {}
    for snapshot in source:
        if (
            snapshot.hostname == request.node
            and snapshot.job
            and (request.jobs is None or snapshot.job in request.jobs)
        ):
            ours.setdefault(snapshot.job, []).append(snapshot)
    chosen: list[Snapshot] = []
    for job, snapshots in ours.items():
        candidates = snapshots if request.newest is None else snapshots[len(snapshots) - request.newest :]
        candidates = missing(candidates, destination)
        if job in request.keeps:
            there = [each for each in destination if each.hostname == request.node and each.job == job]
            decisions = decide([*there, *candidates], request.keeps[job], now, request.zone)
            kept = {decision.snapshot.id for decision in decisions if decision.keep}
            candidates = [each for each in candidates if each.id in kept]
        chosen += candidates
    return sorted(chosen, key=lambda each: (each.time, each.nanoseconds))


def _instants(request: CopyRequest, snapshots: Sequence[Snapshot]) -> dict[str, datetime]:
    instants: dict[str, datetime] = {}
    for snapshot in snapshots:
        if snapshot.hostname == request.node and snapshot.job and not incomplete(snapshot):
            instants[snapshot.job] = max(snapshot.time, instants.get(snapshot.job, snapshot.time))
    return instants
