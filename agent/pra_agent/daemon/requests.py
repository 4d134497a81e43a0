"""What the runner is asked to run, and in which lane each operation goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from types import MappingProxyType

from pra_agent.config import Config
from pra_agent.model.runs import Operation


class Lane(Enum):
    """Which runs may go beside which.

    BACKUP: as many at once as the configuration allows. SHARED: one upkeep run at a time, beside backups. EXCLUSIVE:
    one upkeep run at a time, never beside a backup. Upkeep starts only while no backup waits.
    """

    BACKUP = "backup"
    SHARED = "shared"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class Manner:
    """How an operation runs: its lane, whether it waits until no backup runs, and its time limit."""

    lane: Lane
    yields: bool = False
    limit: timedelta = timedelta(hours=12)


MANNERS: Mapping[Operation, Manner] = MappingProxyType(
    {
        Operation.BACKUP: Manner(Lane.BACKUP, limit=timedelta(days=3)),
        Operation.FORGET: Manner(Lane.SHARED, limit=timedelta(hours=2)),
        # A prune has its own time budget and ends in order; the limit is for one that hangs.
        Operation.PRUNE: Manner(Lane.EXCLUSIVE, limit=timedelta(hours=6)),
        Operation.CHECK: Manner(Lane.SHARED, yields=True),
        Operation.COPY: Manner(Lane.SHARED, yields=True, limit=timedelta(days=3)),
        Operation.DRILL: Manner(Lane.SHARED, yields=True),
        Operation.RESTORE: Manner(Lane.SHARED, limit=timedelta(days=3)),
        Operation.RECOVER: Manner(Lane.SHARED, limit=timedelta(days=3)),
    }
)


@dataclass(frozen=True, slots=True)
class ReaderTask:
    """What the child of a restore session needs."""

    config: Config
    log_json: bool = False


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run that is wanted. `destination` is the location of a copy, "" for the repository.

    `options` are the operation's own. `scheduled` runs respect a hold; others were asked for by somebody.
    """

    operation: Operation
    job: str = ""
    destination: str = ""
    full: bool = False
    scheduled: bool = False
    options: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())

    @property
    def key(self) -> tuple[Operation, str, str]:
        """Two requests with the same key are one run."""
        return (self.operation, self.job, self.destination)
