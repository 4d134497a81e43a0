"""Looking into snapshots: ls, find, diff. Reads trees only, never data."""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pra_agent.errors import DamagedError, UsageError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.restorer.selection import split
from pra_agent.restorer.walking import read_trees


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a snapshot. The path is raw and absolute."""

    path: bytes
    node: Node


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that a search found, and the snapshot that it is in."""

    snapshot: Snapshot
    path: bytes
    node: Node


class ChangeKind(StrEnum):
    """What happened to a path between two snapshots, in restic's letters."""

    ADDED = "+"
    REMOVED = "-"
    CONTENT = "M"
    TYPE = "T"
    METADATA = "U"


@dataclass(frozen=True, slots=True)
class Change:
    """A path that differs; `before` or `after` is None when it was added or removed."""

    kind: ChangeKind
    path: bytes
    before: Node | None
    after: Node | None


def find_node(reader: SnapshotReader, snapshot: Snapshot, path: bytes) -> Listed:
    """Find one entry; raises UsageError when it is not in the snapshot. The root is a directory without a name."""
    wanted = split(path)
    node = Node(b"", NodeType.DIR, subtree=snapshot.tree)
    for name in wanted.split(b"/")[1:]:
        nodes = _tree(reader, node.subtree) if node.subtree is not None else []
        found = next((each for each in nodes if each.name == name), None)
        if found is None:
            raise UsageError(
                f"{printable(wanted)} is not in snapshot {snapshot.id[:8]}", advice="See pra-agent ls for what is."
            )
        node = found
    return Listed(wanted, node)


def list_entries(
    reader: SnapshotReader, snapshot: Snapshot, path: bytes = b"", *, recursive: bool = False
) -> Iterator[Listed]:
    """Yield what is in a directory of the snapshot (all below it, when recursive), by path; a file yields itself.

    Raises UsageError when the path is not there, DamagedError when a listing cannot be read.
    """
    start = find_node(reader, snapshot, path)
    if start.node.subtree is None:
        yield start
        return
    # A stack keeps the order of the paths without recursion, however deep the tree.
    stack = _entries(reader, start)[::-1]
    while stack:
        entry = stack.pop()
        yield entry
        if recursive and entry.node.subtree is not None:
            stack += _entries(reader, entry)[::-1]


def find_entries(
    reader: SnapshotReader, snapshots: Sequence[Snapshot], patterns: Sequence[str], *, ignore_case: bool = False
) -> Iterator[Found]:
    """Yield entries whose name matches one of the shell patterns (the whole path, for a pattern with a slash)."""
    wanted = [(pattern.lower() if ignore_case else pattern, "/" in pattern) for pattern in patterns]
    for snapshot in snapshots:
        for entry in list_entries(reader, snapshot, recursive=True):
            path = os.fsdecode(entry.path)
            if ignore_case:
                path = path.lower()
            name = path.rpartition("/")[2]
            if any(fnmatch.fnmatchcase(path if whole else name, pattern) for pattern, whole in wanted):
                yield Found(snapshot, entry.path, entry.node)


def diff(reader: SnapshotReader, before: Snapshot, after: Snapshot, *, metadata: bool = False) -> Iterator[Change]:
    """Yield what differs between two snapshots, by path; directories that are one blob are not read.

    What only has other metadata is left out unless asked for.
    """
    stack: list[tuple[bytes, bytes | None, bytes | None]] = [(b"", before.tree, after.tree)]
    while stack:
        path, old, new = stack.pop()
        if old == new:
            continue
        left = {node.name: node for node in _tree(reader, old)} if old is not None else {}
        right = {node.name: node for node in _tree(reader, new)} if new is not None else {}
        below: list[tuple[bytes, bytes | None, bytes | None]] = []
        for name in sorted(left.keys() | right.keys()):
            one, other = left.get(name), right.get(name)
            here = path + b"/" + name
            kind = _compare(one, other, metadata=metadata)
            if kind is not None:
                yield Change(kind, here, one, other)
            trees = (one.subtree if one is not None else None, other.subtree if other is not None else None)
            if trees[0] != trees[1]:
                below.append((here, *trees))
        stack += reversed(below)


def _compare(before: Node | None, after: Node | None, *, metadata: bool) -> ChangeKind | None:
    if before is None:
        return ChangeKind.ADDED
    if after is None:
        return ChangeKind.REMOVED
    if before.type is not after.type:
        return ChangeKind.TYPE
    if before.content != after.content or before.linktarget != after.linktarget or before.device != after.device:
        return ChangeKind.CONTENT
    if metadata and _metadata(before) != _metadata(after):
        return ChangeKind.METADATA
    return None


def _metadata(node: Node) -> Node:
    """The node without what changes by itself."""
    return replace(node, atime=0, ctime=0, inode=0, device_id=0, subtree=None)


def _entries(reader: SnapshotReader, directory: Listed) -> list[Listed]:
    if directory.node.subtree is None:
        return []
    nodes = _tree(reader, directory.node.subtree)
    return [Listed(directory.path + b"/" + node.name, node) for node in nodes]


def _tree(reader: SnapshotReader, tree: bytes) -> list[Node]:
    for _, nodes in read_trees(reader, [tree]):
        if isinstance(nodes, DamagedError):
            raise nodes
        return sorted(nodes, key=lambda node: node.name)
    return []
