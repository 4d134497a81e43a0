"""Repair: indexes are made anew from packs, blobs are saved, snapshots go on without what is lost.

Blobs are saved out of broken packs, and read again from the host where it still has the same files.
`plan` looks, changes nothing and can be printed; `execute` acts under the same exclusive lock. It never makes things
worse: whatever is replaced stays until what replaces it is durable, damaged snapshots until the very end, and broken
packs are left to the next prune. A repair that was killed is simply done again.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from threading import Event
from typing import BinaryIO

from pra_agent.errors import DamagedError, Interrupted, NotFound, StorageError
from pra_agent.model.events import Notice, Progress, Reporter, ignore
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshot_json import decode_snapshot
from pra_agent.model.snapshots import AGENT_TAG, PARTIAL_TAG, Snapshot
from pra_agent.repository.check import Check
from pra_agent.repository.check_hits import Tracer
from pra_agent.repository.check_report import Hit
from pra_agent.repository.check_trees import references, walk
from pra_agent.repository.codec import content_id
from pra_agent.repository.index import encode_index
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.prune_usage import Usage
from pra_agent.repository.repair_packs import PackSurvey, survey
from pra_agent.repository.repair_trees import TreeRewriter
from pra_agent.repository.repository import BlobWriter, Lock, Repository, still_sealed
from pra_agent.storage.backend import Handle, Kind

REPAIRED_TAG = "repaired"
RECOVERED_TAG = "recovered"

#: Opens a file of the host by the raw path that it has in a snapshot; None when the host does not have it (any more).
Opener = Callable[[Snapshot, bytes], AbstractContextManager[BinaryIO] | None]


@dataclass(slots=True)
class RepairPlan:
    """What to do. `unreadable_indexes` and `unreadable_snapshots` are hex ids.

    `hits` are snapshots that lack something unless the host still has it; `doomed` are those of which nothing is
    left. `misnamed` are snapshots whose files are whole under a wrong name. `roots` are trees that nothing refers to,
    which is what an unreadable snapshot leaves behind.
    """

    packs: PackSurvey
    unreadable_indexes: Sequence[str]
    unreadable_snapshots: Sequence[str] = ()
    misnamed: Sequence[Snapshot] = ()
    lost: frozenset[BlobHandle] = frozenset()
    hits: Sequence[Hit] = ()
    doomed: Sequence[Snapshot] = ()
    roots: Sequence[bytes] = ()
    snapshots: Sequence[Snapshot] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to repair."""
        packs = self.packs
        return not (
            *packs.found,
            *packs.broken,
            *self.unreadable_indexes,
            *self.unreadable_snapshots,
            *self.hits,
            *self.doomed,
            *self.roots,
        )

    def lines(self) -> list[str]:
        """The plan for people."""
        packs = self.packs
        saved = sum(map(len, packs.broken.values()))
        counts = (
            (len(self.unreadable_indexes), "indexes are not readable and are made anew"),
            (len(packs.found), "packs are entered into an index from their own headers"),
            (len(packs.broken), f"packs are missing or broken; {saved} blobs of them are saved"),
            (len(packs.hopeless), "packs that no index lists are not readable; prune removes them"),
            (len(self.lost), "blobs are lost, unless the host still has them"),
        )
        lines = [f"{count} {what}" for count, what in counts if count]
        lines += [f"{hit} are left out if they stay lost" for hit in self.hits]
        lines += [f"snapshot {snapshot.id[:8]} has nothing left and is dropped" for snapshot in self.doomed]
        lines += [f"snapshot {snapshot.id[:8]} is given its right name" for snapshot in self.misnamed]
        lines += [f"snapshot file {name[:8]} is not readable and is dropped" for name in self.unreadable_snapshots]
        lines += [f"tree {root.hex()[:8]}, which nothing refers to, becomes a snapshot" for root in self.roots]
        return lines or ["nothing is damaged"]


@dataclass(slots=True)
class Repaired:
    """What a repair did. Snapshots are hex ids; `rewritten` maps old to new ones."""

    indexes_removed: int = 0
    indexes_written: int = 0
    blobs_saved: int = 0
    blobs_read_again: int = 0
    rewritten: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    dropped: list[str] = field(default_factory=lambda: list[str]())
    recovered: list[str] = field(default_factory=lambda: list[str]())
    still_lost: int = 0


