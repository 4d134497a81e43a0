"""Copies of small sealed files (indexes, snapshots, tree packs) on the host, so that a run need not fetch them again.

The files stay sealed, and are proven by their name (SHA-256) at each use. Losing the cache costs requests only.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pra_agent.repository.codec import content_id
from pra_agent.repository.state import write_atomically
from pra_agent.storage.backend import Handle, Kind


class FileCache:
    """A directory of sealed files, at most `limit` bytes after each `trim`. No error of the disk comes out of it."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit

    def get(self, handle: Handle) -> bytes | None:
        """Give a whole file, proven, or None."""
        path = self._path(handle)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if content_id(data).hex() != handle.name:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return data

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        """Keep a file."""
        path = self._path(handle)
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, bytes(data))

    def keep_only(self, kind: Kind, names: Iterable[str]) -> None:
        """Drop the files of a kind that are in the store no longer."""
        wanted = set(names)
        with suppress(OSError):
            for path in (self._root / kind).iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    def trim(self) -> None:
        """Drop what was not used for the longest time until the rest is within the limit."""
        files: list[tuple[float, int, Path]] = []
        for path in self._root.glob("*/*"):
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                return
            with suppress(OSError):
                path.unlink()
                total -= size

    def size(self) -> int:
        """Tell how many bytes are kept."""
        total = 0
        for path in self._root.glob("*/*"):
            with suppress(OSError):
                total += path.stat().st_size
        return total

    def _path(self, handle: Handle) -> Path:
        return self._root / handle.kind / handle.name
