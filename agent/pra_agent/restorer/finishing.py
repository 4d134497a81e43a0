"""What comes after the files: hard links, deletions, directory metadata (it would not last earlier), one sync."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress

from pra_agent.model.nodes import Node
from pra_agent.model.printable import printable
from pra_agent.model.runs import Failure
from pra_agent.restorer.metadata import MetadataWriter
from pra_agent.restorer.plan import Action, Item, Plan
from pra_agent.restorer.target import Target, remove, temporary_name
from pra_agent.restorer.writing import FileWriter


def link_files(plan: Plan, target: Target, writer: FileWriter) -> Iterator[Failure]:
    """Make the further names of files that have several; yields what failed."""
    for item in plan.items:
        if item.link is None:
            continue
        try:
            _link(target, item, item.link, writer)
        except OSError as error:
            yield Failure(printable(plan.path(item)), error.strerror or str(error))


def _link(target: Target, item: Item, first: tuple[int, bytes], writer: FileWriter) -> None:
    name = item.node.name if item.action is Action.CREATE else temporary_name()
    source = os.dup(target.fd(first[0]))  # getting the other directory may close this one
    try:
        at = target.fd(item.directory)
        os.link(first[1], name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
    finally:
        os.close(source)
    if name != item.node.name:
        try:
            writer.place(item, name)
        finally:
            writer.discard(item, name)


def remove_extra(plan: Plan, target: Target) -> Iterator[Failure]:
    """Remove what the snapshot does not have; yields what failed."""
    for deletion in plan.deletions:
        try:
            remove(target.fd(deletion.directory), deletion.name)
        except OSError as error:
            yield Failure(printable(plan.path(deletion)), error.strerror or str(error))


def finish_directories(plan: Plan, target: Target, metadata: MetadataWriter, touched: set[int]) -> Iterator[Failure]:
    """Set the metadata of directories, children before parents; yields what failed.

    A directory that is as it should be is left alone, unless something in it was `touched`.
    """
    for index in range(len(plan.directories) - 1, 0, -1):
        directory = plan.directories[index]
        changed = directory.action is not Action.KEEP
        if changed:
            touched.add(directory.parent)
        if directory.node is None or not (changed or index in touched):
            continue
        try:
            _finish(target, index, directory.node, metadata, fresh=directory.action is not Action.UPDATE)
        except OSError as error:
            yield Failure(printable(directory.path), error.strerror or str(error))


def _finish(target: Target, index: int, node: Node, metadata: MetadataWriter, *, fresh: bool) -> None:
    metadata.apply(target.fd(index), node, fresh=fresh)


def sync(plan: Plan, target: Target) -> None:
    """Make everything durable: one syncfs for each file system that was written to."""
    syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    seen = set[int]()
    for index in sorted({0, *(item.directory for item in plan.items), *(each.directory for each in plan.deletions)}):
        with suppress(OSError):
            descriptor = target.fd(index)
            device = os.fstat(descriptor).st_dev
            if device not in seen:
                seen.add(device)
                syncfs(descriptor)
