"""What passes between the archiver and its workers: framed messages through pipes, sealed blobs through an arena.

The arena is a ring of shared memory that the worker fills and the archiver empties in the same order. Credits (an
eventfd) tell the worker how many bytes were taken out, so a worker that is too fast waits, and memory stays bounded.
"""

import marshal
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct("<I")


def encode(message: Any) -> bytes:  # noqa: ANN401 - what marshal takes
    """Frame a message: tuples, lists, dicts, bytes, str, numbers, None."""
    body = marshal.dumps(message)
    return _LENGTH.pack(len(body)) + body


def receive(fd: int) -> Any | None:  # noqa: ANN401 - each side knows what the other sends
    """Wait for the next message; None when the other side is gone."""
    head = _read_exactly(fd, _LENGTH.size)
    if head is None:
        return None
    body = _read_exactly(fd, *_LENGTH.unpack(head))
    # It comes from a process of our own, which was forked from this one.
    return None if body is None else marshal.loads(body)  # noqa: S302


def send(fd: int, message: Any) -> None:  # noqa: ANN401 - what marshal takes
    """Write a message, waiting until it is written."""
    view = memoryview(encode(message))
    while view:
        view = view[os.write(fd, view) :]


def _read_exactly(fd: int, size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size > 0:
        piece = os.read(fd, min(size, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Arena:
    """A ring in shared memory; made before the fork, filled by the worker."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(-1, size)
        self.credits = os.eventfd(0, os.EFD_CLOEXEC)
        self._head = 0
        self._free = size

    def place(self, data: bytes | bytearray | memoryview, flush: Callable[[], None]) -> tuple[int, int]:
        """Copy data in (worker's side): where it is, and how many bytes it takes from the ring.

        Waits for room; `flush` is called before, so that the archiver knows of all that it can take out.
        """
        length = len(data)
        waste = self.size - self._head if self._head + length > self.size else 0
        if waste + length > self.size:
            raise ValueError(f"{length} bytes do not fit in an arena of {self.size}")
        if self._free < waste + length:
            flush()
            while self._free < waste + length:
                self._free += os.eventfd_read(self.credits)
        offset = 0 if waste else self._head
        self.memory[offset : offset + length] = data
        self._head = offset + length
        self._free -= waste + length
        return offset, waste + length

    def release(self, length: int) -> None:
        """Give room back (archiver's side)."""
        if length:
            os.eventfd_write(self.credits, length)

    def close(self) -> None:
        """Unmap it on this side."""
        self.memory.close()
        os.close(self.credits)
