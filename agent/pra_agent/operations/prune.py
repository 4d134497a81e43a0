"""Prune: space that no snapshot needs is given back, within a time budget, under an exclusive lock."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.model.events import Notice, Reporter, ignore
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.repository import prune as pruning
from pra_agent.repository.prune_plan import PrunePlan, PruneSettings
from pra_agent.repository.prune_proof import prove_copies
from pra_agent.repository.prune_retention import extend_retention
from pra_agent.repository.repository import Repository

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What to do, and within which bounds.

    `retain`: under object lock, what live snapshots need is kept locked for at least so long from now on, before
    anything is removed; a quarter more at most, so that an object's lock is not extended at every prune.
    `prove_copies`: of a blob that lies in several packs, the copy that stays is read before the others go.
    """

    run: str
    settings: PruneSettings = field(default_factory=PruneSettings)
    dry_run: bool = False
    retain: timedelta | None = None
    prove_copies: bool = False


@dataclass(frozen=True, slots=True)
class PruneDone:
    """The record of the run, the plan, and what was done of it (None for a dry run)."""

    record: RunRecord
    plan: PrunePlan
    done: pruning.Pruned | None


def lock_until(now: datetime, retain: timedelta) -> datetime:
    """The end of a lock that lasts `retain` at least: the next of instants that are a quarter of that apart."""
    step = retain / 4
    return _EPOCH - (_EPOCH - now - retain) // step * step


def prune(
    request: PruneRequest,
    repository: Repository,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> PruneDone:
    """Plan a prune and carry it out; with `dry_run` only plan, under a shared lock, so that nobody has to wait."""
    clock = clock or SystemClock()
    started = clock.now()
    done: pruning.Pruned | None = None
    with repository.lock(exclusive=not request.dry_run) as lock:
        plan = pruning.plan(repository, request.settings, report=report, stop=stop)
        for line in plan.lines():
            report(Notice(line))
        if not request.dry_run:
            if request.retain is not None:
                extend_retention(repository, plan, lock_until(started, request.retain), report=report, stop=stop)
            if request.prove_copies:
                prove_copies(plan, repository, report=report, stop=stop)
            done = pruning.execute(plan, repository, lock, settings=request.settings, report=report, stop=stop)
    given_back = done.bytes_given_back if done else plan.figures.bytes_given_back
    record = RunRecord(
        id=request.run,
        operation=Operation.PRUNE,
        job="",
        started=started,
        finished=clock.now(),
        outcome=Outcome.SUCCESS,
        off_host=repository.backend.off_host,
        bytes=plan.figures.bytes_before - given_back,
        detail={
            "dry_run": request.dry_run,
            "plan": plan.to_json(),
            "done": asdict(done) if done else None,
            "repository_size_bytes": plan.figures.bytes_before - (done.bytes_given_back if done else 0),
        },
    )
    return PruneDone(record, plan, done)
