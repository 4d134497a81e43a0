"""Restore: choose a snapshot, plan, execute; the record of the run.

The reader is the repository itself or the control socket's client; locks are the caller's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import RestoreError, UsageError
from pra_agent.model.events import Notice, Reporter, ignore
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import SUSPECT_TAG, Snapshot, SnapshotReader
from pra_agent.restorer import Plan, execute

_HEX = frozenset("0123456789abcdef")


def choose_snapshot(
    snapshots: Sequence[Snapshot], name: str, *, node: str = "", at: datetime | None = None
) -> Snapshot:
    """Find the snapshot that an operator means: a job's name, "latest", or the start of an id.

    For a job and for "latest": the newest of this node (any, when "") that is not suspect and not newer than `at`.
    One that was accepted is suspect no more.
    Raises UsageError when there is none, or when an id is ambiguous.
    """
    own = [
        each
        for each in snapshots
        if name
        and name in {"latest", each.job}
        and (not node or each.hostname == node)
        and (at is None or each.time <= at)
    ]
    sound = [each for each in own if SUSPECT_TAG not in each.tags]
    newest = max(sound or own, key=lambda each: each.time, default=None)
    if newest is not None:
        return newest
    if name == "latest" or (name and any(each.job == name for each in snapshots)):
        when = "" if at is None else f" at or before {at.isoformat()}"
        raise UsageError(f"no snapshot of {name}{when}", advice="See pra-agent snapshots.")
    return _by_id(snapshots, name)


def _by_id(snapshots: Sequence[Snapshot], prefix: str) -> Snapshot:
    found = [each for each in snapshots if each.id.startswith(prefix)] if prefix and set(prefix) <= _HEX else []
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} snapshots start with {prefix}", advice="Give more digits of the id.")
    raise UsageError(f"there is no job and no snapshot {prefix}", advice="See pra-agent snapshots.")


@dataclass(frozen=True, slots=True)
class RestoreRun:
    """Who restores: the run's id, and the snapshot that the plan was made of."""

    run: str
    snapshot: Snapshot


def restore(
    run: RestoreRun,
    plan: Plan,
    reader: SnapshotReader,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> RunRecord:
    """Execute a plan; the record of the run.

    When files could not be restored the outcome is `failed`, `failures` names them, and `raise_for` makes the error of
    it. Raises RestoreError when nothing can be restored, Interrupted when `stop` is set.
    """
    clock = clock or SystemClock()
    started, start = clock.now(), clock.monotonic()
    if run.snapshot.partial:
        report(Notice("the snapshot is partial: files that could not be read are missing from it", "warning"))
    restored = execute(plan, reader, report=report, stop=stop)
    failures = restored.failures
    return RunRecord(
        id=run.run,
        operation=Operation.RESTORE,
        job=run.snapshot.job,
        started=started,
        finished=clock.now(),
        outcome=Outcome.FAILED if failures else Outcome.SUCCESS,
        snapshot=run.snapshot.id,
        data_instant=run.snapshot.time,
        files=restored.files,
        files_unmodified=restored.kept,
        files_failed=len(failures),
        bytes=restored.bytes,
        error=f"{len(failures)} files could not be restored" if failures else "",
        failures=failures,
        stages={"restore": clock.monotonic() - start},
        detail={
            "target": str(plan.request.target),
            "bytes_reused": restored.bytes_reused,
            "deleted": restored.deleted,
            "planned": dict(plan.counts()),
        },
    )


def raise_for(record: RunRecord) -> None:
    """Raise RestoreError when a restore's record has failures."""
    if record.failures:
        first = record.failures[0]
        raise RestoreError(f"{record.error}, the first: {first.path}: {first.reason}")
