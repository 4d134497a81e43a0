"""The target of a restore, reached through directory descriptors only: no symbolic link in it is ever followed.

Every component is opened by its single name below its parent's descriptor with O_NOFOLLOW, so whatever is planted in
the target, nothing outside of it is touched. The target itself may be reached through links: it is the caller's word.
"""

import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pra_agent.errors import RestoreError
from pra_agent.restorer.plan import Directory

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = b".pra-agent-restore-"
_OPEN_DIRECTORIES = 128


class Target:
    """Open directories of a plan, by their index; the least recently used are closed.

    Not for more than one thread. A descriptor is good until the next call.
    """

    def __init__(self, root_fd: int, directories: Sequence[Directory]) -> None:
        """`root_fd` is kept by the caller."""
        self._root = root_fd
        self._directories = directories
        self._open: OrderedDict[int, int] = OrderedDict()

    def fd(self, index: int) -> int:
        """A descriptor of a directory; raises OSError when it is none, or a link is in the way."""
        if index == 0:
            return self._root
        found = self._open.get(index)
        if found is not None:
            self._open.move_to_end(index)
            return found
        chain = [index]
        while (parent := self._directories[chain[-1]].parent) != 0 and parent not in self._open:
            chain.append(parent)
        at = self._open.get(parent, self._root)
        for each in reversed(chain):
            at = os.open(self._directories[each].name, DIRECTORY_FLAGS, dir_fd=at)
            self._keep(each, at)
        return at

    def _keep(self, index: int, descriptor: int) -> None:
        self._open[index] = descriptor
        if len(self._open) > _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])

    def forget(self) -> None:
        """Drop what is open without closing it: in a child, the numbers are no longer ours."""
        self._open.clear()

    def close(self) -> None:
        """Close every directory but the root; harmless when there are none."""
        while self._open:
            os.close(self._open.popitem()[1])


def temporary_name() -> bytes:
    """A name beside a file that is to be replaced; `is_temporary` knows it again after a crash."""
    return _TEMPORARY + secrets.token_hex(8).encode()


def is_temporary(name: bytes) -> bool:
    """Tell whether an interrupted restore left a file of this name behind."""
    return name.startswith(_TEMPORARY) and len(name) == len(_TEMPORARY) + 16


def open_root(path: bytes, *, create: bool) -> int | None:
    """Open the target itself, made when missing; None when it is missing and not to be made.

    Raises RestoreError when it cannot be.
    """
    try:
        if create:
            Path(os.fsdecode(path)).mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if create:
            raise
        return None
    except OSError as error:
        raise RestoreError(
            f"cannot restore to {os.fsdecode(path)}: {error.strerror}", advice="Give a directory that you may write to."
        ) from error


def remove(directory: int, name: bytes) -> None:
    """Remove a name and all below it, never through a link and never into another file system.

    Raises OSError for the first thing that cannot be removed.
    """
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        _remove_tree(directory, name)
    except FileNotFoundError:
        pass


def _remove_tree(directory: int, name: bytes) -> None:
    """Empty and remove a directory, one level after another, with one descriptor a level."""
    device = os.fstat(directory).st_dev
    levels: list[tuple[int, bytes]] = []  # (descriptor, its name in the level before)
    try:
        levels.append((os.open(name, DIRECTORY_FLAGS, dir_fd=directory), name))
        while levels:
            at, own_name = levels[-1]
            if os.fstat(at).st_dev != device:
                raise OSError(18, "another file system is mounted there")
            below = _empty(at)
            if below is not None:
                levels.append((os.open(below, DIRECTORY_FLAGS, dir_fd=at), below))
                continue
            levels.pop()
            os.close(at)
            os.rmdir(own_name, dir_fd=levels[-1][0] if levels else directory)
    finally:
        for at, _ in levels:
            os.close(at)


def _empty(at: int) -> bytes | None:
    """Remove all but directories; give the name of a directory that is left."""
    below: bytes | None = None
    for text in os.listdir(at):
        entry = os.fsencode(text)
        if stat.S_ISDIR(os.lstat(entry, dir_fd=at).st_mode):
            below = entry
        else:
            with suppress(FileNotFoundError):
                os.unlink(entry, dir_fd=at)
    return below
