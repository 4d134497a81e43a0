"""Check: whether all that snapshots need is there and is what it was; on request, by reading it.

Stock restic takes an exclusive lock for this. A shared one is enough: it keeps prunes out, which alone remove what
others rely on, and what backups add meanwhile does no harm, because things are looked at against the order in which
they are written: snapshots first, then indexes, then packs. So a check of hours never makes a backup wait. A snapshot
that is forgotten meanwhile is not missed, and packs in no index yet are a note, not damage.
"""

import itertools
from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np

from pra_agent.errors import DamagedError, Interrupted, NotFound, RefusedError
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.snapshots import Snapshot
from pra_agent.model.trees import decode_tree, is_component
from pra_agent.repository.check_data import prove_packs
from pra_agent.repository.check_hits import Tracer
from pra_agent.repository.check_report import CheckReport, Finding
from pra_agent.repository.check_subset import Subset
from pra_agent.repository.check_trees import walk
from pra_agent.repository.codec import content_id
from pra_agent.repository.config_file import RepositoryConfig
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.prune_packs import Int, Packs
from pra_agent.repository.prune_plan import Listing
from pra_agent.repository.prune_usage import Usage
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind

#: So many packs in no index are named one by one.
_NAMED_ORPHANS = 10


def check(
    repository: Repository,
    subset: Subset | None = None,
    *,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> CheckReport:
    """Verify the structure, and the packs of a subset by reading them; needs a lock, shared will do.

    Damage is reported, never raised; what is raised is that the store cannot be reached, or `Interrupted`.
    """
    return Check(repository, report, stop).run(subset)


class Check:
    """One check. Its steps are of use to repair as well."""

    def __init__(self, repository: Repository, report: Reporter = ignore, stop: Event | None = None) -> None:
        self.result = CheckReport()
        self.repository = repository
        self.snapshots: Sequence[Snapshot] = ()
        self._tell = report
        self._stop = stop

    def run(self, subset: Subset | None) -> CheckReport:
        """Do all steps."""
        result = self.result
        self._config_and_keys()
        self.load()
        self._stored_files()
        usage = Usage(self.repository.index)
        result.blobs = sum(map(len, usage.tables.values()))
        self.trees(usage)
        packs = self._packs(usage)
        if packs is not None:
            self._compare(packs)
            if subset is not None:
                self._data(packs, subset)
        self._keep_lost_without_copy()
        if result.lost:
            result.hits = Tracer(self.repository, result.lost, self._stop).hits(self.snapshots)
        return result

    def load(self) -> None:
        """Read snapshots, then indexes."""
        self.snapshots = self.repository.snapshots()
        self.result.snapshots = len(self.snapshots)
        for name, why in self.repository.unreadable_snapshots.items():
            self._damage(Handle(Kind.SNAPSHOT, name).path, why)
        for name, why in self.repository.load_readable_index().items():
            self._damage(Handle(Kind.INDEX, name).path, why)

    # ---------------------------------------------------------------- small files
    def _config_and_keys(self) -> None:
        backend = self.repository.backend
        try:
            config = RepositoryConfig.unseal(self.repository.codec, backend.get(Handle(Kind.CONFIG)))
            if config.id != self.repository.id:
                self._damage("config", "it is another repository's")
        except (DamagedError, NotFound) as error:
            self._damage("config", error.message)
        for info in backend.list(Kind.KEY):
            try:
                data = backend.get(info.handle)
            except NotFound:
                continue
            if content_id(data).hex() != info.handle.name:
                self._damage(info.handle.path, "its content does not match its name")

    def _stored_files(self) -> None:
        """Read indexes and snapshots from the store itself where a cache on this host may hide damage."""
        if self.repository.cache is None:
            return
        known = {finding.subject for finding in self.result.damage}
        for kind in (Kind.SNAPSHOT, Kind.INDEX):
            for info in self.repository.backend.list(kind):
                try:
                    intact = content_id(self.repository.backend.get(info.handle)).hex() == info.handle.name
                except NotFound:
                    continue
                if not intact and info.handle.path not in known:
                    self._damage(info.handle.path, "its content does not match its name")

    # ---------------------------------------------------------------- trees
    def trees(self, usage: Usage) -> None:
        """Walk all trees: they are there, in order, and what they refer to is in an index."""
        result = self.result

        def enter(trees: Sequence[bytes]) -> Sequence[bytes]:
            new, missing = usage.mark_new(BlobType.TREE, trees)
            for tree in missing:
                self._lose(BlobHandle(BlobType.TREE, tree), "it is in no index")
            return new

        def visit(tree: bytes, data: bytes) -> Sequence[bytes]:
            result.trees += 1
            if result.trees % 100 == 0:
                self._tell(Progress("walk trees", files_done=result.trees))
            nodes = decode_tree(data)
            self._order(tree, nodes)
            content = b"".join(itertools.chain.from_iterable(node.content for node in nodes if node.content))
            for blob in usage.mark(BlobType.DATA, content):
                self._lose(BlobHandle(BlobType.DATA, blob), "it is in no index")
            return [node.subtree for node in nodes if node.subtree is not None]

        def broken(tree: bytes, error: DamagedError) -> None:
            self._lose(BlobHandle(BlobType.TREE, tree), error.message)

        roots = [snapshot.tree for snapshot in self.snapshots]
        walk(self.repository, roots, enter=enter, visit=visit, broken=broken, stop=self._stop)

    def _order(self, tree: bytes, nodes: Sequence[Node]) -> None:
        where = f"tree {tree.hex()[:10]}"
        for before, after in itertools.pairwise(nodes):
            if before.name >= after.name:
                self._damage(where, f"{printable(after.name)} is out of order")
        for node in nodes:
            if not is_component(node.name):
                self._damage(where, f"{printable(node.name)} is no name of a file")
            if node.type is NodeType.DIR and node.subtree is None:
                self._damage(where, f"the directory {printable(node.name)} has no tree")

    # ---------------------------------------------------------------- packs
    def _packs(self, usage: Usage) -> Packs | None:
        try:
            return Packs(usage)
        except RefusedError as error:
            self._damage("index", error.message)
            return None

    def _compare(self, packs: Packs) -> None:
        """Compare what the index says of packs with what the store lists."""
        result, facts = self.result, packs.table
        listing = Listing.of(self.repository.backend.list(Kind.DATA))
        result.packs, result.bytes_stored = len(facts), int(listing.sizes.sum())
        stored = listing.sizes_of(facts.ids)
        result.bytes_unused = int((facts.garbage + facts.duplicate).sum())
        wrong = np.flatnonzero(stored != facts.size)
        picked = packs.pick(wrong, needed=False)
        for number in wrong.tolist():
            name, size = facts.name(number), int(stored[number])
            message = "it is missing" if size < 0 else f"it has {size} bytes, and should have {facts.size[number]}"
            if not facts.used[number]:
                self._note(Handle(Kind.DATA, name).path, f"{message}, but nothing needs it")
                continue
            self._damage(Handle(Kind.DATA, name).path, message)
            result.broken_packs.add(name)
            lost = (entry for entry in packs.entries(number, picked) if size < entry.offset + entry.length)
            result.lost.update(BlobHandle(entry.type, entry.id) for entry in lost)
        strangers = np.setdiff1d(listing.ids, facts.ids, assume_unique=True)
        if len(strangers):
            size = int(listing.sizes_of(strangers).sum())
            self._note("data", f"{len(strangers)} packs ({size} bytes) are in no index; a run may be storing them now")

    def _data(self, packs: Packs, subset: Subset) -> None:
        """Read packs and prove them."""
        result, facts = self.result, packs.table
        chosen = np.flatnonzero(subset.choose(facts.ids))
        total = int(facts.size[chosen].sum())
        for proof in prove_packs(self.repository, self._entries(packs, chosen)):
            if self._stop is not None and self._stop.is_set():
                raise Interrupted("stopped while packs were read")
            result.packs_read += 1
            result.bytes_read += proof.size
            self._tell(Progress("read packs", result.packs_read, len(chosen), result.bytes_read, total))
            if proof.fault and proof.pack not in result.broken_packs:
                self._damage(Handle(Kind.DATA, proof.pack).path, proof.fault)
            if proof.fault:
                result.broken_packs.add(proof.pack)
            result.lost.update(BlobHandle(entry.type, entry.id) for entry in proof.broken)

    def _entries(self, packs: Packs, numbers: Int) -> Iterator[tuple[str, list[PackEntry]]]:
        step = 1000  # packs at a time, so that the rows of a large index are not all held beside it
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            picked = packs.pick(part, needed=False)
            for number in part.tolist():
                yield packs.table.name(number), packs.entries(number, picked)

    # ---------------------------------------------------------------- findings
    def _keep_lost_without_copy(self) -> None:
        """Take blobs off the list of the lost when another pack has them whole."""
        for handle in sorted(self.result.lost):
            try:
                self.repository.read_blob(handle)
            except DamagedError:
                continue
            self.result.lost.discard(handle)

    def _lose(self, handle: BlobHandle, why: str) -> None:
        if handle not in self.result.lost:
            self.result.lost.add(handle)
            self._damage(f"blob {handle.type}/{handle.id.hex()}", why)

    def _damage(self, subject: str, message: str) -> None:
        self.result.damage.append(Finding(subject, message))

    def _note(self, subject: str, message: str) -> None:
        self.result.notes.append(Finding(subject, message))
