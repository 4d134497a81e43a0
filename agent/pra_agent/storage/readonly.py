"""A backend that nothing can be written to: for reading with few rights, or at an instant of the past."""

from collections.abc import Iterator
from datetime import datetime

from pra_agent.errors import AccessDenied, NotFound
from pra_agent.storage.backend import Backend, Handle, Kind, ObjectInfo


class ReadOnlyBackend:
    """Passes reads on and refuses writes, but for locks: those are kept in memory, and the stored ones are not seen.

    So a restore that takes a lock works, needs no right to write, and is held up by no lock that an intruder left. What
    it reads is protected by other means: by versions of the bucket, or by nobody pruning meanwhile.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._locks: dict[str, bytes] = {}

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def connections(self) -> int:
        return self._inner.connections

    @property
    def off_host(self) -> bool:
        return self._inner.off_host

    def create(self) -> None:
        self._refuse()

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        if handle.kind is not Kind.LOCK:
            self._refuse()
        self._locks[handle.name] = bytes(data)

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        if handle.kind is Kind.LOCK:
            return self._lock(handle)[offset : None if length is None else offset + length]
        return self._inner.get(handle, offset, length)

    def stat(self, handle: Handle) -> ObjectInfo:
        if handle.kind is Kind.LOCK:
            return ObjectInfo(handle, len(self._lock(handle)))
        return self._inner.stat(handle)

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        if kind is Kind.LOCK:
            return iter([ObjectInfo(Handle(kind, name), len(data)) for name, data in tuple(self._locks.items())])
        return self._inner.list(kind)

    def delete(self, handle: Handle) -> None:
        if handle.kind is not Kind.LOCK:
            self._refuse()
        self._lock(handle)
        self._locks.pop(handle.name, None)

    def store_time(self) -> datetime | None:
        return self._inner.store_time()

    def extend_retention(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - refused whatever it is
        self._refuse()

    def close(self) -> None:
        self._inner.close()

    def _lock(self, handle: Handle) -> bytes:
        try:
            return self._locks[handle.name]
        except KeyError:
            raise NotFound(f"{handle.path} is not there") from None

    def _refuse(self) -> None:
        raise AccessDenied(
            f"{self.location} is open for reading only", advice="Open the repository without --as-of to write to it."
        )
