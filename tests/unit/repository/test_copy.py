"""Copy: what arrives is the same, sealed under another key; only what is missing goes over, and a copy can go on."""

from datetime import timedelta
from threading import Event

import pytest

from pra_agent.errors import Interrupted, RefusedError
from pra_agent.model.events import Event as Told
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.runs import Outcome
from pra_agent.operations.copy import CopyDone, CopyRequest, copy
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.pin import pin
from pra_agent.operations.prune import PruneRequest, prune
from pra_agent.operations.repair import RepairRequest, repair
from pra_agent.repository.check import check
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, Scope
from pra_agent.storage.backend import Handle, Kind
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend
from tests.support.small_repository import START, content, new_repository, noise, open_repository, save

CLOCK = FakeClock(START + timedelta(days=1))
REQUEST = CopyRequest("run", "web-1")


class Reads(MemoryBackend):
    """Counts what is read of packs."""

    def __init__(self) -> None:
        super().__init__(clock=CLOCK)
        self.read = 0

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        data = super().get(handle, offset, length)
        if handle.kind is Kind.DATA:
            self.read += len(data)
        return data


def files(number: int) -> dict[str, bytes]:
    same = {f"same{n}/file": noise(n, 20_000) for n in range(8)}
    return {**same, f"only/{number}": noise(1000 + number, 5_000), "text": b"a line of text\n" * 2000}


@pytest.fixture
def backend() -> Reads:
    return Reads()


@pytest.fixture
def source(backend: Reads) -> Repository:
    repository = new_repository(backend, clock=CLOCK)
    for number in range(3):
        save(repository, files(number), hours=number)
    save(repository, {"dump.sql": noise(7, 9_000)}, hours=3, job="db", tags=("nightly",))
    save(repository, {"x": b"x"}, hours=4, job="")
    return repository


@pytest.fixture
def place() -> MemoryBackend:
    return MemoryBackend(clock=CLOCK, off_host=True)


@pytest.fixture
def destination(place: MemoryBackend) -> Repository:
    return new_repository(place, clock=CLOCK)


def run(source: Repository, destination: Repository, request: CopyRequest = REQUEST) -> CopyDone:
    return copy(request, source, destination, clock=CLOCK)


def whole(place: MemoryBackend) -> Repository:
    repository = open_repository(place, clock=CLOCK)
    with repository.lock():
        result = check(repository, parse_subset("all"))
    assert result.ok, result.lines()
    return repository


def test_everything_arrives_under_another_key(source, destination, place):
    done = run(source, destination)
    assert done.record.outcome is Outcome.SUCCESS
    ours = [each for each in source.snapshots() if each.job]
    copies = whole(place).snapshots()
    assert len(copies) == 4
    arrived = open_repository(place)
    arrived.load_index()
    source.load_index()
    for original, made in zip(ours, copies, strict=True):
        assert (made.time, made.tree, made.tags, made.hostname) == (
            original.time,
            original.tree,
            original.tags,
            original.hostname,
        )
        assert made.original == original.id
        assert done.copied.snapshots[original.id] == made.id
        assert content(arrived, made) == content(source, original)
    assert source.codec is not arrived.codec


def test_the_instants_at_the_destination_are_told(source, destination):
    done = run(source, destination)
    assert done.instants == {"files": START + timedelta(hours=2), "db": START + timedelta(hours=3)}
    assert done.record.off_host
    assert done.record.destination == "memory:"
    again = run(source, destination)
    assert again.instants == done.instants
    assert not again.copied.snapshots


def test_a_partial_snapshot_is_copied_and_tells_no_instant(source, destination):
    save(source, files(9), hours=9, tags=("partial",))
    assert run(source, destination).instants["files"] == START + timedelta(hours=2)


def test_the_second_copy_reads_little(backend, source, destination, place):
    run(source, destination)
    save(source, files(5), hours=5)
    backend.read = 0
    done = run(open_repository(backend, clock=CLOCK), open_repository(place, clock=CLOCK))
    assert len(done.copied.snapshots) == 1
    assert done.copied.bytes_added < 8_000
    assert backend.read < 16_000
    whole(place)


