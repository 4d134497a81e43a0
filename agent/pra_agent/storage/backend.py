"""The contract of a store: objects of a repository, by kind and name, written once.

Every backend passes `tests/contract/test_backends.py`; retrying, limited and metered wrap one and are one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    """What an object is; also the folder that it lies in."""

    CONFIG = "config"
    KEY = "keys"
    LOCK = "locks"
    SNAPSHOT = "snapshots"
    INDEX = "index"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Handle:
    """The address of one object. The name is 64 hex digits, or empty for the config."""

    kind: Kind
    name: str = ""

    @property
    def path(self) -> str:
        """The object's path below the repository's root, as restic lays it out."""
        if self.kind is Kind.CONFIG:
            return "config"
        if self.kind is Kind.DATA:
            return f"data/{self.name[:2]}/{self.name}"
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing tells: size in bytes, and when the store says it was written (UTC)."""

    handle: Handle
    size: int
    modified: datetime | None = None


class Backend(Protocol):
    """A store. Methods may be called from several threads at once.

    Errors are those below `StorageError`; `NotFound` from get, stat and delete.
    """

    @property
    def location(self) -> str:
        """The place, for people: a URL or path without secrets."""
        ...

    @property
    def connections(self) -> int:
        """How many requests are worth having under way at once."""
        ...

    @property
    def off_host(self) -> bool:
        """Whether what is stored here survives the loss of this host."""
        ...

    def create(self) -> None:
        """Make the place ready for a new repository (directories); harmless when it is."""
        ...

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        """Store an object durably and atomically: whole, or not at all.

        Storing the same bytes again is success; other bytes under a name that exists raise `AlreadyExists`.
        Locks may be overwritten.
        """
        ...

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        """Read an object, or `length` bytes from `offset` on; fewer bytes than asked raise `DamagedError`."""
        ...

    def stat(self, handle: Handle) -> ObjectInfo:
        """Tell size and time of an object."""
        ...

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        """Name all objects of a kind, in no order; names that are not 64 hex digits are left out."""
        ...

    def delete(self, handle: Handle) -> None:
        """Remove an object (on a versioned bucket: hide it)."""
        ...

    def store_time(self) -> datetime | None:
        """What the store's own clock said with its newest answer, if it tells (S3's Date header)."""
        ...

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        """Keep an object locked until then at least; a store without object lock does nothing."""
        ...

    def close(self) -> None:
        """Give back connections; harmless when closed already."""
        ...
