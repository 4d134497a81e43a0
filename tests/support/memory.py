"""A backend in memory: the contract in its plainest form."""

import threading
from collections.abc import Iterator
from datetime import datetime

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import AlreadyExists, DamagedError, NotFound
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from pra_agent.storage.names import is_name, require_name


class MemoryBackend:
    """Objects in a dictionary that a test may read and damage; `retained` is what `extend_retention` asked for."""

    def __init__(self, *, clock: Clock | None = None, connections: int = 4, off_host: bool = False) -> None:
        self.objects: dict[Handle, bytes] = {}
        self.modified: dict[Handle, datetime] = {}
        self.retained: dict[Handle, datetime] = {}
        self.closed = False
        self._clock = clock or SystemClock()
        self._connections = connections
        self._off_host = off_host
        self._guard = threading.Lock()

    @property
    def location(self) -> str:
        return "memory:"

    @property
    def connections(self) -> int:
        return self._connections

    @property
    def off_host(self) -> bool:
        return self._off_host

    def create(self) -> None:
        pass

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        require_name(handle)
        stored = bytes(data)
        with self._guard:
            if handle.kind is not Kind.LOCK and self.objects.get(handle, stored) != stored:
                raise AlreadyExists(f"{handle.path} exists with other content")
            if self.objects.get(handle) != stored:
                self.objects[handle] = stored
                self.modified[handle] = self._clock.now()

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        data = self._find(handle)
        end = len(data) if length is None else offset + length
        if offset > len(data) or end > len(data):
            raise DamagedError(f"{handle.path} has {len(data)} bytes, asked for {offset} to {end}")
        return data[offset:end]

    def stat(self, handle: Handle) -> ObjectInfo:
        return self._info(handle, self._find(handle))

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        with self._guard:
            found = [(h, data) for h, data in self.objects.items() if h.kind is kind]
        for handle, data in found:
            if kind is Kind.CONFIG or is_name(handle.name):
                yield self._info(handle, data)

    def delete(self, handle: Handle) -> None:
        self._find(handle)
        with self._guard:
            self.objects.pop(handle, None)

    def store_time(self) -> datetime | None:
        return None

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        self._find(handle)
        self.retained[handle] = max(until, self.retained.get(handle, until))

    def close(self) -> None:
        self.closed = True

    def _find(self, handle: Handle) -> bytes:
        require_name(handle)
        with self._guard:
            try:
                return self.objects[handle]
            except KeyError:
                raise NotFound(f"{handle.path} is not there") from None

    def _info(self, handle: Handle, data: bytes) -> ObjectInfo:
        return ObjectInfo(handle, len(data), self.modified.get(handle))