def test_jobs_and_the_newest_are_chosen(source, destination):
    run(source, destination, CopyRequest("r1", "web-1", jobs={"db"}))
    assert [each.job for each in destination.snapshots()] == ["db"]
    run(source, destination, CopyRequest("r2", "web-1", newest=1))
    assert [each.time for each in destination.snapshots()] == [START + timedelta(hours=n) for n in (2, 3)]


def test_snapshots_of_other_nodes_stay(source, destination):
    run(source, destination, CopyRequest("r1", "web-2"))
    assert not destination.snapshots()


def test_what_the_destination_would_forget_is_not_copied(source, destination):
    keeps = {"files": Keep(last=2), "db": Keep(last=2)}
    run(source, destination, CopyRequest("r1", "web-1", keeps=keeps))
    assert len(destination.snapshots()) == 3
    save(source, files(6), hours=6)
    run(source, destination, CopyRequest("r2", "web-1", keeps=keeps))
    forget(ForgetRequest("r3", Scope("web-1", keeps)), destination, clock=CLOCK)
    times = [each.time for each in destination.snapshots()]
    assert times == [START + timedelta(hours=n) for n in (2, 3, 6)]
    assert not run(source, destination, CopyRequest("r4", "web-1", keeps=keeps)).copied.snapshots


def test_each_side_has_its_own_retention(source, destination, place):
    run(source, destination)
    forget(ForgetRequest("r1", Scope("web-1", {"files": Keep(last=1)})), source, clock=CLOCK)
    prune(PruneRequest("r2", PruneSettings(max_unused="0")), source, clock=CLOCK)
    assert len(whole(place).snapshots()) == 4
    assert not run(source, destination).copied.snapshots


def test_a_pinned_snapshot_is_not_copied_twice(source, destination):
    run(source, destination)
    pin(source.snapshots()[0].id, source)
    assert not run(source, destination).copied.snapshots


def test_a_parent_is_the_copy_of_the_parent(source, destination):
    from dataclasses import replace

    first, second = source.snapshots()[:2]
    with source.lock():
        child = source.save_snapshot(replace(second, parent=first.id, id="", time=START + timedelta(hours=9)))
    run(source, destination)
    copies = {each.original: each for each in destination.snapshots()}
    assert copies[child.id].parent == copies[first.id].id


def test_a_stopped_copy_goes_on(backend, source, destination, place):
    stop = Event()
    steps = 0

    def tell(_event: Told) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            stop.set()

    with pytest.raises(Interrupted):
        copy(REQUEST, source, destination, clock=CLOCK, report=tell, stop=stop)
    before = sum(info.size for info in place.list(Kind.DATA))
    assert before > 100_000
    done = run(open_repository(backend, clock=CLOCK), open_repository(place, clock=CLOCK))
    assert len(done.copied.snapshots) == 4
    assert done.copied.bytes_stored < before
    whole(place)


def test_trees_that_a_killed_copy_left_do_not_hide_what_is_missing_below(source, destination, place):
    source.load_index()
    newest = [each for each in source.snapshots() if each.job == "files"][-1]
    with destination.lock():
        destination.load_index()
        with destination.writer() as writer:
            writer.add(BlobType.TREE, source.read_blob(BlobHandle(BlobType.TREE, newest.tree)))
    run(source, destination)
    assert len(whole(place).snapshots()) == 4


