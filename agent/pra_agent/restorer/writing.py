"""Writing single files: directly under a new name, or beside the place and renamed over what is there."""

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pra_agent.errors import RestoreError
from pra_agent.model.modes import st_mode
from pra_agent.model.nodes import NodeType
from pra_agent.restorer.metadata import MetadataWriter
from pra_agent.restorer.plan import Action, Item, Plan
from pra_agent.restorer.target import Target, remove, temporary_name

#: Runs of zeros become holes in pieces of this many bytes.
HOLE = 65_536
_ZEROS = bytes(HOLE)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = frozenset({Action.CREATE, Action.REPLACE})
#: Errors after which no other file fares better.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(slots=True)
class Tally:
    """What a writer could not do: (item, reason), and files whose owner or attributes the system refused."""

    failures: list[tuple[int, str]] = field(default_factory=lambda: list[tuple[int, str]]())
    owners_refused: int = 0
    attributes_refused: int = 0

    def add(self, answer: Mapping[str, object]) -> None:
        """Add what a child told of itself."""
        self.failures += [(index, reason) for index, reason in cast("list[tuple[int, str]]", answer["failures"])]
        self.owners_refused += cast("int", answer["owners_refused"])
        self.attributes_refused += cast("int", answer["attributes_refused"])


class FileWriter:
    """Makes the files of a plan, each in one step. Used in the restoring process and in its children.

    Failures of single files are tallied; RestoreError is raised when no other file would fare better.
    """

    def __init__(self, plan: Plan, target: Target) -> None:
        self._items: Sequence[Item] = plan.items
        self._fresh = [directory.action in _NEW for directory in plan.directories]
        self._delete = plan.request.delete
        self._sparse = plan.request.sparse
        self._root = plan.request.target
        self._own = (os.geteuid(), os.getegid())
        self.target = target
        self.metadata = MetadataWriter()
        self.failures: list[tuple[int, str]] = []

    def tally(self) -> Tally:
        """What was not done so far."""
        return Tally(self.failures, self.metadata.owners_refused, self.metadata.attributes_refused)

    def take_over(self, tally: Tally) -> None:
        """Take what children could not do for our own."""
        self.failures += tally.failures
        self.metadata.owners_refused += tally.owners_refused
        self.metadata.attributes_refused += tally.attributes_refused

    def make(self, index: int, data: bytes = b"") -> None:
        """Make one item whole: a file with all its content, or something without any."""
        item = self._items[index]
        try:
            if item.action is Action.UPDATE:
                self.update(item)
            elif item.node.type is NodeType.FILE:
                self._file(item, data)
            else:
                self._special(item)
        except OSError as error:
            self.failed(index, error)

    def failed(self, index: int, error: OSError) -> None:
        """Tally a failure; raises RestoreError when there is no use in going on."""
        stop_when_hopeless(error, self._root)
        self.failures.append((index, error.strerror or str(error)))

    def is_fresh(self, item: Item) -> bool:
        """Whether the directory of an item was made by this restore, so that nothing is inherited from it."""
        return self._fresh[item.directory]

    def create(self, item: Item, name: bytes) -> int:
        """Open a new regular file for writing.

        It has its final mode where nobody could do more with it than later (a mask that is set still counts).
        """
        node = item.node
        simple = not node.xattrs and node.mode <= 0o777 and (node.uid, node.gid) == self._own
        return os.open(name, _CREATE, node.mode if simple else 0o600, dir_fd=self.target.fd(item.directory))

    def write_at(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write into a new file, leaving holes for zeros."""
        if self._sparse and len(data) >= HOLE:
            _write_sparse(descriptor, data, offset)
        else:
            _write_all(descriptor, data, offset)

    def place(self, item: Item, name: bytes) -> None:
        """Rename what was made beside its place over what is there."""
        at = self.target.fd(item.directory)
        try:
            os.rename(name, item.node.name, src_dir_fd=at, dst_dir_fd=at)
        except IsADirectoryError:
            if not self._delete:
                raise
            remove(at, item.node.name)
            os.rename(name, item.node.name, src_dir_fd=at, dst_dir_fd=at)

    def discard(self, item: Item, name: bytes) -> None:
        """Remove what was made and is of no use."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self.target.fd(item.directory))

    def update(self, item: Item) -> None:
        """Set only the metadata of what is there."""
        at = self.target.fd(item.directory)
        if item.node.type is not NodeType.FILE:
            self.metadata.apply_at(at, item.node.name, item.node, fresh=False)
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(item.node.name, flags, dir_fd=at)
        try:
            self.metadata.apply(descriptor, item.node, fresh=False)
        finally:
            os.close(descriptor)

    def _file(self, item: Item, data: bytes) -> None:
        name = item.node.name if item.action is Action.CREATE else temporary_name()
        descriptor = self.create(item, name)
        try:
            if data:
                self.write_at(descriptor, data, 0)
                if self._sparse and len(data) >= HOLE:
                    os.ftruncate(descriptor, len(data))
            self.metadata.apply(descriptor, item.node, fresh=self._fresh[item.directory])
        except BaseException:
            self.discard(item, name)
            raise
        finally:
            os.close(descriptor)
        if name != item.node.name:
            self._place_or_discard(item, name)

    def _special(self, item: Item) -> None:
        node = item.node
        name = node.name if item.action is Action.CREATE else temporary_name()
        at = self.target.fd(item.directory)
        match node.type:
            case NodeType.SYMLINK:
                os.symlink(node.linktarget, name, dir_fd=at)
            case NodeType.FIFO:
                os.mkfifo(name, 0o600, dir_fd=at)
            case _:
                os.mknod(name, st_mode(node.type, 0o600), node.device, dir_fd=at)
        try:
            self.metadata.apply_at(at, name, node, fresh=self._fresh[item.directory])
        except BaseException:
            self.discard(item, name)
            raise
        if name != node.name:
            self._place_or_discard(item, name)

    def _place_or_discard(self, item: Item, name: bytes) -> None:
        try:
            self.place(item, name)
        except BaseException:
            self.discard(item, name)
            raise


def stop_when_hopeless(error: OSError, target: Path) -> None:
    """Raise RestoreError for a full or read-only target."""
    if error.errno in _HOPELESS:
        raise RestoreError(
            f"{target}: {error.strerror}", advice="Make room there, then run the same command again to go on."
        ) from error


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    done = os.pwrite(descriptor, data, offset)
    while done < len(data):
        done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)


def _write_sparse(descriptor: int, data: bytes, offset: int) -> None:
    """Write all but the pieces that are nothing but zeros; the file's length is the caller's business."""
    view = memoryview(data)
    start = 0
    for at in range(0, len(data), HOLE):
        if data.startswith(_ZEROS[: len(data) - at] if len(data) - at < HOLE else _ZEROS, at):
            if start < at:
                _write_all(descriptor, view[start:at], offset + start)
            start = at + HOLE
    if start < len(data):
        _write_all(descriptor, view[start:], offset + start)
