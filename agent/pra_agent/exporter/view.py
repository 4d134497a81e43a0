"""What the status page shows, gathered from the journal; `page` only turns it into text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pra_agent.model.jobs import REPOSITORY, DaemonStatus, Health, JobFact, JobStatus, assess
from pra_agent.model.runs import JournalReader, Operation, Outcome, RunRecord

#: Runs in a job's strip, and in the list of the newest runs.
STRIP: Final = 48
NEWEST: Final = 15
_UPKEEP: Final = (Operation.CHECK, Operation.FORGET, Operation.PRUNE, Operation.RECOVER)
_WORST_FIRST: Final = {health: place for place, health in enumerate(Health)}


@dataclass(frozen=True, slots=True)
class Drill:
    """The drills of a job: the newest, and the newest that succeeded with its seconds."""

    job: str
    rto: float | None
    attempt: RunRecord | None
    success: RunRecord | None
    duration: float | None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it stands, with its backups, the oldest first."""

    status: JobStatus
    history: Sequence[RunRecord]

    @property
    def sizes(self) -> Sequence[tuple[datetime, int]]:
        """Size over time: of the backups that left a snapshot."""
        return [
            (run.started, run.bytes)
            for run in self.history
            if run.outcome in (Outcome.SUCCESS, Outcome.PARTIAL, Outcome.SUSPECT)
        ]


@dataclass(frozen=True, slots=True)
class View:
    """All that the page shows. `upkeep` are the last successes of the repository's operations, by their name."""

    now: datetime
    status: DaemonStatus
    jobs: Sequence[JobView]
    upkeep: Mapping[str, RunRecord | None]
    drills: Sequence[Drill]
    newest: Sequence[RunRecord]
    numbers: Mapping[str, float | None]
    unprotected: Mapping[str, float]


def look(journal: JournalReader, facts: Sequence[JobFact], status: DaemonStatus, now: datetime) -> View:
    """Gather it. Costs a few queries per job."""
    jobs = [JobView(assess(fact, journal, now), _history(journal, fact.name)) for fact in facts]
    return View(
        now=now,
        status=status,
        jobs=sorted(jobs, key=lambda view: _WORST_FIRST[view.status.health]),
        upkeep=_upkeep(journal, facts),
        drills=[drill for fact in facts if (drill := _drill(journal, fact)) is not None],
        newest=journal.runs(limit=NEWEST),
        numbers={
            name: journal.gauge(name)
            for name in ("repository_size_bytes", "repository_oldest_lock_timestamp_seconds", "clock_skew_seconds")
        },
        unprotected=journal.gauges("unprotected_resources"),
    )


def duration_of(run: RunRecord) -> float | None:
    """How long a run took as a whole, in seconds; None while it runs."""
    return (run.finished - run.started).total_seconds() if run.finished is not None else None


def _history(journal: JournalReader, job: str) -> Sequence[RunRecord]:
    runs = journal.runs(job=job, limit=STRIP + 16)
    return [run for run in reversed(runs) if run.operation is Operation.BACKUP][-STRIP:]


def _upkeep(journal: JournalReader, facts: Sequence[JobFact]) -> Mapping[str, RunRecord | None]:
    success = (Outcome.SUCCESS,)
    found = {operation.value: journal.last_with("", operation, success) for operation in _UPKEEP}
    for place in {place.key: place for fact in facts for place in fact.destinations}.values():
        if place.key != REPOSITORY:
            found[f"copy to {place.name}"] = journal.last_with("", Operation.COPY, success, place.key)
    return found


def _drill(journal: JournalReader, fact: JobFact) -> Drill | None:
    attempt = journal.last_run(fact.name, Operation.DRILL)
    if attempt is None and Operation.DRILL not in fact.operations:
        return None
    success = journal.last_with(fact.name, Operation.DRILL, (Outcome.SUCCESS,))
    duration = None
    if success is not None:
        duration = success.stages.get("restore", duration_of(success) or 0.0)
    return Drill(fact.name, fact.rto, attempt, success, duration)
