"""Forget: snapshots that no rule keeps leave the list; their space comes back with the next prune.

A shared lock is held, not the exclusive one of stock restic: what is removed here are references only. Whoever reads
a snapshot or builds on it meanwhile finds all its blobs, since only a prune removes those, and a prune is kept out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import Interrupted, NotFound
from pra_agent.model.events import Notice, Progress, Reporter, ignore
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.repository import Repository
from pra_agent.retention import Decision, Scope, decide_all, disagreeing
from pra_agent.storage.backend import Kind


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """What to forget, and by which rules.

    `quarantine`: snapshots whose own time is further than this from when the store got them are left alone and
    displace nothing (for the pruner of a hardened set-up); those named in `trusted` (hex ids) are believed. Copies and
    pinned snapshots were written again later than they were made: leave it None where there are copies.
    """

    run: str
    scope: Scope
    zone: tzinfo = UTC
    dry_run: bool = False
    quarantine: timedelta | None = None
    trusted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The record of the run, and what was decided over each snapshot."""

    record: RunRecord
    decisions: Sequence[Decision]


def forget(
    request: ForgetRequest,
    repository: Repository,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> Forgotten:
    """Decide over all snapshots and remove what no rule keeps; with `dry_run` only decide."""
    clock = clock or SystemClock()
    started = clock.now()
    with repository.lock():
        decisions = _decide(request, repository, started)
        for name, why in repository.unreadable_snapshots.items():
            report(Notice(f"snapshot {name[:8]} cannot be read and is left alone: {why}", "warning"))
        doomed = [decision.snapshot for decision in decisions if not decision.keep]
        if not request.dry_run:
            _remove(doomed, repository, report, stop)
    record = RunRecord(
        id=request.run,
        operation=Operation.FORGET,
        job="",
        started=started,
        finished=clock.now(),
        outcome=Outcome.SUCCESS,
        off_host=repository.backend.off_host,
        detail={
            "dry_run": request.dry_run,
            "kept": len(decisions) - len(doomed),
            "forgotten": len(doomed),
            "snapshots": [snapshot.id for snapshot in doomed],
        },
    )
    return Forgotten(record, decisions)


def _decide(request: ForgetRequest, repository: Repository, now: datetime) -> list[Decision]:
    snapshots = repository.snapshots()
    scope = request.scope
    if request.quarantine is not None:
        infos = repository.backend.list(Kind.SNAPSHOT)
        stored = {info.handle.name: info.modified for info in infos if info.modified is not None}
        suspicious = disagreeing(snapshots, stored, tolerance=request.quarantine) - request.trusted
        scope = Scope(scope.node, scope.keeps, scope.gone, scope.suspect, scope.quarantined | suspicious)
    return decide_all(snapshots, scope, now, request.zone)


def _remove(doomed: Sequence[Snapshot], repository: Repository, report: Reporter, stop: Event | None) -> None:
    for done, snapshot in enumerate(doomed):
        if stop is not None and stop.is_set():
            raise Interrupted(f"stopped after {done} of {len(doomed)} snapshots")
        try:
            repository.remove_snapshot(snapshot.id)
        except NotFound:
            continue  # another forget was quicker, or the answer to our own request was lost
        report(Progress("forget", files_done=done + 1, files_total=len(doomed), current=snapshot.id))
