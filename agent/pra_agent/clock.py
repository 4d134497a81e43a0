"""The one door to time, so that tests can hold the clock in their hands."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the program knows of time."""

    def now(self) -> datetime:
        """Tell the wall clock's time, aware, in UTC."""
        ...

    def timestamp(self) -> float:
        """Tell the wall clock's time in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Tell a time in seconds that never goes back; only differences mean something."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def timestamp(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
