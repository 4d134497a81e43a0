"""Blobs that a file in the target holds already, at the offsets where the snapshot has them."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence

from pra_agent.restorer.plan import Item
from pra_agent.restorer.target import Target

#: (position in the content, offset in bytes, length in bytes)
Extent = tuple[int, int, int]


class Existing:
    """The file that has an item's place now, opened for reading; not a regular file, or not readable: empty."""

    def __init__(self, target: Target, item: Item) -> None:
        self._content: Sequence[bytes] = item.node.content or ()
        self._descriptor: int | None = None
        self.size = 0
        #: Whether other names of the file would feel what is done to it.
        self.shared = False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(item.node.name, flags, dir_fd=target.fd(item.directory))
        except OSError:
            return
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            self._descriptor = descriptor
            self.size = status.st_size
            self.shared = status.st_nlink > 1 and item.node.links <= 1
        else:
            os.close(descriptor)

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def matching(self, extents: Sequence[Extent]) -> Iterator[tuple[Extent, bytes]]:
        """Yield those of the extents whose bytes are the blob's (by its SHA-256), with the bytes."""
        if self._descriptor is None:
            return
        for extent in extents:
            position, offset, length = extent
            if offset + length > self.size:
                return
            data = self._read(offset, length)
            if hashlib.sha256(data).digest() == self._content[position]:
                yield extent, data

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor or 0, length, offset)
        except OSError:
            return b""


def extents(content: Sequence[bytes], lengths: Sequence[int]) -> list[Extent]:
    """Where each blob of a file lies."""
    found: list[Extent] = []
    offset = 0
    for position in range(len(content)):
        found.append((position, offset, lengths[position]))
        offset += lengths[position]
    return found
