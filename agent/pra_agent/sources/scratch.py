"""Room for a while: what sources copy before they read it, and what a restore puts down before it goes into service.

What lies there is locked by who works with it; what nobody holds was left by a crash, and is taken away.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pra_agent.errors import StorageFull
from pra_agent.units import human_size

_NEW = ".new-"


@dataclass(frozen=True, slots=True)
class Room:
    """A directory, and how much of its disk may be used.

    `quota` is how many bytes may lie in the directory; `min_free` tells of a disk's size how many bytes of it are to
    stay free.
    """

    directory: Path
    quota: int
    min_free: Callable[[int], int]

    def claim(self, size: int) -> None:
        """Raise `StorageFull` unless so many more bytes may be written there. 0 asks how things are by now."""
        used = used_below(self.directory)
        if used + size > self.quota:
            raise StorageFull(
                f"{self.directory}: {human_size(used)} used and {human_size(size)} to come "
                f"are more than limits.scratch.quota ({human_size(self.quota)})",
                advice="Raise limits.scratch.quota, or give another place with limits.scratch.path.",
            )
        demand_free(self.directory, self.min_free, size)

    @contextmanager
    def held(self, name: str, *, directory: bool = False) -> Generator[Path]:
        """Make a file (or a directory) there that is gone on leaving. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sweep()
        new, path = self.directory / (_NEW + name), self.directory / name
        if directory:
            new.mkdir(mode=0o700)
        else:
            new.touch(mode=0o600, exist_ok=False)
        fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # It gets its name when it is locked, so that no sweep takes it away in between.
            fcntl.flock(fd, fcntl.LOCK_EX)
            new.rename(path)
            yield path
        finally:
            os.close(fd)
            for each in (new, path, *(Path(f"{path}{beside}") for beside in ("-wal", "-shm", "-journal"))):
                _remove(each)

    def sweep(self) -> None:
        """Take away what crashed runs left: whatever nobody has locked, but what is just being made."""
        with suppress(OSError):
            for path in sorted(self.directory.iterdir()):
                if not path.name.startswith(_NEW) and path.name.endswith((".copy", ".restored")):
                    _remove_unless_held(path)


def demand_free(directory: Path, min_free: Callable[[int], int], size: int = 0) -> None:
    """Raise `StorageFull` when the directory's disk has too little room after so many bytes more."""
    place = next((path for path in (directory, *directory.parents) if path.exists()), Path("/"))
    disk = shutil.disk_usage(place)
    need = min_free(disk.total)
    if disk.free - size < need:
        after = f" after {human_size(size)} more" if size else ""
        raise StorageFull(
            f"{directory}: {human_size(max(0, disk.free - size))} free{after}, less than limits.min_free "
            f"({human_size(need)})",
            advice="Free some room on that disk, or lower limits.min_free.",
        )


def used_below(directory: Path) -> int:
    """How many bytes of disk lie below a directory; what vanishes meanwhile does not count."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


def _remove_unless_held(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        _remove(path)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
