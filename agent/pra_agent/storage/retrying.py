"""Another try after errors that may pass, and only after those.

Waits grow exponentially and are random, so that many threads and hosts do not come back at the same moment. A store
that says "slow down" slows all threads of the backend: requests are then spaced out, and the space shrinks again with
each success.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pra_agent.clock import Clock
from pra_agent.errors import NotFound, StorageError, Throttled, TransientStorageError
from pra_agent.storage.backend import Backend, Handle, Kind, ObjectInfo

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on: tries in all, seconds in all, and the bounds of one wait in seconds.

    `first_contact` replaces `give_up` until the store has answered once: a wrong endpoint is told soon.
    """

    tries: int = 60
    give_up: float = 900.0
    first_contact: float = 60.0
    first_wait: float = 0.5
    longest_wait: float = 60.0


class _Pace:
    """The space between two requests (s): it grows with each "slow down" and shrinks with each success.

    Where a third of all requests is refused whatever their rate, it still shrinks on the whole.
    """

    _SMALLEST, _LARGEST, _GROW, _SHRINK = 0.02, 1.0, 1.5, 0.8

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._space = 0.0
        self._next = 0.0

    def wait(self) -> None:
        with self._guard:
            if not self._space:
                return
            now = self._clock.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._space
        if turn > now:
            self._clock.sleep(turn - now)

    def slower(self) -> None:
        with self._guard:
            self._space = min(self._LARGEST, max(self._SMALLEST, self._space * self._GROW))

    def faster(self) -> None:
        with self._guard:
            self._space = self._space * self._SHRINK if self._space > self._SMALLEST else 0.0


class _Tries:
    """The tries of one request: counts them, waits between them, and raises the last error when they are used up."""

    def __init__(self, policy: RetryPolicy, clock: Clock, rng: random.Random, seconds: float) -> None:
        self._policy = policy
        self._clock = clock
        self._random = rng
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begin to count anew, because the request got on."""
        self._failed = 0
        self._deadline = self._clock.monotonic() + self._seconds

    def wait_after(self, error: TransientStorageError) -> None:
        self._failed += 1
        longest = min(self._policy.longest_wait, self._policy.first_wait * 2 ** (self._failed - 1))
        wait = longest * (0.1 + 0.9 * self._random.random())
        if self._failed >= self._policy.tries or self._clock.monotonic() + wait > self._deadline:
            raise error
        self._clock.sleep(wait)


class RetryingBackend:
    """Repeats what failed in passing; what is left after the last try is that error."""

    def __init__(
        self,
        inner: Backend,
        clock: Clock,
        *,
        policy: RetryPolicy | None = None,
        on_retry: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._policy = policy or RetryPolicy()
        self._on_retry = on_retry
        self._random = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._pace = _Pace(clock)
        self._answered = False

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
        self._try(self._inner.create)

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        self._try(lambda: self._inner.put(handle, data))

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        return self._try(lambda: self._inner.get(handle, offset, length))

    def stat(self, handle: Handle) -> ObjectInfo:
        return self._try(lambda: self._inner.stat(handle))

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        """Name each object once, also when the listing had to begin again."""
        seen: set[str] = set()
        tries = self._tries()
        while True:
            self._pace.wait()
            try:
                for info in self._inner.list(kind):
                    self._answered = True
                    if info.handle.name not in seen:
                        seen.add(info.handle.name)
                        tries.restart()
                        yield info
            except TransientStorageError as error:
                self._again(tries, error)
            else:
                self._well_answered()
                return

    def delete(self, handle: Handle) -> None:
        failed = False

        def attempt() -> None:
            nonlocal failed
            try:
                self._inner.delete(handle)
            except NotFound:
                if not failed:  # else the try before was done, and only its answer was lost
                    raise
            except TransientStorageError:
                failed = True
                raise

        self._try(attempt)

    def store_time(self) -> datetime | None:
        return self._inner.store_time()

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        self._try(lambda: self._inner.extend_retention(handle, until))

    def close(self) -> None:
        self._inner.close()

    def _try(self, attempt: Callable[[], _Result]) -> _Result:
        tries = self._tries()
        while True:
            self._pace.wait()
            try:
                result = attempt()
            except TransientStorageError as error:
                self._again(tries, error)
            except StorageError:
                self._answered = True
                raise
            else:
                self._well_answered()
                return result

    def _tries(self) -> _Tries:
        policy = self._policy
        seconds = policy.give_up if self._answered else min(policy.give_up, policy.first_contact)
        return _Tries(policy, self._clock, self._random, seconds)

    def _well_answered(self) -> None:
        self._answered = True
        self._pace.faster()

    def _again(self, tries: _Tries, error: TransientStorageError) -> None:
        if isinstance(error, Throttled):
            self._pace.slower()
        tries.wait_after(error)
        self._on_retry()
