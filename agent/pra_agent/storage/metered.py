"""Counting what is asked of a store: requests by operation and outcome, retries, bytes in each direction.

A run gives one `Meter` to `open_backend` and puts `meter.reading().as_detail()` into its record; the exporter makes
metrics of that.
"""

import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from pra_agent.errors import (
    AccessDenied,
    AlreadyExists,
    DamagedError,
    NotFound,
    PraError,
    StorageFull,
    Throttled,
    TransientStorageError,
)
from pra_agent.storage.backend import Backend, Handle, Kind, ObjectInfo

_CODES: tuple[tuple[type[PraError], str], ...] = (
    (NotFound, "not_found"),
    (AlreadyExists, "exists"),
    (AccessDenied, "denied"),
    (StorageFull, "full"),
    (Throttled, "throttled"),
    (TransientStorageError, "transient"),
    (DamagedError, "damaged"),
    (PraError, "error"),
)


@dataclass(frozen=True, slots=True)
class MeterReading:
    """Counts since the meter was made. `requests` maps (operation, code) to a number; bytes are of objects."""

    requests: Mapping[tuple[str, str], int]
    retries: int
    bytes_sent: int
    bytes_received: int

    def as_detail(self) -> dict[str, object]:
        """Plain values for a run record: `requests` as {"put": {"ok": 3}}, and the three sums."""
        nested: dict[str, dict[str, int]] = {}
        for (operation, code), number in sorted(self.requests.items()):
            nested.setdefault(operation, {})[code] = number
        return {
            "requests": nested,
            "retries": self.retries,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
        }


class Meter:
    """Counters that many threads may turn."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._retries = self._sent = self._received = 0

    def request(self, operation: str, code: str, *, sent: int = 0, received: int = 0) -> None:
        """Count one request and its bytes."""
        with self._guard:
            self._requests[operation, code] += 1
            self._sent += sent
            self._received += received

    def retry(self) -> None:
        """Count one more try of something that failed."""
        with self._guard:
            self._retries += 1

    def reading(self) -> MeterReading:
        """The counts as they are now."""
        with self._guard:
            return MeterReading(dict(self._requests), self._retries, self._sent, self._received)


class MeteredBackend:
    """Counts every request to the backend below it."""

    def __init__(self, inner: Backend, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

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
        with self._counted("create"):
            self._inner.create()

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        with self._counted("put") as bytes_of:
            self._inner.put(handle, data)
            bytes_of["sent"] = memoryview(data).nbytes

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        with self._counted("get") as bytes_of:
            data = self._inner.get(handle, offset, length)
            bytes_of["received"] = len(data)
        return data

    def stat(self, handle: Handle) -> ObjectInfo:
        with self._counted("stat"):
            return self._inner.stat(handle)

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        with self._counted("list"):
            yield from self._inner.list(kind)

    def delete(self, handle: Handle) -> None:
        with self._counted("delete"):
            self._inner.delete(handle)

    def store_time(self) -> datetime | None:
        return self._inner.store_time()

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        with self._counted("extend_retention"):
            self._inner.extend_retention(handle, until)

    def close(self) -> None:
        self._inner.close()

    @contextmanager
    def _counted(self, operation: str) -> Generator[dict[str, int]]:
        bytes_of: dict[str, int] = {}
        try:
            yield bytes_of
        except PraError as error:
            self._meter.request(operation, next(code for kind, code in _CODES if isinstance(error, kind)))
            raise
        self._meter.request(operation, "ok", **bytes_of)
