"""Files of several blobs, written at their offsets as the blobs arrive, in whatever order, with few files open."""

import os
from collections import OrderedDict
from dataclasses import dataclass

from pra_agent.restorer.plan import Action, Item
from pra_agent.restorer.target import temporary_name
from pra_agent.restorer.writing import FileWriter

_OPEN_FILES = 64


@dataclass(slots=True)
class _Growing:
    """A file that is being written, under `name`; `inode` proves that it is still ours when it is opened again."""

    index: int
    item: Item
    name: bytes
    inode: tuple[int, int]
    remaining: int


class Assembler:
    """Writes blobs into files; each file is finished (metadata, its final name) with its last blob.

    Failures are tallied by the writer; a file that failed is removed and further blobs of it are ignored.
    """

    def __init__(self, writer: FileWriter) -> None:
        self._writer = writer
        self._files: dict[int, _Growing] = {}
        self._open: OrderedDict[int, int] = OrderedDict()
        #: How many files are complete.
        self.finished = 0

    def begin(self, index: int, item: Item, size: int, blobs: int) -> None:
        """Create a file of so many bytes, that so many blobs will be written to."""
        name = item.node.name if item.action is Action.CREATE else temporary_name()
        try:
            descriptor = self._writer.create(item, name)
        except OSError as error:
            self._writer.failed(index, error)
            return
        status = os.fstat(descriptor)
        self._files[index] = _Growing(index, item, name, (status.st_dev, status.st_ino), blobs)
        self._keep(index, descriptor)
        try:
            os.ftruncate(descriptor, size)
        except OSError as error:
            self.fail(index, error)

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Write one blob to its place."""
        growing = self._files.get(index)
        if growing is None:
            return
        try:
            descriptor = self._descriptor(growing)
            self._writer.write_at(descriptor, data, offset)
            growing.remaining -= 1
            if not growing.remaining:
                self._finish(growing, descriptor)
        except OSError as error:
            self.fail(index, error)

    def fail(self, index: int, error: OSError) -> None:
        """Give a file up."""
        growing = self._files.pop(index, None)
        if growing is not None:
            self._close(index)
            self._writer.discard(growing.item, growing.name)
            self._writer.failed(index, error)

    def abandon(self) -> None:
        """Close everything, and remove what was to replace something: under a final name a next restore goes on."""
        for growing in self._files.values():
            if growing.name != growing.item.node.name:
                self._writer.discard(growing.item, growing.name)
        self._files.clear()
        for index in list(self._open):
            self._close(index)

    def _finish(self, growing: _Growing, descriptor: int) -> None:
        item = growing.item
        self._writer.metadata.apply(descriptor, item.node, fresh=self._writer.is_fresh(item))
        if growing.name != item.node.name:
            self._writer.place(item, growing.name)
        self._close(growing.index)
        del self._files[growing.index]
        self.finished += 1

    def _descriptor(self, growing: _Growing) -> int:
        found = self._open.get(growing.index)
        if found is not None:
            self._open.move_to_end(growing.index)
            return found
        at = self._writer.target.fd(growing.item.directory)
        descriptor = os.open(growing.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != growing.inode:
            os.close(descriptor)
            raise OSError(116, "another file took its place while it was written")
        self._keep(growing.index, descriptor)
        return descriptor

    def _keep(self, index: int, descriptor: int) -> None:
        self._open[index] = descriptor
        if len(self._open) > _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])

    def _close(self, index: int) -> None:
        descriptor = self._open.pop(index, None)
        if descriptor is not None:
            os.close(descriptor)
