"""Reading files into blobs. Runs in the worker processes, and in the main process when there are none.

A file is what its descriptor says it is: opened without following symlinks, and compared before and after reading
with the status that the walk saw.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from pra_agent.sources.attributes import read_xattrs

Buffer = bytes | bytearray | memoryview

#: Files above this size are read in segments, which several workers may read at once.
SEGMENT = 256 << 20
#: Holes from this size on are not read but known to be zero; whole ones of `_ZERO` bytes make the same blob each.
_HOLE = 16 << 20
_ZERO = 8 << 20
#: A worker remembers so many ids of its own, so that what it read twice is sealed once.
_REMEMBERED = 100_000
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Status = tuple[int, int, int, int]


#: A file, or a segment of one, to be read: descriptor of a directory (-1 when the path is absolute), path, status as
#: the walk saw it, offset, length, and whether it is read to the end of the file. A plain tuple crosses processes fast.
FileTask = tuple[int, bytes, Status, int, int, bool]

#: What was read: ids of blobs joined, bytes, extended attributes, status, whether the file changed while it was read,
#: and an error if there is nothing. The status is None when the file is still what the walk saw, else (size, mtime,
#: ctime, inode, mode, uid, gid, links, device) from before it was read.
FileResult = tuple[bytes, int, Mapping[bytes, bytes], tuple[int, ...] | None, bool, str]

_NO_XATTRS: Mapping[bytes, bytes] = {}


def _nothing(error: str) -> FileResult:
    return b"", 0, _NO_XATTRS, None, False, error


class Chunker(Protocol):
    """What cuts content into blobs (`repository.chunker`)."""

    min_size: int

    def chunks(self, read: Callable[[int], bytes]) -> Iterator[bytes | memoryview]: ...


def _go_on() -> None:
    """Nobody asks a worker to stop: it is ended."""


class FileReader:
    """Reads files. `known` tells whether a blob need not be stored, `put` takes the others.

    `look` is called now and then while a large file is read; what it raises ends the reading.
    """

    def __init__(
        self,
        chunker: Chunker,
        known: Callable[[bytes], bool],
        put: Callable[[bytes, Buffer], None],
        look: Callable[[], None] = _go_on,
    ) -> None:
        self._chunker = chunker
        self._known = known
        self._put = put
        self._look = look
        self._seen: set[bytes] = set()
        self._directory: tuple[int, bytes] = (-1, b"")
        self._directory_fd = -1
        self._flags = _FLAGS | os.O_NOATIME
        self._zeros: dict[int, bytes] = {}

    def close(self) -> None:
        """Close what is open; harmless when nothing is."""
        self._forget_directory()

    def store(self, data: Buffer) -> bytes:
        """Name a blob, and hand it over unless it is known."""
        blob = hashlib.sha256(data).digest()
        if blob not in self._seen:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen.add(blob)
            if not self._known(blob):
                self._put(blob, data)
        return blob

    def read(self, task: FileTask) -> FileResult:
        """Read a file or segment; errors of the file become part of the result."""
        dir_fd, path, status, *_ = task
        try:
            fd = self._open(dir_fd, path)
        except OSError as error:
            return _nothing(f"cannot be opened: {error.strerror}")
        try:
            if status[0] <= self._chunker.min_size:
                return self._read_small(fd, task)
            return self._read_large(fd, task)
        except OSError as error:
            return _nothing(f"cannot be read: {error.strerror}")
        finally:
            os.close(fd)

    def _read_small(self, fd: int, task: FileTask) -> FileResult:
        """Read a file of one blob at once; once more when it is no longer what the walk saw."""
        status = task[2]
        size = status[0]
        data = os.read(fd, size + 1) if size else b""
        after = os.fstat(fd)
        if len(data) == size and _same(after, status):
            return self.store(data) if data else b"", size, read_xattrs(fd), None, False, ""
        if not stat.S_ISREG(after.st_mode):
            return _nothing("it is no longer a regular file")
        os.lseek(fd, 0, os.SEEK_SET)
        return self._read_large(fd, task)

    def _read_large(self, fd: int, task: FileTask) -> FileResult:
        _, _, status, offset, length, last = task
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return _nothing("it is no longer a regular file")
        end = max(before.st_size, offset) if last else offset + length
        ids: list[bytes] = []
        total = 0
        for start, stop, hole in _extents(fd, offset, end, before):
            if hole:
                ids += self._hole(stop - start)
                total += stop - start
                continue
            size, more = self._extent(fd, start, stop)
            total += size
            ids += more
        xattrs = read_xattrs(fd)
        changed = _key(before) != _key(os.fstat(fd))
        # A file that changed keeps the status from before, so that the next run cannot take it for unchanged.
        return b"".join(ids), total, xattrs, None if _same(before, status) else _status(before), changed, ""

    def _extent(self, fd: int, start: int, stop: int) -> tuple[int, list[bytes]]:
        """Cut and store the bytes of a file from `start` to `stop`, or to its end; tell how many there were."""
        position = start

        def read(wanted: int) -> bytes:
            nonlocal position
            self._look()
            piece = os.pread(fd, min(wanted, stop - position), position)
            position += len(piece)
            return piece

        ids = [self.store(chunk) for chunk in self._chunker.chunks(read)]
        return position - start, ids

    def _hole(self, length: int) -> Iterator[bytes]:
        """Name (and store, once) the blobs of so many zeros."""
        while length > 0:
            size = min(length, _ZERO)
            blob = self._zeros.get(size)
            if blob is None:
                blob = self.store(bytes(size))
                if size == _ZERO:
                    self._zeros[size] = blob
            yield blob
            length -= size

    def _open(self, dir_fd: int, path: bytes) -> int:
        directory, _, name = path.rpartition(b"/")
        if dir_fd < 0:
            return self._open_at(path, None)
        if (dir_fd, directory) != self._directory:
            self._forget_directory()
            self._directory_fd = _open_directory(dir_fd, directory)
            self._directory = (dir_fd, directory)
        return self._open_at(name, self._directory_fd)

    def _open_at(self, name: bytes, dir_fd: int | None) -> int:
        try:
            return os.open(name, self._flags, dir_fd=dir_fd)
        except PermissionError:
            if not self._flags & os.O_NOATIME:
                raise
        # Only the owner may leave the access time alone; others read all the same.
        fd = os.open(name, _FLAGS, dir_fd=dir_fd)
        self._flags = _FLAGS
        return fd

    def _forget_directory(self) -> None:
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
        self._directory_fd = -1
        self._directory = (-1, b"")


def _open_directory(dir_fd: int, path: bytes) -> int:
    """Open a directory below `dir_fd`, component by component: no symlinks, and no limit of a path's length."""
    here = os.dup(dir_fd)
    for component in path.split(b"/"):
        if not component:
            continue
        try:
            deeper = os.open(component, _DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = deeper
    return here


def _extents(fd: int, start: int, end: int, status: os.stat_result) -> Iterator[tuple[int, int, bool]]:
    """Split a range into (start, stop, is a hole); small holes count as data."""
    if status.st_blocks * 512 > status.st_size - _HOLE:
        if end > start:
            yield start, end, False
        return
    data = position = start
    while position < end:
        hole_start, hole_stop = _next_hole(fd, position, end)
        position = hole_stop
        if hole_stop - hole_start >= _HOLE:
            if hole_start > data:
                yield data, hole_start, False
            yield hole_start, hole_stop, True
            data = hole_stop
    if data < end:
        yield data, end, False


def _next_hole(fd: int, position: int, end: int) -> tuple[int, int]:
    """Find the next hole from `position` on; an empty one at the end when there is none."""
    with suppress(OSError):
        start = min(os.lseek(fd, position, os.SEEK_HOLE), end)
        if start >= end:
            return end, end
        try:
            return start, min(os.lseek(fd, start, os.SEEK_DATA), end)
        except OSError:  # ENXIO: nothing but a hole up to the end
            return start, end
    return end, end


def _key(st: os.stat_result) -> Status:
    return st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino


def _same(st: os.stat_result, status: Status) -> bool:
    return (st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino) == status


def _status(st: os.stat_result) -> tuple[int, ...]:
    return (*_key(st), st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_nlink, st.st_dev)