def plan(
    repository: Repository,
    *,
    suspects: Iterable[str] = (),
    prove: bool = False,
    recover: bool = False,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> RepairPlan:
    """Find out what can be saved.

    `suspects` are packs that a check found broken; `prove` reads packs that no index lists as a whole; `recover` looks
    for lost snapshots.
    Afterwards the repository knows the index as it can be made, so that snapshots can be read already.
    """
    check = Check(repository, report, stop)
    snapshots = repository.snapshots()
    unreadable, misnamed = _judge(repository, repository.unreadable_snapshots)
    check.snapshots = [*snapshots, *misnamed]
    indexes = list(repository.load_readable_index())
    packs, repository.index = survey(repository, frozenset(suspects), prove=prove, report=report, stop=stop)
    usage = Usage(repository.index)
    check.trees(usage)
    lost = frozenset(check.result.lost)
    hits = Tracer(repository, lost, stop).hits(check.snapshots) if lost else []
    doomed = {hit.snapshot for hit in hits if list(hit.paths) == ["/"]}
    wanted = len(unreadable) - len(misnamed)
    return RepairPlan(
        packs=packs,
        unreadable_indexes=indexes,
        unreadable_snapshots=unreadable,
        misnamed=misnamed,
        lost=lost,
        hits=[hit for hit in hits if hit.snapshot not in doomed],
        doomed=[snapshot for snapshot in snapshots if snapshot.id in doomed],
        roots=_roots(repository, usage, wanted, stop) if wanted or recover else (),
        snapshots=snapshots,
    )


def execute(
    plan: RepairPlan,
    repository: Repository,
    lock: Lock,
    *,
    opener: Opener | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> Repaired:
    """Carry out a plan that was just made under the same exclusive lock. The index is loaded anew at the end."""
    if not lock.exclusive:
        raise RuntimeError("a repair needs an exclusive lock")
    return _Repair(plan, repository, opener, report, stop or Event()).run()


def _judge(repository: Repository, unreadable: Iterable[str]) -> tuple[list[str], list[Snapshot]]:
    """Which snapshot files are surely no good, and which of them are whole under a wrong name.

    Each is read once more: a store that does not answer is no reason to drop a snapshot, and raises.
    """
    bad: list[str] = []
    misnamed: list[Snapshot] = []
    for name in unreadable:
        try:
            sealed = repository.backend.get(Handle(Kind.SNAPSHOT, name))
        except NotFound:
            continue
        except DamagedError:
            bad.append(name)
            continue
        bad.append(name)
        with suppress(DamagedError):
            misnamed.append(decode_snapshot(content_id(sealed).hex(), repository.codec.unseal_unpacked(sealed)))
    return bad, misnamed


def _roots(repository: Repository, usage: Usage, wanted: int, stop: Event | None) -> list[bytes]:
    """The trees that neither a snapshot nor another tree refers to; whole ones only, unless those are too few."""
    table, used = usage.tables[BlobType.TREE], usage.used[BlobType.TREE]
    loose = dict.fromkeys(table.id(row) for row in range(len(table)) if not used[row])
    inner: set[bytes] = set()

    def visit(tree: bytes, data: bytes) -> Sequence[bytes]:
        inner.update(references(tree, data)[1])
        return ()

    def broken(tree: bytes, _error: DamagedError) -> None:
        inner.add(tree)

    walk(repository, loose, enter=lambda trees: trees, visit=visit, broken=broken, stop=stop)
    roots = [_recovered(repository, tree) for tree in loose if tree not in inner]
    check = Check(repository, stop=stop)
    check.snapshots = roots
    check.trees(Usage(repository.index))
    hit = {each.snapshot for each in Tracer(repository, check.result.lost, stop).hits(roots)}
    whole = [root.tree for root in roots if root.id not in hit]
    return whole if len(whole) >= wanted else [root.tree for root in roots]


def _recovered(repository: Repository, root: bytes) -> Snapshot:
    """A snapshot of a tree that nothing refers to. It belongs to no job, so nothing forgets it."""
    return Snapshot(
        time=repository.clock.now(),
        tree=root,
        paths=("/",),
        hostname=repository.host.node,
        tags=(AGENT_TAG, RECOVERED_TAG),
        id=root.hex(),
    )


class _Repair:
    def __init__(
        self, plan: RepairPlan, repository: Repository, opener: Opener | None, report: Reporter, stop: Event
    ) -> None:
        self._plan = plan
        self._repository = repository
        self._opener = opener
        self._report = report
        self._stop = stop
        self.result = Repaired()

    def run(self) -> Repaired:
        repository, plan = self._repository, self._plan
        if plan.empty:
            return self.result
        with repository.writer() as writer:
            self._save_blobs(writer)
            self._read_again(writer)
        self._indexes()
        repository.load_index()
        old = self._snapshots()
        for name in old:
            self._remove(Kind.SNAPSHOT, name)
        self.result.dropped = [snapshot.id for snapshot in plan.doomed] + list(plan.unreadable_snapshots)
        return self.result

    # ---------------------------------------------------------------- blobs
    def _save_blobs(self, writer: BlobWriter) -> None:
        """Move what still opens in broken packs into new ones."""
        for pack, entries in self._plan.packs.broken.items():
            self._go_on()
            for entry, stored in self._repository.stored_blobs(pack, entries):
                writer.repack(still_sealed(entry, stored))
                self.result.blobs_saved += 1
            self._report(Progress("save blobs", files_done=self.result.blobs_saved))

    def _read_again(self, writer: BlobWriter) -> None:
        """Read files whose content is lost from the host: blobs that come out the same are whole again."""
        wanted = {handle for handle in self._plan.lost if handle.type is BlobType.DATA}
        if self._opener is None or not wanted:
            return
        tried: set[bytes] = set()
        tracer = Tracer(self._repository, self._plan.lost, self._stop)
        for snapshot in sorted(self._plan.snapshots, key=lambda each: each.time, reverse=True):
            for path, node in tracer.trace(snapshot.tree):
                if node is None or path in tried or not wanted:
                    continue
                tried.add(path)
                self._reread(writer, snapshot, path, wanted)

    def _reread(self, writer: BlobWriter, snapshot: Snapshot, path: bytes, wanted: set[BlobHandle]) -> None:
        assert self._opener is not None  # noqa: S101 - the caller has looked
        self._go_on()
        try:
            opened = self._opener(snapshot, path)
            if opened is None:
                return
            with opened as file:
                for chunk in self._repository.chunker().chunks(file.read):
                    handle = BlobHandle(BlobType.DATA, content_id(chunk))
                    if handle in wanted:
                        writer.add(BlobType.DATA, chunk, handle.id)
                        wanted.discard(handle)
                        self.result.blobs_read_again += 1
        except OSError as error:
            self._report(Notice(f"a file of the host could not be read again: {error.strerror}", "warning"))

    # ---------------------------------------------------------------- indexes
    def _indexes(self) -> None:
        """Write what is listed nowhere (rightly), then remove the indexes that are wrong or not readable."""
        repository, plan = self._repository, self._plan
        batch: list[tuple[str, Sequence[PackEntry]]] = []
        for pack, entries in self._to_list():
            batch.append((pack, entries))
            if sum(len(each) for _, each in batch) >= repository.settings.index_blobs:
                self._write_index(batch)
                batch = []
        if batch:
            self._write_index(batch)
        for name in (*plan.unreadable_indexes, *sorted(plan.packs.obsolete)):
            self._remove(Kind.INDEX, name)
            self.result.indexes_removed += 1

    def _to_list(self) -> Iterable[tuple[str, Sequence[PackEntry]]]:
        """Packs found, and the good ones of the index files that go."""
        plan, repository = self._plan, self._repository
        yield from plan.packs.found.items()
        if plan.packs.relist:
            yield from (each for each in repository.index.packs() if each[0] in plan.packs.relist)

    def _write_index(self, packs: Sequence[tuple[str, Sequence[PackEntry]]]) -> None:
        self._go_on()
        self._repository.confirm_lock()
        self._repository.files.write(Kind.INDEX, encode_index(packs))
        self.result.indexes_written += 1

    # ---------------------------------------------------------------- snapshots
    def _snapshots(self) -> list[str]:
        """Write snapshots anew; returns the files that they replace."""
        repository, plan = self._repository, self._plan
        doomed = [snapshot.id for snapshot in plan.doomed]
        sound = [each for each in plan.snapshots if each.id not in doomed]
        roots = [_recovered(repository, root) for root in plan.roots]
        check = Check(repository, stop=self._stop)
        check.snapshots = [*sound, *plan.misnamed, *roots]
        check.trees(Usage(repository.index))
        self.result.still_lost = len(check.result.lost)
        with repository.writer() as writer:
            rewriter = TreeRewriter(repository, writer, check.result.lost)
            trees = {each.id: rewriter.rewrite(each.tree) for each in check.snapshots}
        old = [*plan.unreadable_snapshots, *doomed]
        for snapshot in sound:
            tree = trees[snapshot.id]
            if tree != snapshot.tree:
                self._save(snapshot, tree)
                old.append(snapshot.id)
        for snapshot in (*plan.misnamed, *roots):
            self._save(snapshot, trees[snapshot.id])
        return old

    def _save(self, snapshot: Snapshot, tree: bytes | None) -> None:
        """Write a snapshot anew, with what is left of its tree, unless a killed repair has done so."""
        if tree is None:
            return
        self._go_on()
        new = replace(snapshot, id="")
        if tree != snapshot.tree:
            tags = (*snapshot.tags, *(tag for tag in (PARTIAL_TAG, REPAIRED_TAG) if tag not in snapshot.tags))
            new = replace(new, tree=tree, tags=tags, original=snapshot.original or snapshot.id)
        if any(replace(each, id="") == new for each in self._plan.snapshots):
            return
        saved = self._repository.save_snapshot(new).id
        if RECOVERED_TAG in new.tags:
            self.result.recovered.append(saved)
        else:
            self.result.rewritten[snapshot.id] = saved

    def _remove(self, kind: Kind, name: str) -> None:
        self._repository.confirm_lock()
        try:
            self._repository.backend.delete(Handle(kind, name))
        except NotFound:
            return
        except StorageError as error:
            self._report(Notice(f"{kind}/{name} could not be removed: {error.message}", "warning"))
            raise

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped during the repair; nothing is worse than before, run it again to go on")
