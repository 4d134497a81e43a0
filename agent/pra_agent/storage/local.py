"""A repository in a directory, laid out as stock restic lays it out.

An object is written to a temporary name in its own directory, synced, and linked to its name without ever replacing
another; then the directory is synced. So after a crash at any moment an object is there as a whole or not at all, and
what `put` has acknowledged stays.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import (
    AccessDenied,
    AlreadyExists,
    DamagedError,
    NotFound,
    StorageError,
    StorageFull,
    TransientStorageError,
)
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from pra_agent.storage.names import is_name, require_name

_TEMPORARY = ".tmp-"
_TEMPORARY_IS_OLD = 24 * 3600.0  # seconds; no upload of one object takes a day
_DIR_MODE, _FILE_MODE = 0o700, 0o600

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PASSING = {
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EINTR,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class LocalBackend:
    """A directory of this host, or a mounted one (`off_host` when it is another machine's)."""

    def __init__(self, root: Path, *, clock: Clock | None = None, connections: int = 4, off_host: bool = False) -> None:
        self._root = root
        self._clock = clock or SystemClock()
        self._connections = connections
        self._off_host = off_host

    @property
    def location(self) -> str:
        return str(self._root)

    @property
    def connections(self) -> int:
        return self._connections

    @property
    def off_host(self) -> bool:
        return self._off_host

    def create(self) -> None:
        with _translated(self.location):
            self._root.mkdir(mode=_DIR_MODE, parents=True, exist_ok=True)
            for kind in Kind:
                if kind is not Kind.CONFIG:
                    (self._root / kind.value).mkdir(mode=_DIR_MODE, exist_ok=True)
            _sync_directory(self._root)
            _sync_directory(self._root.parent)

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        target = self._path(handle)
        with _translated(handle.path):
            if handle.kind is not Kind.LOCK and target.exists():
                self._accept_equal(handle, target, data)
                return
            temporary = self._write_temporary(target.parent, data)
            try:
                if handle.kind is Kind.LOCK:
                    temporary.rename(target)
                else:
                    self._link(handle, temporary, target, data)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_directory(target.parent)

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        with _translated(handle.path), self._path(handle).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            wanted = size - offset if length is None else length
            if wanted < 0 or offset + wanted > size:
                raise DamagedError(
                    f"{handle.path} in {self.location} ends at {size}, asked for {wanted} bytes from {offset} on"
                )
            data = _read_at(file.fileno(), offset, wanted)
        if len(data) != wanted:
            raise DamagedError(f"{handle.path} in {self.location} gave {len(data)} bytes, asked for {wanted}")
        return data

    def stat(self, handle: Handle) -> ObjectInfo:
        with _translated(handle.path):
            return _info(handle, self._path(handle).stat())

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        with _translated(self.location):
            if kind is Kind.CONFIG:
                with contextlib.suppress(FileNotFoundError):
                    yield _info(Handle(kind), (self._root / "config").stat())
                return
            folders = [self._root / kind.value]
            if not folders[0].is_dir():
                self._root.stat()  # a mount that is gone must not look like an empty repository
                return
            if kind is Kind.DATA:
                folders = [Path(entry.path) for entry in os.scandir(folders[0]) if entry.is_dir(follow_symlinks=False)]
            for folder in folders:
                yield from self._list_folder(kind, folder)

    def delete(self, handle: Handle) -> None:
        target = self._path(handle)
        with _translated(handle.path):
            target.unlink()
            # Prune deletes indexes before packs, forget deletes snapshots before both: also after a crash.
            if handle.kind not in {Kind.DATA, Kind.LOCK}:
                _sync_directory(target.parent)

    def store_time(self) -> datetime | None:
        return None

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        """Do nothing: a directory has no object lock."""

    def close(self) -> None:
        """Do nothing: nothing is held open."""

    def _path(self, handle: Handle) -> Path:
        require_name(handle)
        return self._root / handle.path

    def _list_folder(self, kind: Kind, folder: Path) -> Iterator[ObjectInfo]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY):
                    self._clean(entry)
                elif is_name(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        if stat.S_ISREG(status.st_mode):
                            yield _info(Handle(kind, entry.name), status)

    def _clean(self, entry: os.DirEntry[str]) -> None:
        """Remove a temporary file that a killed process left behind; a reader that may not write leaves it."""
        with contextlib.suppress(OSError):
            if self._clock.timestamp() - entry.stat(follow_symlinks=False).st_mtime > _TEMPORARY_IS_OLD:
                Path(entry.path).unlink()

    def _write_temporary(self, folder: Path, data: bytes | memoryview) -> Path:
        temporary = folder / (_TEMPORARY + secrets.token_hex(12))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(temporary, flags, _FILE_MODE)
        except FileNotFoundError:
            self._make_folder(folder)
            descriptor = os.open(temporary, flags, _FILE_MODE)
        try:
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(descriptor)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the layout below the root; a root that is missing stays missing."""
        if folder == self._root:
            raise NotFound(f"the repository's directory {self._root} is gone")
        if not folder.parent.is_dir():
            self._make_folder(folder.parent)
        folder.mkdir(mode=_DIR_MODE, exist_ok=True)
        _sync_directory(folder.parent)

    def _link(self, handle: Handle, temporary: Path, target: Path, data: bytes | memoryview) -> None:
        """Give the file its name, replacing nothing: of two that write one config at once, one must lose."""
        try:
            target.hardlink_to(temporary)
        except FileExistsError:
            self._accept_equal(handle, target, data)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            temporary.rename(target)
            return
        temporary.unlink()

    def _accept_equal(self, handle: Handle, target: Path, data: bytes | memoryview) -> None:
        view = memoryview(data)
        if target.stat().st_size != view.nbytes or memoryview(target.read_bytes()) != view:
            raise AlreadyExists(f"{handle.path} in {self.location} exists with other content")
        _sync_directory(target.parent)  # its writer may have died before it came to this


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _info(handle: Handle, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(handle, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems know no fsync of a directory
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(place: str) -> Generator[None]:
    """Turn the system's errors into those of the contract."""
    try:
        yield
    except OSError as error:
        raise _storage_error(error, place) from error


def _storage_error(error: OSError, place: str) -> StorageError:
    message = f"{place}: {error.strerror or error}"
    if error.errno == errno.ENOENT:
        return NotFound(message)
    if error.errno in _DENIED:
        return AccessDenied(message)
    if error.errno in _FULL:
        return StorageFull(message)
    if error.errno in _PASSING:
        return TransientStorageError(message)
    return StorageError(message)
