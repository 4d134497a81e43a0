"""Packs that were stored but are in no index yet, written down on the host, so that a killed run's work is found.

A session appends one line per pack after it was stored, and drops its file once an index lists them all. The next
run takes over the files whose writer is dead. Nothing is synced: a lost line costs an upload, never data.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import orjson

from pra_agent.repository.state import try_lock

_SUFFIX = ".packs"
#: POSIX locks do not hold between the threads of one process, so our own sessions are remembered here.
_own: set[Path] = set()


@dataclass(frozen=True, slots=True)
class PendingPack:
    """A stored pack: its id and its size in bytes. What is in it, its own sealed header tells."""

    id: str
    size: int


class PendingSession:
    """One writer's file of stored packs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / f"{os.urandom(8).hex()}{_SUFFIX}"
        self._file: BinaryIO = self._path.open("xb")
        _own.add(self._path)
        try_lock(self._file.fileno())
        self._lock = Lock()
        self._open: dict[str, bytes] = {}

    def stored(self, pack: PendingPack) -> None:
        """Note a pack that is durable in the store."""
        line = orjson.dumps([pack.id, pack.size]) + b"\n"
        with self._lock, suppress(OSError):
            self._open[pack.id] = line
            self._file.write(line)
            self._file.flush()

    def indexed(self, packs: Iterable[str]) -> None:
        """Note that a durable index lists these packs."""
        with self._lock, suppress(OSError):
            for pack in packs:
                self._open.pop(pack, None)
            self._file.seek(0)
            self._file.truncate()
            self._file.write(b"".join(self._open.values()))
            self._file.flush()

    def close(self) -> None:
        """End the session; what is not indexed is left for the next run."""
        with self._lock, suppress(OSError):
            if not self._open:
                self._path.unlink()
            self._file.close()
        _own.discard(self._path)


def open_session(directory: Path) -> PendingSession | None:
    """Begin a session; None when this host has no room for notes, since a backup does without them."""
    try:
        return PendingSession(directory)
    except OSError:
        return None


class Abandoned:
    """A dead writer's file, held until it is `done` or released."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.packs = list(_decode(file.read()))

    def done(self) -> None:
        """Drop the file: an index lists what it named."""
        with suppress(OSError):
            self._path.unlink()
        self._file.close()

    def release(self) -> None:
        """Leave it to another run."""
        self._file.close()


def abandoned(directory: Path) -> Iterator[Abandoned]:
    """Take over the files whose writers are dead; live ones hold theirs."""
    if not directory.is_dir():
        return
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        if path in _own:
            continue
        try:
            file = path.open("r+b")
        except OSError:
            continue
        if try_lock(file.fileno()) and path.exists():
            yield Abandoned(path, file)
        else:
            file.close()


def _decode(data: bytes) -> Iterator[PendingPack]:
    for line in data.splitlines():
        try:
            pack, size = orjson.loads(line)
            yield PendingPack(str(pack), int(size))
        except (orjson.JSONDecodeError, TypeError, ValueError):
            # The last line of a killed writer may be cut; its pack is stored again.
            continue
