"""What an archiving takes and gives."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

from pra_agent.archiver.memory import Memory
from pra_agent.clock import Clock, SystemClock
from pra_agent.model.events import Reporter, ignore
from pra_agent.model.ids import BlobHandle
from pra_agent.model.runs import Failure
from pra_agent.model.snapshots import Snapshot

#: So many failures are named; all are counted.
NAMED_FAILURES = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archiving may use.

    `workers` processes read and seal; 0 reads in the calling process. Each has an `arena` of so many bytes of shared
    memory for what it has sealed: at least twice the largest sealed blob (8 MiB). `sample` is how many of the new
    blobs are picked for a read-back.
    """

    workers: int = field(default_factory=lambda: max(1, min(8, len(os.sched_getaffinity(0)))))
    arena: int = 20 << 20
    sample: int = 16


@dataclass(frozen=True, slots=True)
class Options:
    """How to archive. With `full` everything is read; else what did not change since `parent` is taken from it.

    `stop` asks for an early end, and is set when the archiving fails. `memory` answers from the last run, and records.
    """

    parent: Snapshot | None = None
    full: bool = False
    report: Reporter = ignore
    stop: Event = field(default_factory=Event)
    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=SystemClock)
    memory: Memory = field(default_factory=Memory)


@dataclass(slots=True)
class Stats:
    """Counts of one archiving. Bytes are those of the files' content, whether read or taken from the parent."""

    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    files_failed: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    others: int = 0
    bytes: int = 0
    bytes_read: int = 0

    @property
    def files(self) -> int:
        """Regular files and streams in the snapshot."""
        return self.files_new + self.files_changed + self.files_unmodified


@dataclass(frozen=True, slots=True)
class Archived:
    """What became of a capture: the raw id of its root tree. `failures` name at most `NAMED_FAILURES`."""

    tree: bytes
    stats: Stats
    failures: Sequence[Failure]
    #: Some of the blobs that were new, picked at random.
    sample: Sequence[BlobHandle]
