"""Run records: one execution of one operation, as the journal keeps it and as JSON shows it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Operation(StrEnum):
    """A verb that runs: backup, restore, and the care of the repository."""

    BACKUP = "backup"
    RESTORE = "restore"
    FORGET = "forget"
    PRUNE = "prune"
    CHECK = "check"
    COPY = "copy"
    DRILL = "drill"
    RECOVER = "recover"


class Outcome(StrEnum):
    """How a run ended. `suspect` is a backup that looks too small; it does not count as a success."""

    SUCCESS = "success"
    PARTIAL = "partial"
    SUSPECT = "suspect"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that is missing from the run, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution. Sizes in bytes, durations in seconds, times aware and in UTC.

    `outcome` is None while it runs. `data_instant` is the instant that the content stands for.
    `stages` maps a stage's name to its seconds. `destination` is the place that it wrote to ("" = the repository).
    """

    id: str
    operation: Operation
    job: str
    started: datetime
    finished: datetime | None = None
    outcome: Outcome | None = None
    snapshot: str = ""
    data_instant: datetime | None = None
    destination: str = ""
    off_host: bool = False
    files: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    files_failed: int = 0
    bytes: int = 0
    bytes_added: int = 0
    bytes_stored: int = 0
    error: str = ""
    failures: Sequence[Failure] = ()
    stages: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    full: bool = False
    detail: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())


@dataclass(frozen=True, slots=True)
class JobState:
    """What the journal knows of one job beyond its runs."""

    job: str
    next_run: datetime | None = None
    missed_runs: int = 0
    on_hold: bool = False
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class RunCount:
    """How many runs of an operation of a job ended how; survives the pruning of old records."""

    job: str
    operation: Operation
    outcome: Outcome
    count: int


@dataclass(frozen=True, slots=True)
class StageHistogram:
    """Durations of one stage of one operation: cumulative bucket counts, their sum (s) and number."""

    operation: Operation
    stage: str
    buckets: Mapping[float, int]
    total: float
    count: int


class JournalReader(Protocol):
    """The reading half of the journal, for the exporter and the control socket.

    Implemented by `daemon.journal`; cheap (no scan of all records), callable from any thread.
    """

    def last_run(self, job: str, operation: Operation) -> RunRecord | None:
        """The newest run that was started, ended or not."""
        ...

    def last_with(
        self, job: str, operation: Operation, outcomes: Iterable[Outcome], destination: str = ""
    ) -> RunRecord | None:
        """The newest run that ended with one of these outcomes at that destination."""
        ...

    def running(self) -> Sequence[RunRecord]:
        """All runs that have not ended."""
        ...

    def runs(self, *, job: str | None = None, limit: int = 100) -> Sequence[RunRecord]:
        """Runs, the newest first."""
        ...

    def run(self, run_id: str) -> RunRecord | None:
        """One run by its id."""
        ...

    def job_state(self, job: str) -> JobState:
        """What is known of the job; an empty state for an unknown one."""
        ...

    def data_instants(self, job: str) -> Mapping[str, datetime]:
        """The newest data instant that is durable, per destination (its location)."""
        ...

    def counts(self) -> Sequence[RunCount]:
        """All run counters."""
        ...

    def histograms(self) -> Sequence[StageHistogram]:
        """All duration histograms."""
        ...

    def gauge(self, name: str, job: str = "") -> float | None:
        """A number that an operation left (repository size, snapshots, oldest lock ...), or None."""
        ...

    def gauges(self, name: str) -> Mapping[str, float]:
        """All numbers of that name by their second key (the job, the kind of a resource, OPERATION/CODE ...)."""
        ...

    def progress(self, run_id: str) -> Mapping[str, object] | None:
        """The newest progress of a running run (the fields of `model.events.Progress`)."""
        ...
