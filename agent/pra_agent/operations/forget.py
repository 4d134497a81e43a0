"""Forget: snapshots that no rule keeps leave the list; their space comes back with the next prune.

A shared lock is held, not the exclusive one of stock restic: what is removed here are references only. Whoever reads
a snapshot or builds on it meanwhile finds all its blobs, since only a prune removes those, and a prune is kept out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import Interrupted, NotFound
from pra_agent.model.events import Notice, Progress, Reporter, ignore
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import SUSPECT_TAG, Snapshot
from pra_agent.repository.repository import Repository
from pra_agent.retention import Decision, Scope, age_order, decide_all, disagreeing
from pra_agent.storage.backend import Kind
from pra_agent.units import format_duration


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """What to forget, and by which rules.

    For the pruner of a hardened set-up, where the host may be in other hands: `quarantine`: snapshots whose own time is
    further than this from when the store got them are left alone and displace nothing; those named in `trusted` (hex
    ids) are believed. `written` says when the store first got a snapshot, where that is not what its listing tells.
    `grace`: what the store has had for less than this is not forgotten, so that nobody who writes many snapshots at
    once pushes real ones out. And a job whose newest snapshot is suspect loses nothing.
    """

    run: str
    scope: Scope
    zone: tzinfo = UTC
    dry_run: bool = False
    quarantine: timedelta | None = None
    trusted: frozenset[str] = frozenset()
    written: Mapping[str, datetime] = field(default_factory=lambda: dict[str, datetime]())
    grace: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The record of the run, and what was decided over each snapshot."""

    record: RunRecord
    decisions: Sequence[Decision]
    quarantined: Sequence[Snapshot] = ()


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
        decisions, scope = _decide(request, repository, started)
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
            "quarantined": sorted(scope.quarantined),
        },
    )
    aside = [decision.snapshot for decision in decisions if decision.snapshot.id in scope.quarantined]
    return Forgotten(record, decisions, aside)


def _decide(request: ForgetRequest, repository: Repository, now: datetime) -> tuple[list[Decision], Scope]:
    snapshots = repository.snapshots()
    scope = request.scope
    if request.quarantine is None and request.grace is None:
        return decide_all(snapshots, scope, now, request.zone), scope
    written = _written(repository, request, snapshots)
    if request.quarantine is not None:
        doubtful = disagreeing(snapshots, written, tolerance=request.quarantine) - request.trusted
        scope = replace(scope, quarantined=scope.quarantined | doubtful)
        scope = replace(scope, suspect=scope.suspect | _suspect(snapshots, scope))
    decisions = decide_all(snapshots, scope, now, request.zone)
    if request.grace is not None:
        young = {name for name, since in written.items() if now - since < request.grace}
        decisions = [
            Decision(one.snapshot, (f"not in the store for {format_duration(request.grace)} yet",))
            if not one.keep and one.snapshot.id in young
            else one
            for one in decisions
        ]
    return decisions, scope


def _written(repository: Repository, request: ForgetRequest, snapshots: Sequence[Snapshot]) -> Mapping[str, datetime]:
    """When the store got each snapshot; one that was written again beside the old one (a pin) has the old one's."""
    infos = repository.backend.list(Kind.SNAPSHOT)
    written = {info.handle.name: info.modified for info in infos if info.modified is not None} | dict(request.written)
    known = {snapshot.id: snapshot for snapshot in snapshots}
    for snapshot in snapshots:
        old = known.get(snapshot.original)
        if old is not None and age_order(old)[:2] == age_order(snapshot)[:2] and old.tree == snapshot.tree:
            times = [written[name] for name in (old.id, snapshot.id) if name in written]
            written |= {snapshot.id: min(times)} if times else {}
    return written


def _suspect(snapshots: Sequence[Snapshot], scope: Scope) -> frozenset[str]:
    """Jobs of the node whose newest snapshot looked too small to the host, and was not accepted there."""
    accepted = {snapshot.original for snapshot in snapshots if SUSPECT_TAG not in snapshot.tags}
    newest: dict[str, Snapshot] = {}
    for snapshot in sorted(snapshots, key=age_order):
        if snapshot.hostname == scope.node and snapshot.job and snapshot.id not in scope.quarantined:
            newest[snapshot.job] = snapshot
    suspect = (one for one in newest.values() if SUSPECT_TAG in one.tags and one.id not in accepted)
    return frozenset(one.job for one in suspect)


def _remove(doomed: Sequence[Snapshot], repository: Repository, report: Reporter, stop: Event | None) -> None:
    for done, snapshot in enumerate(doomed):
        if stop is not None and stop.is_set():
            raise Interrupted(f"stopped after {done} of {len(doomed)} snapshots")
        try:
            repository.remove_snapshot(snapshot.id)
        except NotFound:
            continue  # another forget was quicker, or the answer to our own request was lost
        report(Progress("forget", files_done=done + 1, files_total=len(doomed), current=snapshot.id))
