"""A snapshot: a tree, the instant it stands for and what made it. JSON is in `model.snapshot_json`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from pra_agent.model.ids import BlobHandle

AGENT_TAG = "pra-agent"
PARTIAL_TAG = "partial"
SUSPECT_TAG = "suspect"
PINNED_TAG = "pinned"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. `id` is the hex SHA-256 of the stored file ("" while not stored); `tree` is a raw blob id.

    `time` is the data instant, aware. `paths` are absolute and printable as restic stores them.
    """

    time: datetime
    tree: bytes
    paths: Sequence[str]
    hostname: str
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: Sequence[str] = ()
    tags: Sequence[str] = ()
    parent: str = ""
    original: str = ""
    program_version: str = ""
    summary: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
    id: str = ""
    #: Nanoseconds of `time` that a datetime cannot hold (0-999), so that JSON is re-encoded exactly.
    nanoseconds: int = 0
    #: Keys of the JSON that we do not know (other tools'), so that they survive a re-encoding.
    extra: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())

    @property
    def job(self) -> str:
        """The job that made it, "" when another tool did."""
        return self._tag("job=")

    @property
    def run(self) -> str:
        """The run that made it, "" when another tool did."""
        return self._tag("run=")

    @property
    def partial(self) -> bool:
        """Whether files are missing from it."""
        return PARTIAL_TAG in self.tags

    @property
    def pinned(self) -> bool:
        """Whether forget must leave it alone."""
        return PINNED_TAG in self.tags

    def _tag(self, prefix: str) -> str:
        return next((tag[len(prefix) :] for tag in self.tags if tag.startswith(prefix)), "")


class SnapshotReader(Protocol):
    """All that a restore needs of a repository; the repository itself and the socket's client are one."""

    def snapshots(self) -> Sequence[Snapshot]:
        """All readable snapshots, the oldest first."""
        ...

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        """Yield each distinct blob once, in the provider's order (pack order), verified against its id.

        Raises `DamagedError` naming the blob when one is missing or broken, after which the iterator has ended.
        """
        ...

    def sizes(self, handles: Iterable[BlobHandle]) -> Mapping[BlobHandle, int]:
        """Plaintext lengths in bytes of the blobs that exist; missing ones are left out."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A reader whose `read` works in processes that are forked from this one, too."""

    def shares(self, handles: Iterable[BlobHandle]) -> Sequence[Sequence[BlobHandle]]:
        """Split distinct handles into shares that are read together, a share by one process; none if it cannot be.

        Raises `DamagedError` when a blob is missing.
        """
        ...
