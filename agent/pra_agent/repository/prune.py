"""Prune: what no snapshot needs is removed, and packs that hold much of it are rewritten without it.

`plan` looks and returns a value that can be printed; `execute` acts, under an exclusive lock, in the one order that is
safe at every step: new packs, new indexes, then the old indexes go, then the old packs. What a killed prune leaves
behind is never less than before; blobs that it had moved are found by the next plan, which goes on from there.
Nothing is removed unless snapshots, indexes and the store's listing agree, looked at again just before.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import numpy as np

from pra_agent.errors import DamagedError, Interrupted, LockLost, NotFound, RefusedError
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.model.ids import ID_BYTES, BlobType
from pra_agent.repository.check_trees import references, walk
from pra_agent.repository.index import decode_index, encode_index
from pra_agent.repository.pack import PackEntry, SealedBlob, open_blob
from pra_agent.repository.prune_packs import Int, Packs, raw_ids
from pra_agent.repository.prune_plan import Listing, PrunePlan, PruneSettings, make_plan
from pra_agent.repository.prune_usage import Usage
from pra_agent.repository.repository import Lock, Repository, still_sealed
from pra_agent.storage.backend import Handle, Kind

#: So many index files below a quarter of the usual number of blobs are worth merging.
SMALL_INDEXES = 8
_CONFIRM_EVERY = 200
_NOTHING_CHANGED = "Nothing was removed; run pra-agent check, then pra-agent repair."


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did; sizes in bytes. `packs_left` were to be rewritten, but the time was up: the next goes on."""

    packs_removed: int = 0
    packs_repacked: int = 0
    packs_left: int = 0
    indexes_written: int = 0
    indexes_removed: int = 0
    bytes_repacked: int = 0
    bytes_given_back: int = 0


