"""From lost blobs to what they hit: the paths of each snapshot that need one of them."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

from pra_agent.errors import DamagedError, Interrupted
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node
from pra_agent.model.printable import printable
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.check_report import Hit
from pra_agent.repository.repository import Repository

#: So many paths of a snapshot are named.
NAMED_PATHS = 50


@dataclass(slots=True)
class _Frame:
    """A directory on the way down: what of it is still to be looked at, and whether something below is hit."""

    tree: bytes
    path: bytes
    nodes: Iterator[Node]
    hit: bool = field(default=False)


class Tracer:
    """Looks into each tree that has nothing lost in it or below it once, whatever the number of snapshots."""

    def __init__(self, repository: Repository, lost: Container[BlobHandle], stop: Event | None = None) -> None:
        self._repository = repository
        self._lost = lost
        self._stop = stop
        self._whole: set[bytes] = set()

    def hits(self, snapshots: Sequence[Snapshot]) -> list[Hit]:
        """The snapshots that are hit, in the order given."""
        found: list[Hit] = []
        for snapshot in snapshots:
            paths: list[str] = []
            count = 0
            for path, _ in self.trace(snapshot.tree):
                count += 1
                if len(paths) < NAMED_PATHS:
                    paths.append(printable(path))
            if count:
                found.append(Hit(snapshot.id, snapshot.job, snapshot.time, paths, count))
        return found

    def trace(self, root: bytes) -> Iterator[tuple[bytes, Node | None]]:
        """Yield the raw path of each file that lacks content, and of each directory whose tree is lost (node None)."""
        stack = self._enter(root, b"")
        if stack is None:
            yield b"/", None
            return
        frames = [stack]
        while frames:
            frame = frames[-1]
            node = next(frame.nodes, None)
            if node is None:
                frames.pop()
                if not frame.hit:
                    self._whole.add(frame.tree)
                elif frames:
                    frames[-1].hit = True
                continue
            path = frame.path + b"/" + node.name
            if any(BlobHandle(BlobType.DATA, blob) in self._lost for blob in node.content or ()):
                frame.hit = True
                yield path, node
            if node.subtree is None or node.subtree in self._whole:
                continue
            deeper = self._enter(node.subtree, path)
            if deeper is None:
                frame.hit = True
                yield path, None
            else:
                frames.append(deeper)

    def _enter(self, tree: bytes, path: bytes) -> _Frame | None:
        if self._stop is not None and self._stop.is_set():
            raise Interrupted("stopped while the damage was traced to paths")
        if BlobHandle(BlobType.TREE, tree) in self._lost:
            return None
        try:
            return _Frame(tree, path, iter(self._repository.read_tree(tree)))
        except DamagedError:
            return None
