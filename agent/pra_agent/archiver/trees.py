"""Trees bottom-up: a directory is stored when it was left and everything in it is done.

Only the directories on the way to the current entry, and those that wait for content, are in memory.
"""

import hashlib
import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Literal, Protocol

from pra_agent.archiver.memory import Memory
from pra_agent.archiver.values import Stats
from pra_agent.errors import DamagedError, SourceError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.trees import encode_tree

_BY_NAME = attrgetter("name")
_NOTHING: Mapping[bytes, Node] = {}


class TreeStore(Protocol):
    """Where trees are read and stored."""

    def read_tree(self, tree: bytes) -> Sequence[Node]:
        """Read a tree of the parent snapshot. Raises DamagedError."""
        ...

    def has_tree(self, tree: bytes) -> bool:
        """Whether a tree is stored."""
        ...

    def add_tree(self, data: bytes) -> bytes:
        """Store a tree, unless it is; its id."""
        ...


class Directory:
    """A directory that is being filled. `path` is b"" for the root; `node` is None when it was made up."""

    __slots__ = (
        *("_previous", "_store", "_tree", "base", "broken", "children", "closed", "digest"),
        *("name", "node", "path", "pending", "same", "up"),
    )

    def __init__(self, path: bytes, up: "Directory | None", node: Node | None, store: TreeStore) -> None:
        self.path = path
        self.name = path.rpartition(b"/")[2]
        self.up = up
        self.node = node
        self._store = store
        self._tree: bytes | Literal[False] | None = False
        #: The digest of its files, if the source gave one; and a stored tree that has exactly these files.
        self.digest: bytes | None = None
        self.base: bytes | None = None
        #: Whether something that was met in it is not in the snapshot as it is.
        self.broken = False
        self.children: list[Node] = []
        #: What is in it and not done: files under way and directories that were not left.
        self.pending = 0
        self.closed = False
        #: How many children are the very nodes of the parent snapshot.
        self.same = 0
        self._previous: Mapping[bytes, Node] | None = None

    @property
    def tree(self) -> bytes | None:
        """The tree of the same directory in the parent snapshot, None without one."""
        if self._tree is False:
            before = self.up.previous.get(self.name) if self.up is not None else None
            self._tree = before.subtree if before is not None else None
        return self._tree

    @tree.setter
    def tree(self, tree: bytes | None) -> None:
        self._tree = tree

    @property
    def previous(self) -> Mapping[bytes, Node]:
        """The nodes of the same directory in the parent snapshot; a tree that cannot be read is like none."""
        if self._previous is None:
            self._previous = _NOTHING
            if self.tree is not None:
                try:
                    self._previous = {node.name: node for node in self._store.read_tree(self.tree)}
                except DamagedError:
                    self.tree = None
        return self._previous

    def add(self, node: Node) -> None:
        """Take a finished child."""
        self.children.append(node)
        if self.base is None and (previous := self.previous):
            before = previous.get(node.name)
            if before is node or before == node:
                self.same += 1

    def unchanged(self) -> bool:
        """Whether it has the same children as in the parent snapshot."""
        return self.tree is not None and self.same == len(self.children) == len(self.previous)

    def forget(self) -> None:
        """Free what only a directory in work needs."""
        self._previous = _NOTHING
        self.children = []


