"""Reading files into blobs. Runs in the worker processes, and in the main process when there are none.

A file is what its descriptor says it is: opened without following symlinks, and compared before and after reading
with the status that the walk saw.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

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


class FileTask(NamedTuple):
    """A file, or a segment of one, to be read. `status` is (size, mtime, ctime, inode) as the walk saw it.

    `dir_fd` is -1 when `path` is absolute. A segment that is the `last` is read to the end of the file.
    """

    dir_fd: int
    path: bytes
    status: Status
    offset: int = 0
    length: int = 0
    last: bool = True


class FileResult(NamedTuple):
    """What was read: ids of blobs joined, bytes, attributes. `error` says why there is nothing.

    `status` is None when the file is still what the walk saw, else (size, mtime, ctime, inode, mode, uid, gid, links,
    device) as read; `changed` tells that it changed while it was read.
    """

    content: bytes = b""
    size: int = 0
    xattrs: Mapping[bytes, bytes] | None = None
    status: tuple[int, ...] | None = None
    changed: bool = False
    error: str = ""


class Chunker(Protocol):
    """What cuts content into blobs (`repository.chunker`)."""

    min_size: int

    def chunks(self, read: Callable[[int], bytes]) -> Iterator[bytes | memoryview]: ...


class FileReader:
    """Reads files. `known` tells whether a blob need not be stored, `put` takes the others."""

    def __init__(self, chunker: Chunker, known: Callable[[bytes], bool], put: Callable[[bytes, Buffer], None]) -> None:
        self._chunker = chunker
        self._known = known
        self._put = put
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
        try:
            fd = self._open(task)
        except OSError as error:
            return FileResult(error=f"cannot be opened: {error.strerror}")
        try:
            if task.status[0] <= self._chunker.min_size:
                return self._read_small(fd, task)
            return self._read_large(fd, task)
        except OSError as error:
            return FileResult(error=f"cannot be read: {error.strerror}")
        finally:
            os.close(fd)

    def _read_small(self, fd: int, task: FileTask) -> FileResult:
        """Read a file of one blob at once; once more when it is no longer what the walk saw."""
        size = task.status[0]
        data = os.read(fd, size + 1) if size else b""
        after = os.fstat(fd)
        if len(data) == size and _same(after, task.status):
            content = self.store(data) if data else b""
            return FileResult(content, size, read_xattrs(fd))
        if not stat.S_ISREG(after.st_mode):
            return FileResult(error="it is no longer a regular file")
        os.lseek(fd, 0, os.SEEK_SET)
        return self._read_large(fd, task)

    def _read_large(self, fd: int, task: FileTask) -> FileResult:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return FileResult(error="it is no longer a regular file")
        end = task.offset + task.length if not task.last else max(before.st_size, task.offset)
        ids: list[bytes] = []
        total = 0
        for start, stop, hole in _extents(fd, task.offset, end, before):
            if hole:
                ids += self._hole(stop - start)
                total += stop - start
                continue
            size, more = self._extent(fd, start, stop)
            total += size
            ids += more
        xattrs = read_xattrs(fd)
        after = os.fstat(fd)
        changed = _key(before) != _key(after)
        # A file that changed keeps the status from before, so that the next run cannot take it for unchanged.
        status = None if _same(before, task.status) else _status(before)
        return FileResult(b"".join(ids), total, xattrs, status, changed)

    def _extent(self, fd: int, start: int, stop: int) -> tuple[int, list[bytes]]:
        """Cut and store the bytes of a file from `start` to `stop`, or to its end; tell how many there were."""
        position = start

        def read(wanted: int) -> bytes:
            nonlocal position
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

    def _open(self, task: FileTask) -> int:
        directory, _, name = task.path.rpartition(b"/")
        if task.dir_fd < 0:
            return self._open_at(task.path, None)
        if (task.dir_fd, directory) != self._directory:
            self._forget_directory()
            self._directory_fd = _open_directory(task.dir_fd, directory)
            self._directory = (task.dir_fd, directory)
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
