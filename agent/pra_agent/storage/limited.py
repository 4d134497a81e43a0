"""Bandwidth: a token bucket for each direction, with other rates for parts of the day.

Bytes are accounted by whole objects and ranges, across all threads: the mean over a few objects keeps to the rate,
while a single object still goes at the line's speed.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from pra_agent.clock import Clock
from pra_agent.storage.backend import Backend, Handle, Kind, ObjectInfo
from pra_agent.storage.settings import StorageLimits

_SLICE = 5.0  # seconds; after each, the rate of the hour is looked up again


class _Bucket:
    """Lets bytes pass, then makes the next ones wait until those are paid for at the rate of the hour."""

    def __init__(self, rate: Callable[[], int | None], clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._guard = threading.Lock()
        self._owed = self._paid = 0.0  # bytes
        self._settled = clock.monotonic()
        self._rate_since = rate()

    def take(self, count: int) -> None:
        """Account for so many bytes, and wait until all that were taken before are paid for."""
        with self._guard:
            self._settle()
            mine = self._paid + self._owed
            self._owed += count
        while wait := self._wait(mine):
            self._clock.sleep(wait)

    def _wait(self, mine: float) -> float:
        with self._guard:
            rate = self._settle()
            left = mine - self._paid
            if rate is None or left < 1:
                return 0.0
            return min(_SLICE, left / rate)

    def _settle(self) -> int | None:
        """Pay for the time since the last call, at the rate that held then; give the rate that holds now."""
        now, rate = self._clock.monotonic(), self._rate_since
        due = self._owed if rate is None else min(self._owed, rate * (now - self._settled))
        self._paid += due
        self._owed -= due
        self._settled, self._rate_since = now, self._rate()
        return self._rate_since


class LimitedBackend:
    """Keeps uploads and downloads of the backend below it to the limits."""

    def __init__(self, inner: Backend, limits: StorageLimits, clock: Clock) -> None:
        self._inner = inner
        self._limits = limits
        self._clock = clock
        self._zone = ZoneInfo(limits.zone)
        self._up = _Bucket(lambda: self._rates()[0], clock)
        self._down = _Bucket(lambda: self._rates()[1], clock)

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
        self._inner.create()

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        self._up.take(memoryview(data).nbytes)
        self._inner.put(handle, data)

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        data = self._inner.get(handle, offset, length)
        self._down.take(len(data))
        return data

    def stat(self, handle: Handle) -> ObjectInfo:
        return self._inner.stat(handle)

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        return self._inner.list(kind)

    def delete(self, handle: Handle) -> None:
        self._inner.delete(handle)

    def store_time(self) -> datetime | None:
        return self._inner.store_time()

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        self._inner.extend_retention(handle, until)

    def close(self) -> None:
        self._inner.close()

    def _rates(self) -> tuple[int | None, int | None]:
        """Upload and download rate of this hour, bytes per second."""
        if self._limits.daily:
            moment = self._clock.now().astimezone(self._zone).time()
            for window in self._limits.daily:
                if moment in window.hours:
                    return window.upload, window.download
        return self._limits.upload, self._limits.download
