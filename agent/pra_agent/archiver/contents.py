"""Content on its way: batches of small files, segments of large ones, streams. Gives nodes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pra_agent.archiver.pool import Pool
from pra_agent.archiver.reading import SEGMENT, Chunker, FileResult, FileTask
from pra_agent.archiver.trees import Directory
from pra_agent.archiver.values import Stats
from pra_agent.model.nodes import Node
from pra_agent.sources.source import Entry

#: A batch goes to a worker when it has so many files, or so many bytes of content or of paths.
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20
_BATCH_PATHS = 32 << 10
_ID = 32
#: So many pieces of a stream may be under way.
_PIECES = 4


class Readable(Protocol):
    """A stream."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Ticket:
    """A file on its way: its entry, where its node goes, and its node in the parent snapshot."""

    entry: Entry
    directory: Directory
    before: Node | None


class Taker(Protocol):
    """Takes what became of a file: its node, or why there is none; `changed` when it changed while it was read."""

    def __call__(self, ticket: Ticket, node: Node | None, error: str = "", *, changed: bool = False) -> None: ...


@dataclass(slots=True)
class _Segments:
    """A large file whose segments are read on their own."""

    missing: int
    results: list[FileResult | None]


@dataclass(slots=True)
class _Batch:
    tasks: list[FileTask] = field(default_factory=lambda: list[FileTask]())
    tickets: list[Ticket] = field(default_factory=lambda: list[Ticket]())
    size: int = 0
    paths: int = 0


class Contents:
    """Turns entries into nodes with content. `take` is called for each file, later and in any order."""

    def __init__(self, pool: Pool, chunker: Chunker, take: Taker, stats: Stats) -> None:
        self._pool = pool
        self._chunker = chunker
        self._take = take
        self._stats = stats
        self._batch = _Batch()

    def read(self, ticket: Ticket, path: bytes) -> None:
        """Have the file of an entry read."""
        entry, batch = ticket.entry, self._batch
        node, dir_fd = entry.node, entry.dir_fd
        task = (-1 if dir_fd is None else dir_fd, path, (node.size, node.mtime, node.ctime, node.inode), 0, 0, True)
        if node.size > SEGMENT:
            self._read_segments(task, ticket)
            return
        batch.tasks.append(task)
        batch.tickets.append(ticket)
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
            for ticket, result in zip(batch.tickets, results, strict=True):
                content, size, xattrs, status, changed, error = result
                if error or changed or status is not None:
                    self._unusual(ticket, result)
                    continue
                self._stats.bytes_read += size
                self._take(ticket, filled(ticket.entry.node, _ids(content), size, xattrs))

        self._pool.read(batch.tasks, batch.size + 50_000 * len(batch.tasks), finish)

    def stream(self, entry: Entry, stream: Readable) -> Node:
        """Read a stream to its end; the node's size is what was read."""
        ids: dict[int, bytes] = {}
        total = count = 0
        for count, chunk in enumerate(self._chunker.chunks(stream.read), 1):
            self._pool.seal(chunk, _Keep(ids, count))
            total += len(chunk)
            self._stats.bytes_read += len(chunk)
        self._pool.drain()
        return replace(entry.node, content=tuple(ids[number] for number in range(1, count + 1)), size=total)

    def _read_segments(self, whole: FileTask, ticket: Ticket) -> None:
        dir_fd, path, status, *_ = whole
        size = status[0]
        starts = range(0, size, SEGMENT)
        segments = _Segments(len(starts), [None] * len(starts))
        for number, start in enumerate(starts):
            length = min(SEGMENT, size - start)

            def finish(results: list[FileResult], number: int = number) -> None:
                segments.results[number] = results[0]
                segments.missing -= 1
                if not segments.missing:
                    self._unusual(ticket, _joined([each for each in segments.results if each is not None]))

            self._pool.read([(dir_fd, path, status, start, length, number == len(starts) - 1)], length, finish)

    def _unusual(self, ticket: Ticket, result: FileResult) -> None:
        """Take a file that could not be read, or is no longer what the walk saw."""
        content, size, xattrs, status, changed, error = result
        self._stats.bytes_read += size
        if error:
            self._take(ticket, None, error)
            return
        node = ticket.entry.node
        if status is not None:
            node = _as_read(node, status)
        self._take(ticket, filled(node, _ids(content), size, xattrs), changed=changed)


class _Keep:
    """Keeps the id of one piece of a stream in its place."""

    def __init__(self, ids: dict[int, bytes], number: int) -> None:
        self._ids = ids
        self._number = number

    def __call__(self, blob: bytes) -> None:
        self._ids[self._number] = blob


def _joined(results: Sequence[FileResult]) -> FileResult:
    """Make one result of those of all segments: the file must have been the same for each."""
    error = next((each[5] for each in results if each[5]), "")
    statuses = {each[3] for each in results}
    return (
        b"".join(each[0] for each in results),
        sum(each[1] for each in results),
        results[0][2],
        results[0][3],
        any(each[4] for each in results) or len(statuses) > 1,
        error,
    )


def _ids(joined: bytes) -> Sequence[bytes]:
    if len(joined) <= _ID:
        return (joined,) if joined else ()
    return tuple(joined[at : at + _ID] for at in range(0, len(joined), _ID))


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
