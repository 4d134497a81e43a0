"""Trees without what is lost: files that lack content and directories whose listing is gone are left out."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node
from pra_agent.model.trees import encode_tree, is_component
from pra_agent.repository.repository import BlobWriter, Repository


@dataclass(slots=True)
class _Frame:
    """A directory that is being rewritten: its nodes still to come, those that stay, and the name it has above."""

    tree: bytes
    name: bytes
    rest: list[Node]
    kept: list[Node] = field(default_factory=lambda: list[Node]())
    changed: bool = False


class TreeRewriter:
    """Rewrites trees; one that is whole keeps its id, and each is looked at once."""

    def __init__(self, repository: Repository, writer: BlobWriter, lost: Container[BlobHandle]) -> None:
        self._repository = repository
        self._writer = writer
        self._lost = lost
        self._done: dict[bytes, bytes | None] = {}

    def rewrite(self, root: bytes) -> bytes | None:
        """Give the id of the tree without what is lost; None when the tree itself is lost."""
        first = self._enter(root, b"")
        if first is None:
            return None
        frames = [first]
        while True:
            frame = frames[-1]
            if not frame.rest:
                frames.pop()
                new = self._finish(frame)
                if not frames:
                    return new
                self._take(frames[-1], new)
                continue
            node = frame.rest[-1]
            if any(BlobHandle(BlobType.DATA, blob) in self._lost for blob in node.content or ()):
                frame.rest.pop()
                frame.changed = True
            elif node.subtree is None:
                frame.kept.append(frame.rest.pop())
            elif node.subtree in self._done:
                self._take(frame, self._done[node.subtree])
            elif (deeper := self._enter(node.subtree, node.name)) is None:
                self._take(frame, None)
            else:
                frames.append(deeper)

    def _enter(self, tree: bytes, name: bytes) -> _Frame | None:
        self._done[tree] = None
        if BlobHandle(BlobType.TREE, tree) in self._lost:
            return None
        try:
            nodes = self._repository.read_tree(tree)
        except DamagedError:
            return None
        return _Frame(tree, name, nodes[::-1])

    def _take(self, frame: _Frame, subtree: bytes | None) -> None:
        """The directory that is next in a frame has become `subtree`, or is lost."""
        node = frame.rest.pop()
        if subtree is None:
            frame.changed = True
            return
        frame.changed |= subtree != node.subtree
        frame.kept.append(_with_subtree(node, subtree))

    def _finish(self, frame: _Frame) -> bytes:
        new = frame.tree
        if frame.changed:
            new = self._writer.add(BlobType.TREE, encode_tree(_in_order(frame.kept)))
        self._done[frame.tree] = new
        return new


def _in_order(nodes: Iterable[Node]) -> list[Node]:
    """Nodes that an encoder takes: in order, each name once, no name that leads elsewhere."""
    by_name = {node.name: node for node in nodes if is_component(node.name)}
    return [by_name[name] for name in sorted(by_name)]


def _with_subtree(node: Node, subtree: bytes) -> Node:
    return node if node.subtree == subtree else replace(node, subtree=subtree)