def test_a_damaged_snapshot_is_left_out_and_the_others_go(backend, source, destination, place):
    source.load_index()
    node = next(n for n in source.read_tree(source.snapshots()[0].tree) if n.name == b"only")
    assert node.subtree
    (file,) = source.read_tree(node.subtree)
    assert file.content
    location = source.index.find(BlobHandle(BlobType.DATA, file.content[0]))
    assert location
    damaged = bytearray(backend.objects[Handle(Kind.DATA, location.pack)])
    damaged[location.entry.offset + 40] ^= 1
    backend.objects[Handle(Kind.DATA, location.pack)] = bytes(damaged)
    done = run(open_repository(backend, clock=CLOCK), destination)
    assert list(done.copied.failed) == [source.snapshots()[0].id]
    assert done.record.outcome is Outcome.PARTIAL
    assert len(whole(place).snapshots()) == 3


def test_after_a_repair_of_the_destination_everything_new_is_complete(backend, source, destination, place):
    run(source, destination)
    for info in list(place.list(Kind.DATA)):
        if info.size > 60_000:
            place.delete(info.handle)
    repair(RepairRequest(parse_subset("all")), open_repository(place, clock=CLOCK))
    save(source, files(8), hours=8)
    done = run(open_repository(backend, clock=CLOCK), open_repository(place, clock=CLOCK))
    repository = whole(place)
    repository.load_index()
    (made,) = (each for each in repository.snapshots() if each.id in done.copied.snapshots.values())
    assert content(repository, made) == {f"/{path}": data for path, data in files(8).items()}


def test_a_repository_is_no_copy_of_itself(backend, source):
    with source.lock():
        source.load_index()
    with pytest.raises(RefusedError):
        from pra_agent.repository.copy import copy as copy_snapshots

        copy_snapshots(source, open_repository(backend), source.snapshots())


def test_snapshots_are_written_on_the_way(source, destination, place, monkeypatch):
    """A long copy that dies has brought over whole snapshots, not only blobs."""
    from pra_agent.repository import copy as module

    monkeypatch.setattr(module, "_SAVE_EVERY", 1000)
    counts: list[int] = []
    copy(
        REQUEST, source, destination, clock=CLOCK, report=lambda _: counts.append(len(list(place.list(Kind.SNAPSHOT))))
    )
    assert counts == [0, 1, 2, 3]


def test_a_blob_that_one_pack_has_lost_is_taken_from_another(backend, source, destination, place):
    other = open_repository(backend, clock=CLOCK)
    with other.lock(), other.writer() as writer:  # an index that was not loaded knows nothing
        for data in files(0).values():
            writer.add(BlobType.DATA, data)
    source.load_index()
    packs = [pack for pack, entries in source.index.packs() if entries[0].type is BlobType.DATA]
    victim = Handle(Kind.DATA, max(packs, key=lambda pack: len(backend.objects[Handle(Kind.DATA, pack)])))
    backend.objects[victim] = bytes(len(backend.objects[victim]))
    run(open_repository(backend, clock=CLOCK), destination)
    whole(place)


def test_an_unchanged_tree_costs_nothing(backend, source, destination):
    run(source, destination)
    newest = [each for each in source.snapshots() if each.job == "files"][-1]
    save(source, files(2), hours=7)
    assert source.snapshots()[-1].tree == newest.tree
    backend.read = 0
    done = run(open_repository(backend, clock=CLOCK), destination)
    assert len(done.copied.snapshots) == 1
    assert done.copied.blobs == 0
    assert backend.read == 0


def test_a_reference_that_cannot_be_read_any_more_does_no_harm(backend, source, destination, place):
    """The snapshot before is copied; then the source loses its trees; a new one goes over in full."""
    run(source, destination)
    source.load_index()
    newest = [each for each in source.snapshots() if each.job == "files"][-1]
    location = source.index.find(BlobHandle(BlobType.TREE, newest.tree))
    assert location
    backend.delete(Handle(Kind.DATA, location.pack))
    repair(RepairRequest(parse_subset("all")), open_repository(backend, clock=CLOCK))
    save(open_repository(backend, clock=CLOCK), files(11), hours=11)
    done = run(open_repository(backend, clock=CLOCK), open_repository(place, clock=CLOCK))
    assert done.record.outcome is Outcome.SUCCESS
    whole(place)
