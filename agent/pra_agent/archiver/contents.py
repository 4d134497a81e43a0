"""Content on its way: batches of small files, segments of large ones, streams. Gives nodes back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pra_agent.archiver.pool import Pool
from pra_agent.archiver.reading import SEGMENT, Chunker, FileResult, FileTask
from pra_agent.model.nodes import Node
from pra_agent.sources.source import Entry

#: A batch goes to a worker when it has so many files, or so many bytes of content or of paths.
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_BATCH_PATHS = 32 << 10
_ID = 32
#: So many pieces of a stream may be under way.
_PIECES = 4


@dataclass(frozen=True, slots=True)
class Content:
    """What came of one entry: its node, or why there is none; `changed` when it changed while it was read."""

    node: Node | None
    error: str = ""
    changed: bool = False


Done = Callable[[Content], None]


class Readable(Protocol):
    """A stream."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class _Segments:
    """A large file whose segments are read on their own."""

    missing: int
    results: list[FileResult | None]


@dataclass(slots=True)
class _Batch:
    tasks: list[FileTask] = field(default_factory=lambda: list[FileTask]())
    waiting: list[tuple[Node, Done]] = field(default_factory=lambda: list[tuple[Node, Done]]())
    size: int = 0
    paths: int = 0


class Contents:
    """Turns entries into nodes with content. `done` of each entry is called later, in any order."""

    def __init__(self, pool: Pool, chunker: Chunker, tick: Callable[[int], None]) -> None:
        self._pool = pool
        self._chunker = chunker
        self._tick = tick
        self._batch = _Batch()

    def read(self, entry: Entry, path: bytes, done: Done) -> None:
        """Have the file of an entry read."""
        node = entry.node
        dir_fd = -1 if entry.dir_fd is None else entry.dir_fd
        status = (node.size, node.mtime, node.ctime, node.inode)
        if node.size > SEGMENT:
            self._read_segments(FileTask(dir_fd, path, status), node, done)
            return
        batch = self._batch
        batch.tasks.append(FileTask(dir_fd, path, status))
        batch.waiting.append((node, done))
        batch.size += node.size
        batch.paths += len(path)
        if len(batch.tasks) >= _BATCH_FILES or batch.size >= _BATCH_BYTES or batch.paths >= _BATCH_PATHS:
            self.flush()

    def flush(self) -> None:
        """Send off what waits for a full batch."""
        batch, self._batch = self._batch, _Batch()
        if not batch.tasks:
            return

        def finish(results: list[FileResult]) -> None:
            for (node, done), result in zip(batch.waiting, results, strict=True):
                self._tick(result.size)
                done(_content(node, result))

        self._pool.read(batch.tasks, finish)

    def stream(self, entry: Entry, stream: Readable) -> Node:
        """Read a stream to its end; the node's size is what was read."""
        ids: dict[int, bytes] = {}
        total = count = 0
        for count, chunk in enumerate(self._chunker.chunks(stream.read), 1):
            self._pool.seal(chunk, _Keep(ids, count))
            total += len(chunk)
            self._tick(len(chunk))
        self._pool.drain()
        return replace(entry.node, content=tuple(ids[number] for number in range(1, count + 1)), size=total)

    def _read_segments(self, whole: FileTask, node: Node, done: Done) -> None:
        starts = range(0, node.size, SEGMENT)
        segments = _Segments(len(starts), [None] * len(starts))
        for number, start in enumerate(starts):
            last = number == len(starts) - 1
            task = whole._replace(offset=start, length=min(SEGMENT, node.size - start), last=last)

            def finish(results: list[FileResult], number: int = number) -> None:
                segments.results[number] = results[0]
                segments.missing -= 1
                self._tick(results[0].size)
                if not segments.missing:
                    done(_content(node, _joined([each for each in segments.results if each is not None])))

            self._pool.read([task], finish)


class _Keep:
    """Keeps the id of one piece of a stream in its place."""

    def __init__(self, ids: dict[int, bytes], number: int) -> None:
        self._ids = ids
        self._number = number

    def __call__(self, blob: bytes) -> None:
        self._ids[self._number] = blob


def _joined(results: Sequence[FileResult]) -> FileResult:
    """Make one result of those of all segments: the file must have been the same for each."""
    broken = next((each for each in results if each.error), None)
    if broken is not None:
        return broken
    statuses = {each.status for each in results}
    return FileResult(
        b"".join(each.content for each in results),
        sum(each.size for each in results),
        results[-1].xattrs,
        results[-1].status,
        any(each.changed for each in results) or len(statuses) > 1,
    )


def _content(node: Node, result: FileResult) -> Content:
    if result.error:
        return Content(None, result.error)
    joined = result.content
    ids = (joined,) if len(joined) == _ID else tuple(joined[at : at + _ID] for at in range(0, len(joined), _ID))
    if result.status is not None:
        node = _as_read(node, result.status)
    return Content(filled(node, ids, result.size, result.xattrs or node.xattrs), changed=result.changed)


def _as_read(node: Node, status: tuple[int, ...]) -> Node:
    """Take the status that the file had when it was read for that which the walk saw."""
    _size, mtime, ctime, inode, mode, uid, gid, links, device = status
    return replace(
        node,
        mtime=mtime,
        atime=mtime,
        ctime=ctime,
        inode=inode,
        mode=mode,
        uid=uid,
        gid=gid,
        user=node.user if uid == node.uid else "",
        group=node.group if gid == node.gid else "",
        links=links,
        device_id=device if links > 1 else 0,
    )


def filled(node: Node, content: Sequence[bytes], size: int, xattrs: Mapping[bytes, bytes]) -> Node:
    """Give a file's node its content (`dataclasses.replace`, at a fifth of its price)."""
    return Node(
        node.name,
        node.type,
        node.mode,
        node.mtime,
        node.atime,
        node.ctime,
        node.uid,
        node.gid,
        node.user,
        node.group,
        node.inode,
        node.device_id,
        size,
        node.links,
        node.linktarget,
        xattrs,
        node.device,
        content,
        node.subtree,
        node.error,
        node.extra,
    )


def reused(node: Node, before: Node) -> Node:
    """Make the node of an unchanged file: content and extended attributes are those of the parent snapshot's node.

    That very node, when nothing else differs either.
    """
    if (
        node.mtime == before.mtime
        and node.mode == before.mode
        and node.uid == before.uid
        and node.gid == before.gid
        and node.user == before.user
        and node.group == before.group
        and node.links == before.links
        and node.inode == before.inode
        and node.device_id == before.device_id
        and node.ctime == before.ctime
        and node.atime == before.atime
        and not before.error
        and not before.extra
    ):
        return before
    return filled(node, before.content or (), before.size, before.xattrs)
