"""A backend that fails, dies or cuts at the n-th operation, and counts them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pra_agent.errors import TransientStorageError
from pra_agent.storage.backend import Backend, Handle, Kind, ObjectInfo


class Crash(BaseException):
    """The process has died, as far as the test goes: nothing catches this, and the backend does nothing any more."""


class Mode(StrEnum):
    """What happens at the chosen operation."""

    FAIL = "fail"  # an error, and nothing was done
    FAIL_AFTER = "fail after"  # it was done, and the answer was lost
    DIE = "die"  # the process ends before it is done
    DIE_AFTER = "die after"  # the process ends when it is done, before it is known
    KILL = "kill"  # SIGKILL to this very process, before it is done
    KILL_AFTER = "kill after"
    CUT = "cut"  # a get gives half of the bytes; a put stores half of them and the process ends
    FLIP = "flip"  # a get gives bytes with one bit changed


@dataclass(frozen=True, slots=True)
class Fault:
    """The operation to hit: the `at`-th (from 1) of those that `operations` and `kinds` name; empty means all.

    `times` operations in a row are hit. `error` is what FAIL raises.
    """

    at: int
    mode: Mode = Mode.FAIL
    operations: Sequence[str] = ()
    kinds: Sequence[Kind] = ()
    times: int = 1
    error: Callable[[], Exception] = lambda: TransientStorageError("a fault of the test")


class FaultyBackend:
    """Passes everything on, but for the fault. `log` has all operations as (name, kind)."""

    def __init__(self, inner: Backend, fault: Fault | None = None) -> None:
        self._inner = inner
        self.fault = fault
        self.log: list[tuple[str, Kind | None]] = []
        self.matched = 0
        self.dead = False
        self._guard = threading.RLock()

    @property
    def count(self) -> int:
        """How many operations there were."""
        return len(self.log)

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
        mode = self._before("create", None)
        self._inner.create()
        self._after(mode)

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        mode = self._before("put", handle.kind)
        if mode is Mode.CUT:
            self._inner.put(handle, bytes(data)[: len(data) // 2])
            self._die()
        self._inner.put(handle, data)
        self._after(mode)

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        mode = self._before("get", handle.kind)
        data = self._inner.get(handle, offset, length)
        self._after(mode)
        if mode is Mode.CUT:
            return data[: len(data) // 2]
        if mode is Mode.FLIP and data:
            middle = len(data) // 2
            return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        return data

    def stat(self, handle: Handle) -> ObjectInfo:
        mode = self._before("stat", handle.kind)
        info = self._inner.stat(handle)
        self._after(mode)
        return info

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        mode = self._before("list", kind)
        items = list(self._inner.list(kind))
        if mode in {Mode.FAIL_AFTER, Mode.DIE_AFTER, Mode.KILL_AFTER}:
            yield from items[: len(items) // 2]
        self._after(mode)
        yield from items

    def delete(self, handle: Handle) -> None:
        mode = self._before("delete", handle.kind)
        self._inner.delete(handle)
        self._after(mode)

    def store_time(self) -> datetime | None:
        return self._inner.store_time()

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        mode = self._before("extend_retention", handle.kind)
        self._inner.extend_retention(handle, until)
        self._after(mode)

    def close(self) -> None:
        self._inner.close()

    def _before(self, operation: str, kind: Kind | None) -> Mode | None:
        with self._guard:
            if self.dead:
                raise Crash
            self.log.append((operation, kind))
            fault = self.fault
            if fault is None or (fault.operations and operation not in fault.operations):
                return None
            if fault.kinds and kind not in fault.kinds:
                return None
            self.matched += 1
            if not fault.at <= self.matched < fault.at + fault.times:
                return None
            if fault.mode is Mode.FAIL:
                raise fault.error()
            if fault.mode is Mode.DIE:
                self._die()
            if fault.mode is Mode.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            return fault.mode

    def _after(self, mode: Mode | None) -> None:
        if mode is Mode.FAIL_AFTER and self.fault is not None:
            raise self.fault.error()
        if mode is Mode.DIE_AFTER:
            self._die()
        if mode is Mode.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    def _die(self) -> None:
        self.dead = True
        raise Crash
