"""A dump's stream, watched: how long it was, how it began and how it ended."""

import contextlib
import io
import re
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

from pra_agent.errors import SourceError

_TAIL = 1024
_HEAD = 64


@dataclass(frozen=True, slots=True)
class Demand:
    """What a whole dump looks like. `tail` must be found in its last kilobyte, `head` at its very beginning."""

    what: str
    head: bytes = b""
    tail: re.Pattern[bytes] | None = None
    min_bytes: int = 1

    def check(self, seen: "Watched") -> None:
        """Raise `SourceError` unless what was read is a whole dump."""
        if seen.count < self.min_bytes:
            raise SourceError(
                f"{self.what}: the dump has {seen.count} bytes, at least {self.min_bytes} were expected",
                advice="Run the dump command by hand; look for a wrong database name or missing rights.",
            )
        if not seen.head.startswith(self.head):
            raise SourceError(f"{self.what}: the dump does not begin as it should")
        if self.tail is not None and not self.tail.search(seen.tail):
            raise SourceError(
                f"{self.what}: the dump lacks its end, so it is not whole",
                advice="Look into the database's log for why the dump was cut; the next run tries again.",
            )


class Watched(io.RawIOBase):
    """Passes a stream on and remembers its length, its first and its last bytes."""

    def __init__(self, inner: BinaryIO) -> None:
        super().__init__()
        self._inner = inner
        self.count = 0
        self.head = b""
        self.tail = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (a writable buffer)
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        if len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        self.tail = data[-_TAIL:] if len(data) >= _TAIL else (self.tail + data)[-_TAIL:]
        return len(data)


@contextlib.contextmanager
def demanding(
    opened: Callable[[], AbstractContextManager[BinaryIO]], demand: Demand
) -> Generator[BinaryIO, None, None]:
    """Open a stream; leaving it without an error asserts its exit status (by `opened`) and then the demand."""
    with opened() as inner:
        watched = Watched(inner)
        yield io.BufferedReader(watched, 1 << 18)
        while watched.read(1 << 18):
            pass  # what the reader left: the demand is about the whole
    demand.check(watched)
