"""Copy: snapshots go to a second repository with its own key; only what is not there yet is read and sealed anew.

Blobs stay compressed on the way, and each is proven against its id. A snapshot is written at the destination when all
that it needs is durable and indexed there; what a killed copy had brought over is found by the next one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event

import orjson

from pra_agent.errors import DamagedError, Interrupted, NotFound, RefusedError
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.check_trees import read_trees, references
from pra_agent.repository.codec import content_id
from pra_agent.repository.pack import PackEntry, SealedBlob
from pra_agent.repository.prune_usage import Usage
from pra_agent.repository.repository import BlobWriter, Repository

_TREES = 512
#: Snapshots are written when so many bytes have been brought over since the last were, so that packs get full.
_SAVE_EVERY = 128 << 20


@dataclass(slots=True)
class Copied:
    """What a copy did; `snapshots` maps the source's ids to the destination's. Sizes in bytes as stored.

    `failed` are snapshots that the source cannot give as a whole, and why.
    """

    snapshots: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    failed: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    blobs: int = 0
    bytes_added: int = 0
    bytes_stored: int = 0


def origin(snapshot: Snapshot) -> str:
    """What a snapshot and its copies have in common: the id under which it was first written."""
    return snapshot.original or snapshot.id


def missing(source: Iterable[Snapshot], destination: Iterable[Snapshot]) -> list[Snapshot]:
    """The snapshots of the source that have no copy at the destination, in the order given."""
    there = {origin(snapshot) for snapshot in destination}
    return [snapshot for snapshot in source if origin(snapshot) not in there]


def copy(
    source: Repository,
    destination: Repository,
    snapshots: Sequence[Snapshot],
    *,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> Copied:
    """Copy snapshots, in the order given (the oldest first is best). Both must be locked, with their indexes loaded.

    A snapshot of which the source has lost something is left out and told in `failed`. `Interrupted` when `stop` is
    set.
    """
    if source.id == destination.id:
        raise RefusedError("source and destination are the same repository", advice="Give the copy a place of its own.")
    return _Copy(source, destination, report, stop or Event()).run(snapshots)


class _Copy:
    def __init__(self, source: Repository, destination: Repository, report: Reporter, stop: Event) -> None:
        self._source = source
        self._destination = destination
        self._report = report
        self._stop = stop
        self._visited = Usage(source.index)
        self._known: dict[str, Snapshot] = {origin(snapshot): snapshot for snapshot in destination.snapshots()}
        self._complete: dict[tuple[str, str], bytes] = {}
        self.result = Copied()

    def run(self, snapshots: Sequence[Snapshot]) -> Copied:
        for snapshot in self._source.snapshots():
            there = self._known.get(origin(snapshot))
            # One that was repaired at the destination has another tree, and is not complete.
            if there is not None and there.tree == snapshot.tree:
                self._complete[snapshot.hostname, snapshot.job] = snapshot.tree
        waiting: list[Snapshot] = []
        saved = 0
        with self._destination.writer() as writer:
            for number, snapshot in enumerate(snapshots):
                self._report(Progress("copy", number, len(snapshots), bytes_stored=writer.stats.bytes_stored))
                try:
                    self._bring(writer, snapshot)
                except DamagedError as error:
                    self.result.failed[snapshot.id] = error.message
                    self._visited = Usage(self._source.index)  # some were marked, and not brought
                    continue
                waiting.append(snapshot)
                self._complete[snapshot.hostname, snapshot.job] = snapshot.tree
                if writer.stats.bytes_stored - saved >= _SAVE_EVERY:
                    self._save(writer, waiting)
                    waiting, saved = [], writer.stats.bytes_stored
            self._save(writer, waiting)
        self.result.blobs = writer.stats.blobs
        self.result.bytes_added = writer.stats.bytes_added
        self.result.bytes_stored = writer.stats.bytes_stored
        return self.result

    def _save(self, writer: BlobWriter, snapshots: Sequence[Snapshot]) -> None:
        """Write snapshots whose blobs have all been added."""
        if not snapshots:
            return
        writer.flush()
        for snapshot in snapshots:
            parent = self._known.get(snapshot.parent)
            new = replace(snapshot, id="", original=origin(snapshot), parent=parent.id if parent else "")
            self._known[origin(snapshot)] = stored = self._destination.save_snapshot(new)
            self.result.snapshots[snapshot.id] = stored.id

    # ---------------------------------------------------------------- trees
    def _bring(self, writer: BlobWriter, snapshot: Snapshot) -> None:
        """Bring over all blobs that the destination lacks of a snapshot.

        That a tree is there says nothing of what is below it, a copy may have been killed. But what is below a tree
        of a snapshot that was copied is there, so trees are compared with those of the one before.
        """
        waiting: list[tuple[bytes, bytes | None]] = [
            (snapshot.tree, self._complete.get((snapshot.hostname, snapshot.job)))
        ]
        if waiting[0][0] == waiting[0][1]:
            return
        while waiting:
            self._go_on()
            batch, waiting = waiting[-_TREES:], waiting[:-_TREES]
            before = self._names(tree for _, tree in batch if tree)
            data = dict(read_trees(self._source, [tree for tree, _ in batch]))
            wanted: list[BlobHandle] = []
            for tree, old in batch:
                content, _ = references(tree, data[tree])
                blobs = (content[start : start + 32] for start in range(0, len(content), 32))
                wanted += (BlobHandle(BlobType.DATA, blob) for blob in blobs)
                waiting += self._below(data[tree], before.get(old or b"", {}))
            self._fetch(writer, wanted)
            for tree in dict.fromkeys(tree for tree, _ in batch):
                writer.add(BlobType.TREE, data[tree], tree)

    def _below(self, data: bytes, before: Mapping[str, bytes]) -> Iterator[tuple[bytes, bytes | None]]:
        """The directories in a tree that differ from before and were not visited yet, with what they were."""
        for name, subtree in _subtrees(data).items():
            old = before.get(name)
            if subtree == old:
                continue
            new, unknown = self._visited.mark_new(BlobType.TREE, [subtree])
            if unknown:
                raise DamagedError(f"blob tree/{subtree.hex()} is in no index")
            yield from ((each, old) for each in new)

    def _names(self, trees: Iterable[bytes]) -> dict[bytes, dict[str, bytes]]:
        """The directories in trees that were copied before; what cannot be read any more is of no use, and no harm."""

        def broken(_tree: bytes, _error: DamagedError) -> None:
            return

        known = [tree for tree in dict.fromkeys(trees) if self._source.has(BlobHandle(BlobType.TREE, tree))]
        return {tree: _subtrees(data) for tree, data in read_trees(self._source, known, broken)}

    # ---------------------------------------------------------------- blobs
    def _fetch(self, writer: BlobWriter, handles: Iterable[BlobHandle]) -> None:
        """Bring over the blobs that the destination does not have, by the source's packs, some packs at once."""
        by_pack: dict[str, list[PackEntry]] = {}
        for handle in dict.fromkeys(handles):
            if self._destination.has(handle):
                continue
            location = self._source.index.find(handle)
            if location is None:
                raise DamagedError(f"blob {handle} is in no index")
            by_pack.setdefault(location.pack, []).append(location.entry)
        for blobs in _ahead(
            list(by_pack.items()), lambda item: self._sealed_anew(*item), self._source.backend.connections
        ):
            self._go_on()
            for blob in blobs:
                writer.add_sealed(blob)

    def _sealed_anew(self, pack: str, entries: Sequence[PackEntry]) -> list[SealedBlob]:
        """Read blobs of one pack, prove them, and seal them under the destination's key."""
        try:
            return [self._reseal(entry, stored) for entry, stored in self._source.stored_blobs(pack, entries)]
        except (DamagedError, NotFound):
            # Another pack may have what this one has lost; `read_blob` looks there, and names what is lost for good.
            handles = [BlobHandle(entry.type, entry.id) for entry in entries]
            sealer = self._destination.sealer()
            return [sealer.seal(handle.type, self._source.read_blob(handle), handle.id) for handle in handles]

    def _reseal(self, entry: PackEntry, stored: bytes) -> SealedBlob:
        codec = self._source.codec
        packed = codec.unseal(stored)
        plaintext = codec.decompress(packed, entry.uncompressed_length) if entry.uncompressed_length else packed
        if content_id(plaintext) != entry.id:
            raise DamagedError(f"blob {entry.type}/{entry.id.hex()}: it holds other content")
        compressed = bool(entry.uncompressed_length)
        return SealedBlob(entry.type, entry.id, entry.size, self._destination.codec.seal(packed), compressed)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped while blobs were copied; the next copy goes on from here")


def _subtrees(data: bytes) -> dict[str, bytes]:
    """The directories of a tree: their names as they are written, and their trees."""
    return {node["name"]: bytes.fromhex(node["subtree"]) for node in orjson.loads(data)["nodes"] if node.get("subtree")}


def _ahead(
    items: Sequence[tuple[str, list[PackEntry]]],
    work: Callable[[tuple[str, list[PackEntry]]], list[SealedBlob]],
    connections: int,
) -> Iterator[list[SealedBlob]]:
    """Do work in threads, a few items ahead, in order."""
    workers = max(1, min(4, connections, len(items)))
    waiting: deque[Future[list[SealedBlob]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="copy") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
