"""From a capture to a root tree: reuse what did not change, have the rest read, build the trees."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from pra_agent.archiver.contents import Contents, Ticket, filled, reused
from pra_agent.archiver.pool import Pool
from pra_agent.archiver.stores import BlobStore
from pra_agent.archiver.trees import Directory, TreeBuilder, made_up_node
from pra_agent.archiver.values import NAMED_FAILURES, Archived, Options, Stats
from pra_agent.clock import Clock
from pra_agent.kernel import trim_memory
from pra_agent.model.events import FileFailed, Progress, Reporter
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.runs import Failure
from pra_agent.repository.repository import BlobWriter, Repository
from pra_agent.sources.source import KEY_LINK, Capture, Entry, Listing, Missed, unchanged

_REPORT_SECONDS = 0.25
_REPORT_ENTRIES = 64


def archive(repository: Repository, writer: BlobWriter, capture: Capture, options: Options | None = None) -> Archived:
    """Store all that a capture yields; files that cannot be read are named, and never stop the run.

    Raises what the source raises, `Interrupted` when `options.stop` is set, and `PraError` when a worker dies.
    Whatever ends it early also sets `stop`, so that nobody who feeds the capture waits for ever.
    """
    options = options or Options()
    store = BlobStore(repository, writer)
    try:
        with _little_collecting(), Pool(store, store.put, options.limits, options.stop) as pool:
            run = _Archiving(store, pool, options, _Teller(options.report, options.clock, writer))
            tree = run.take(capture)
            return Archived(tree, run.stats, run.failures, pool.sample.picked)
    except BaseException:
        options.stop.set()
        raise
    finally:
        trim_memory()


@contextmanager
def _little_collecting() -> Generator[None]:
    """Have Python look for cycles of garbage less often: an archiving makes many objects, and no cycles.

    What is there already is not looked at, so that the workers' copies of it stay shared.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class _Teller:
    """Tells the progress, now and then."""

    def __init__(self, report: Reporter, clock: Clock, writer: BlobWriter) -> None:
        self.report = report
        self._clock = clock
        self._writer = writer
        self._next = 0.0

    def tell(self, stats: Stats, current: bytes, *, now: bool = False) -> None:
        """Tell how far it is, unless that was told a moment ago."""
        moment = self._clock.monotonic()
        if moment < self._next and not now:
            return
        self._next = moment + _REPORT_SECONDS
        self.report(
            Progress(
                "archive",
                files_done=stats.files,
                bytes_done=stats.bytes,
                bytes_stored=self._writer.stats.bytes_stored,
                current=printable(current),
            )
        )


class _Archiving:
    """One archiving."""

    def __init__(self, store: BlobStore, pool: Pool, options: Options, teller: _Teller) -> None:
        self.stats = Stats()
        self.failures: list[Failure] = []
        self._store = store
        self._pool = pool
        self._full = options.full
        self._teller = teller
        self._contents = Contents(pool, store.chunker, self._finish, self.stats)
        parent = options.parent.tree if options.parent else None
        self._memory = options.memory
        self._trees = TreeBuilder(store, options.memory, parent, self.stats, made_up_node)

    def take(self, capture: Capture) -> bytes:
        """Take all entries; the id of the root tree."""
        for item in capture.entries():
            self._pool.stop_if_asked()
            if isinstance(item, Missed):
                self._failed(item.path, item.reason)
                continue
            if isinstance(item, Listing):
                self._take_listing(item)
            else:
                self._take(item)
            self._teller.tell(self.stats, item.path)
        self._contents.flush()
        self._pool.drain()
        tree = self._trees.finish()
        self._teller.tell(self.stats, b"", now=True)
        return tree

    def _take_listing(self, listing: Listing) -> None:
        """Take the files of a directory: as they were, if the last run saw the same, else one by one."""
        directory = self._trees.directory(listing.path.rstrip(b"/"))
        directory.digest = listing.digest
        known = None if self._full else self._memory.files_tree(listing.digest)
        if known is not None and self._store.has_tree(known):
            directory.base = known
            self.stats.files_unmodified += listing.files
            self.stats.bytes += listing.size
            self.stats.others += listing.others
            return
        for number, item in enumerate(listing.entries()):
            if not number % _REPORT_ENTRIES:
                self._pool.stop_if_asked()
                self._teller.tell(self.stats, listing.path)
            if isinstance(item, Missed):
                self._failed(item.path, item.reason)
                directory.broken = True
            else:
                self._take_in(item, directory, item.node.name)

    def _take(self, entry: Entry) -> None:
        node = entry.node
        if node.type is NodeType.DIR:
            self._trees.add_directory(entry.path, node)
            return
        up, _, name = entry.path.rpartition(b"/")
        self._take_in(entry, self._trees.directory(up), name)

    def _take_in(self, entry: Entry, directory: Directory, name: bytes) -> None:
        """Take what is no directory."""
        if entry.stream is not None:
            with entry.stream() as stream:
                whole = self._contents.stream(entry, _Watched(stream, self._pool))
            self._stored(directory, directory.previous.get(name), whole)
            return
        if entry.node.type is not NodeType.FILE:
            self.stats.others += 1
            directory.add(entry.node)
            return
        before = directory.previous.get(name)
        if before is not None and not self._full:
            reused = self._reuse(entry, before)
            if reused is not None:
                self.stats.files_unmodified += 1
                self.stats.bytes += reused.size
                directory.add(reused)
                return
        directory.pending += 1
        ticket = Ticket(entry, directory, before)
        if entry.file is None:
            self._finish(ticket, filled(entry.node, (), 0, entry.node.xattrs))
        else:
            self._contents.read(ticket, entry.file)

    def _reuse(self, entry: Entry, before: Node) -> Node | None:
        """Make the node of an unchanged file from that of the parent snapshot; None when it must be read."""
        content = before.content
        if content is None or before.type is not NodeType.FILE or not unchanged(entry, before):
            return None
        if not all(map(self._store.known, content)):
            return None
        node = entry.node
        if entry.change_key == KEY_LINK:
            # Links come and go: what moves with their number alone is no change of the file.
            node = replace(node, ctime=before.ctime, links=before.links, device_id=before.device_id)
        return reused(node, before)

    def _finish(self, ticket: Ticket, node: Node | None, error: str = "", *, changed: bool = False) -> None:
        """Take what became of a file."""
        directory = ticket.directory
        if node is None or changed:
            directory.broken = True
            why = error or "it changed while it was read; it is stored as it was read"
            self._failed(printable(ticket.entry.path), why)
        if node is None:
            self._trees.failed(directory)
            return
        self._count(ticket.before, node)
        self._trees.done(directory, node)

    def _stored(self, directory: Directory, before: Node | None, node: Node) -> None:
        self._count(before, node)
        directory.add(node)

    def _count(self, before: Node | None, node: Node) -> None:
        self.stats.bytes += node.size
        if before is None or before.content is None:
            self.stats.files_new += 1
        elif tuple(before.content) == node.content:
            self.stats.files_unmodified += 1
        else:
            self.stats.files_changed += 1

    def _failed(self, path: str, reason: str) -> None:
        self.stats.files_failed += 1
        if len(self.failures) < NAMED_FAILURES:
            self.failures.append(Failure(path, reason))
        self._teller.report(FileFailed(path, reason))


class _Watched:
    """A stream that ends with `Interrupted` when the run is to stop."""

    def __init__(self, stream: BinaryIO, pool: Pool) -> None:
        self._stream = stream
        self._pool = pool

    def read(self, size: int) -> bytes:
        self._pool.stop_if_asked()
        return self._stream.read(size)