def plan(
    repository: Repository,
    settings: PruneSettings | None = None,
    *,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> PrunePlan:
    """Find out what can go. Loads the index; `RefusedError` or `DamagedError` when the repository is not whole."""
    settings = settings or PruneSettings()
    started = repository.clock.monotonic()
    snapshots = repository.snapshots()
    if repository.unreadable_snapshots:
        name, why = next(iter(repository.unreadable_snapshots.items()))
        raise RefusedError(f"snapshot {name[:8]} cannot be read: {why}", advice=_NOTHING_CHANGED)
    repository.load_index()
    usage = Usage(repository.index)
    mark_used(repository, usage, (snapshot.tree for snapshot in snapshots), report=report, stop=stop)
    listing = Listing.of(repository.backend.list(Kind.DATA))
    made = make_plan(Packs(usage), listing, settings, pack_size=repository.settings.pack_size)
    made.snapshots = frozenset(snapshot.id for snapshot in snapshots)
    made.index_files = frozenset(repository.index.files)
    made.started = started
    return made


def mark_used(
    repository: Repository,
    usage: Usage,
    roots: Iterable[bytes],
    *,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> None:
    """Mark all blobs that trees refer to. `RefusedError` when one is missing, `DamagedError` when one is broken."""

    def known(missing: Sequence[bytes], what: BlobType, where: str) -> None:
        if missing:
            raise RefusedError(f"{what} blob {missing[0].hex()} of {where} is in no index", advice=_NOTHING_CHANGED)

    def enter(trees: Sequence[bytes]) -> Sequence[bytes]:
        new, missing = usage.mark_new(BlobType.TREE, trees)
        known(missing, BlobType.TREE, "a snapshot")
        return new

    done = 0

    def visit(tree: bytes, data: bytes) -> Sequence[bytes]:
        nonlocal done
        done += 1
        content, subtrees = references(tree, data)
        known(usage.mark(BlobType.DATA, content), BlobType.DATA, f"tree {tree.hex()[:8]}")
        if done % 100 == 0:
            report(Progress("find used blobs", files_done=done))
        return subtrees

    walk(repository, roots, enter=enter, visit=visit, stop=stop)


def execute(
    plan: PrunePlan,
    repository: Repository,
    lock: Lock,
    *,
    settings: PruneSettings | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> Pruned:
    """Carry out a plan that was made under the same exclusive lock. The index must be loaded again afterwards.

    Raises `DamagedError` when a blob to be moved is broken, `LockLost` when somebody else is at work, `Interrupted`
    when `stop` is set; what had been moved by then is of use to the next run.
    """
    if not lock.exclusive:
        raise RuntimeError("a prune needs an exclusive lock")
    return _Prune(plan, repository, settings or PruneSettings(), report, stop or Event()).run()


class _Prune:
    def __init__(
        self, plan: PrunePlan, repository: Repository, settings: PruneSettings, report: Reporter, stop: Event
    ) -> None:
        self._plan = plan
        self._packs = plan.packs
        self._repository = repository
        self._settings = settings
        self._report = report
        self._stop = stop
        self._new_packs = 0

    def run(self) -> Pruned:
        plan, facts = self._plan, self._packs.table
        moved, moved_bytes = self._repack()
        obsolete = np.unique(np.concatenate((plan.remove, plan.vanished, moved)))
        old, new = self._write_indexes(obsolete)
        self._delete(Kind.INDEX, old, "remove old indexes")
        doomed = np.concatenate((moved, plan.remove))
        names = [facts.name(int(number)) for number in doomed]
        self._delete(Kind.DATA, [*names, *plan.unindexed], "remove packs")
        removed = plan.figures.bytes_given_back - int((facts.garbage + facts.duplicate)[plan.repack].sum())
        return Pruned(
            packs_removed=len(names) + len(plan.unindexed) - len(moved),
            packs_repacked=len(moved),
            packs_left=len(plan.repack) - len(moved),
            indexes_written=new,
            indexes_removed=len(old),
            bytes_repacked=moved_bytes,
            bytes_given_back=removed + int((facts.garbage + facts.duplicate)[moved].sum()),
        )

    # ---------------------------------------------------------------- new packs
    def _repack(self) -> tuple[Int, int]:
        """Move what is needed out of the packs to rewrite; returns those that were done, and the bytes moved."""
        plan, facts, clock = self._plan, self._packs.table, self._repository.clock
        if not len(plan.repack):
            return plan.repack, 0
        unused = (facts.garbage + facts.duplicate)[plan.repack]
        order = plan.repack[np.argsort(-unused / facts.size[plan.repack], kind="stable")]
        budget = self._settings.budget
        until = plan.started + budget.total_seconds() if budget else float("inf")
        picked = self._packs.pick(order, needed=True)
        moved: list[int] = []
        size = 0
        with self._repository.writer() as writer:
            jobs = ((int(number), self._packs.entries(int(number), picked)) for number in order)
            for number, blobs in self._read(jobs, lambda: clock.monotonic() >= until or self._stop.is_set()):
                for blob in blobs:
                    writer.repack(blob)
                    size += len(blob.stored)
                moved.append(number)
                self._report(Progress("rewrite packs", len(moved), len(order), size, plan.figures.bytes_repacked, size))
        self._new_packs = writer.stats.packs
        if self._stop.is_set():
            raise Interrupted("stopped while packs were rewritten; the next prune goes on from here")
        return np.array(moved, np.int64), size

    def _read(
        self, jobs: Iterator[tuple[int, list[PackEntry]]], enough: Callable[[], bool]
    ) -> Iterator[tuple[int, list[SealedBlob]]]:
        """Read and prove the needed blobs of packs, some packs ahead."""
        workers = max(1, min(4, self._repository.backend.connections))
        waiting: deque[tuple[int, Future[list[SealedBlob]]]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="repack") as pool:
            try:
                for number, entries in jobs:
                    if enough():
                        break
                    waiting.append((number, pool.submit(self._sealed, number, entries)))
                    if len(waiting) > workers:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting and not enough():
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _sealed(self, number: int, entries: list[PackEntry]) -> list[SealedBlob]:
        """Read blobs still sealed, and prove each: another copy of a broken one may be about to go."""
        pack, repository = self._packs.table.name(number), self._repository
        blobs: list[SealedBlob] = []
        for entry, stored in repository.stored_blobs(pack, entries):
            open_blob(repository.codec, pack, entry, stored)
            blobs.append(still_sealed(entry, stored))
        return blobs

    # ---------------------------------------------------------------- indexes
    def _write_indexes(self, obsolete: Int) -> tuple[list[str], int]:
        """Write indexes without the obsolete packs, prove them; returns the old ones to remove, and how many new."""
        numbers, files = self._memberships()
        outdated = self._outdated(numbers, files, obsolete)
        listed = numbers[np.isin(files, outdated) & (numbers >= 0)]
        stay = np.setdiff1d(listed, obsolete)
        new = list(self._indexes(stay)) if len(stay) else []
        if len(outdated) or len(obsolete) or self._plan.unindexed:
            self._agree(obsolete, stay)
        return [self._repository.index.files[number] for number in outdated.tolist()], len(new)

    def _memberships(self) -> tuple[Int, Int]:
        """Which pack (-1: one without blobs) is listed by which of the index files, by their numbers."""
        index = self._repository.index
        file_numbers = {name: number for number, name in enumerate(index.files)}
        files = np.fromiter((file_numbers[file] for _, file in index.memberships()), np.int64)
        return self._packs.table.numbers(raw_ids(pack for pack, _ in index.memberships())), files

    def _outdated(self, numbers: Int, files: Int, obsolete: Int) -> Int:
        """The index files that list an obsolete pack, or one that another lists too, or that are many and small."""
        facts, index = self._packs.table, self._repository.index
        wrong = (numbers < 0) | np.isin(numbers, obsolete)
        times = np.bincount(numbers[numbers >= 0], minlength=len(facts))
        known = numbers >= 0
        wrong[known] |= times[numbers[known]] > 1
        blobs = np.bincount(files[known], weights=facts.blobs[numbers[known]], minlength=len(index.files))
        small = np.flatnonzero(blobs < self._repository.settings.index_blobs // 4)
        outdated = np.unique(files[wrong])
        return np.union1d(outdated, small) if len(small) >= SMALL_INDEXES else outdated

    def _indexes(self, numbers: Int) -> Iterator[str]:
        """Write index files for these packs; yields their names."""
        repository, packs = self._repository, self._packs
        picked = packs.pick(numbers, needed=False)
        batch: list[tuple[str, list[PackEntry]]] = []
        count = 0
        for number in numbers.tolist():
            entries = packs.entries(number, picked)
            batch.append((packs.table.name(number), entries))
            count += len(entries)
            if count >= repository.settings.index_blobs or number == numbers[-1]:
                repository.confirm_lock()
                yield repository.files.write(Kind.INDEX, encode_index(batch))
                batch, count = [], 0

    def _agree(self, obsolete: Int, stay: Int) -> None:
        """Look at snapshots and new indexes in the store again: whatever goes must be named nowhere any more."""
        repository, facts = self._repository, self._packs.table
        names = {info.handle.name for info in repository.backend.list(Kind.SNAPSHOT)}
        if names - self._plan.snapshots:
            raise LockLost("a snapshot was written by somebody else while we held the exclusive lock")
        covered = set[bytes]()
        for info in repository.backend.list(Kind.INDEX):
            if info.handle.name not in self._plan.index_files:
                sealed = repository.backend.get(info.handle)  # from the store, not from the cache
                raw = decode_index(repository.codec.unseal_unpacked(sealed)).packs
                covered.update(raw[start : start + ID_BYTES] for start in range(0, len(raw), ID_BYTES))
        going = {bytes.fromhex(facts.name(int(number))) for number in obsolete}
        going.update(map(bytes.fromhex, self._plan.unindexed))
        if covered & going:
            raise LockLost("an index was written by somebody else while we held the exclusive lock")
        whole = all(bytes.fromhex(facts.name(int(number))) in covered for number in stay)
        if not whole or len(covered) < len(stay) + self._new_packs:
            raise DamagedError("the new indexes do not list all packs that are to stay", advice=_NOTHING_CHANGED)

    # ---------------------------------------------------------------- removal
    def _delete(self, kind: Kind, names: Sequence[str], stage: str) -> None:
        repository = self._repository
        if not names:
            return

        def delete(name: str) -> None:
            try:
                repository.backend.delete(Handle(kind, name))
            except NotFound:
                return  # a delete whose answer was lost

        with ThreadPoolExecutor(max(1, repository.backend.connections), thread_name_prefix="delete") as pool:
            for start in range(0, len(names), _CONFIRM_EVERY):
                repository.confirm_lock()
                list(pool.map(delete, names[start : start + _CONFIRM_EVERY]))
                self._report(Progress(stage, min(start + _CONFIRM_EVERY, len(names)), len(names)))
