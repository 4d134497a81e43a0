"""A clock that tests hold in their hands."""

import threading
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Stands still until it is told to go on; `sleep` goes on at once and is remembered."""

    def __init__(self, start: datetime = datetime(2024, 5, 1, 12, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._guard = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> datetime:
        with self._guard:
            return self._start + timedelta(seconds=self._elapsed)

    def timestamp(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        with self._guard:
            return self._elapsed

    def sleep(self, seconds: float) -> None:
        with self._guard:
            self.slept.append(seconds)
            self._elapsed += max(0.0, seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass, without anybody sleeping."""
        with self._guard:
            self._elapsed += seconds