class TreeBuilder:
    """Builds all trees of a snapshot. `made_up` makes the node of a directory that the source did not yield."""

    def __init__(
        self,
        store: TreeStore,
        memory: Memory,
        parent: bytes | None,
        stats: Stats,
        made_up: Callable[[bytes, Node | None], Node],
    ) -> None:
        self._store = store
        self._memory = memory
        self._stats = stats
        self._made_up = made_up
        self._root = Directory(b"", None, None, store)
        self._root.tree = parent
        self._current = self._root
        #: Made-up directories stay open to the end: a source may come back to them.
        self._open: dict[bytes, Directory] = {}
        self._tree: bytes | None = None

    def directory(self, path: bytes) -> Directory:
        """Open the directory of that path and make it the current one; those that are left are closed."""
        current = self._current
        if current.path == path:
            return current
        while current.up is not None and not path.startswith(current.path + b"/") and path != current.path:
            self._leave(current)
            current = current.up
        for name in path[len(current.path) + 1 :].split(b"/") if path != current.path else ():
            here = current.path + b"/" + name
            found = self._open.get(here)
            if found is None:
                found = self._open[here] = self._enter(here, current, None)
            current = found
        self._current = current
        return current

    def add_directory(self, path: bytes, node: Node) -> None:
        """Take a directory that the source yields; the root's own metadata has no place in a snapshot."""
        if not path.strip(b"/"):
            return
        parent_path = path.rpartition(b"/")[0]
        found = self._open.pop(path, None)
        if found is not None:
            found.node = node
            return
        parent = self.directory(parent_path)
        self._current = self._enter(path, parent, node)

    def done(self, directory: Directory, node: Node) -> None:
        """Take a file that was under way (`directory.pending` counted it)."""
        directory.add(node)
        self._settle(directory)

    def failed(self, directory: Directory) -> None:
        """A file that was under way is not in the snapshot."""
        self._settle(directory)

    def finish(self) -> bytes:
        """Close everything; the id of the root tree. Nothing may be under way."""
        self.directory(b"")
        for path in sorted(self._open, reverse=True):
            self._close(self._open[path])
        self._open.clear()
        self._close(self._root)
        if self._tree is None:
            raise AssertionError("something is still under way")
        return self._tree

    # ---------------------------------------------------------------- inside
    def _enter(self, path: bytes, parent: Directory, node: Node | None) -> Directory:
        parent.pending += 1
        return Directory(path, parent, node, self._store)

    def _leave(self, directory: Directory) -> None:
        """Close a directory that the walk has left, unless it was made up."""
        if directory.path in self._open:
            return
        prefix = directory.path + b"/"
        for path in sorted((path for path in self._open if path.startswith(prefix)), reverse=True):
            self._close(self._open.pop(path))
        self._close(directory)

    def _close(self, directory: Directory) -> None:
        directory.closed = True
        if directory.pending == 0:
            self._store_tree(directory)

    def _settle(self, directory: Directory) -> None:
        directory.pending -= 1
        if directory.closed and directory.pending == 0:
            self._store_tree(directory)

    def _store_tree(self, directory: Directory | None) -> None:
        """Store a directory, and then those above it that waited for nothing else."""
        while directory is not None:
            tree = self._encode(directory)
            up = directory.up
            if up is None:
                self._tree = tree
                return
            name = directory.name
            node = directory.node or self._made_up(name, up.previous.get(name))
            up.add(replace(node, name=name, subtree=tree))
            directory.forget()
            up.pending -= 1
            directory = up if up.closed and up.pending == 0 else None

    def _encode(self, directory: Directory) -> bytes:
        """Store a directory's tree, unless it is known to be stored; its id."""
        files, broken = directory.digest, directory.broken
        whole = b"" if files is None else _whole_digest(files, directory)
        tree = self._memory.whole_tree(whole) if whole and not broken else None
        if tree is not None and self._store.has_tree(tree):
            self._stats.dirs_unmodified += 1
        else:
            tree = self._encode_children(directory)
        if files is not None and not broken:
            self._memory.remember(files, whole, tree)
        return tree

    def _encode_children(self, directory: Directory) -> bytes:
        children, before = directory.children, directory.tree
        if directory.base is not None:
            children += [node for node in self._store.read_tree(directory.base) if node.type is not NodeType.DIR]
        elif before is not None and directory.unchanged() and self._store.has_tree(before):
            self._stats.dirs_unmodified += 1
            return before
        children.sort(key=_BY_NAME)
        try:
            tree = self._store.add_tree(encode_tree(children))
        except ValueError as error:
            raise SourceError(
                f"the source gave a name twice in {printable(directory.path or b'/')}: {error}"
            ) from error
        if before is None:
            self._stats.dirs_new += 1
        elif before == tree:
            self._stats.dirs_unmodified += 1
        else:
            self._stats.dirs_changed += 1
        return tree


def _whole_digest(files: bytes, directory: Directory) -> bytes:
    """Make the digest of a directory: that of its files, and its directories' nodes."""
    state = hashlib.blake2b(files, digest_size=len(files))
    for node in sorted((node for node in directory.children if node.type is NodeType.DIR), key=_BY_NAME):
        xattrs = sorted(node.xattrs.items())
        times = (node.mtime, node.ctime, node.inode)
        row = (node.name, node.mode, times, node.uid, node.gid, node.user, node.group, xattrs, node.subtree)
        state.update(marshal.dumps(row, 2))
    return state.digest()


def made_up_node(name: bytes, before: Node | None) -> Node:
    """Make the node of a directory that no source yielded: as it was in the parent snapshot, else root's, 0755."""
    if before is not None and before.type is NodeType.DIR:
        return before
    return Node(name, NodeType.DIR, 0o755)
