"""Owner, extended attributes, times and mode, in the order in which they do not undo each other."""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pra_agent.model.nodes import Node, NodeType
from pra_agent.restorer.comparing import is_ours

_REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOTSUP}
_SET_ID = 0o6000


class MetadataWriter:
    """Applies metadata and counts what the system refused: owners without root, attributes without the right.

    `owners_refused` and `attributes_refused` count files. Whatever else goes wrong is raised as OSError.
    """

    def __init__(self) -> None:
        self.owners_refused = 0
        self.attributes_refused = 0

    def apply(self, descriptor: int, node: Node, *, fresh: bool) -> None:
        """Set everything on an open file or directory; one that is not `fresh` may have attributes to take away."""
        mode = node.mode
        there = os.fstat(descriptor)
        as_it_is = fresh and not node.xattrs and stat.S_IMODE(there.st_mode) == mode
        if there.st_uid != node.uid or there.st_gid != node.gid:
            as_it_is = False
            try:
                os.fchown(descriptor, node.uid, node.gid)
            except PermissionError:
                self.owners_refused += 1
                mode &= ~_SET_ID  # those rights were meant for another owner
        if node.xattrs or not fresh:
            self._attributes(descriptor, node, fresh=fresh)
        os.utime(descriptor, ns=(node.atime, node.mtime))
        if not as_it_is:  # each change costs a journalled write, which counts with many small files
            os.fchmod(descriptor, mode)

    def apply_at(self, directory: int, name: bytes, node: Node, *, fresh: bool) -> None:
        """Set everything on what has this name, without opening or following it (a link, a pipe, a device)."""
        mode = node.mode
        try:
            os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)
        except PermissionError:
            self.owners_refused += 1
            mode &= ~_SET_ID
        if node.xattrs or not fresh:
            self._attributes(f"/proc/self/fd/{directory}/{os.fsdecode(name)}", node, fresh=fresh)
        os.utime(name, ns=(node.atime, node.mtime), dir_fd=directory, follow_symlinks=False)
        if node.type is not NodeType.SYMLINK:
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                Path(f"/proc/self/fd/{descriptor}").chmod(mode)
            finally:
                os.close(descriptor)

    def _attributes(self, where: int | str, node: Node, *, fresh: bool) -> None:
        follow = isinstance(where, int)
        refused = False
        for name, value in node.xattrs.items():
            refused |= not _tolerated(partial(os.setxattr, where, name, value, follow_symlinks=follow))
        if not fresh:
            refused |= not take_away(where, keep=node.xattrs)
        self.attributes_refused += refused


def take_away(where: int | str, *, keep: Iterable[bytes] = ()) -> bool:
    """Remove the attributes that a restore answers for, but for those to keep; tell whether that was allowed."""
    follow = isinstance(where, int)
    kept = set(keep)
    try:
        names = [os.fsencode(name) for name in os.listxattr(where, follow_symlinks=follow)]
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return True
    allowed = True
    for name in names:
        if is_ours(name) and name not in kept:
            allowed &= _tolerated(partial(os.removexattr, where, name, follow_symlinks=follow))
    return allowed


def _tolerated(act: Callable[[], None]) -> bool:
    try:
        act()
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return False
    return True
