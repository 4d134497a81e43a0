"""Prune: gives back what nothing needs, keeps what something needs, refuses when the repository contradicts itself."""

from datetime import timedelta

import pytest

from pra_agent.errors import DamagedError, Interrupted, LockLost, RefusedError
from pra_agent.model.ids import BlobType
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository import prune
from pra_agent.repository.prune_plan import PrunePlan, PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend
from tests.support.small_repository import content, new_repository, noise, open_repository, save

TIGHT = PruneSettings(max_unused="0")


def files(*seeds: int, size: int = 20_000) -> dict[str, bytes]:
    return {f"dir{seed % 3}/file{seed}": noise(seed, size) for seed in seeds}


def run(repository: Repository, settings: PruneSettings = TIGHT) -> tuple[PrunePlan, prune.Pruned]:
    with repository.lock(exclusive=True) as lock:
        plan = prune.plan(repository, settings)
        return plan, prune.execute(plan, repository, lock, settings=settings)


def packs(backend: MemoryBackend) -> set[str]:
    return {info.handle.name for info in backend.list(Kind.DATA)}


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


def proven(backend: MemoryBackend, *wanted: tuple[Snapshot, dict[str, bytes]]) -> None:
    """Everything that is wanted reads back, all packs are listed, and all listed ones are there."""
    fresh = open_repository(backend)
    fresh.load_index()
    assert {pack for pack, _ in fresh.index.packs()} == packs(backend)
    for snapshot, expected in wanted:
        assert content(fresh, snapshot) == {f"/{path}": data for path, data in expected.items()}


def test_what_a_forgotten_snapshot_alone_needed_goes(backend):
    repository = new_repository(backend)
    old = save(repository, files(*range(20)))
    kept = save(repository, files(*range(10, 30)), hours=1)
    before = sum(info.size for info in backend.list(Kind.DATA))
    with repository.lock():
        repository.remove_snapshot(old.id)
    plan, done = run(repository)
    after = sum(info.size for info in backend.list(Kind.DATA))
    assert done.packs_removed + done.packs_repacked > 0
    assert before - after > 9 * 20_000
    assert abs(before - after - done.bytes_given_back) < 4096  # headers of packs come and go
    assert plan.figures.bytes_unused_after == 0
    proven(backend, (kept, files(*range(10, 30))))
    again, _ = run(open_repository(backend))
    assert again.empty


def test_nothing_to_do_changes_nothing(backend):
    repository = new_repository(backend)
    save(repository, files(1, 2, 3))
    before = dict(backend.objects)
    plan, done = run(repository)
    assert plan.empty
    assert done == prune.Pruned()
    assert backend.objects == before


def test_an_empty_repository_can_be_pruned(backend):
    plan, _ = run(new_repository(backend))
    assert plan.empty


def test_without_snapshots_all_goes(backend):
    repository = new_repository(backend)
    snapshot = save(repository, files(1, 2, 3))
    with repository.lock():
        repository.remove_snapshot(snapshot.id)
    run(repository)
    assert not packs(backend)
    assert not list(backend.list(Kind.INDEX))


def test_a_plan_alone_changes_nothing_and_prints(backend):
    repository = new_repository(backend)
    old = save(repository, files(*range(20)))
    save(repository, files(*range(10, 30)), hours=1)
    with repository.lock():
        repository.remove_snapshot(old.id)
    before = dict(backend.objects)
    plan = prune.plan(repository, TIGHT)
    assert backend.objects == before
    assert not plan.empty
    assert any("rewritten" in line for line in plan.lines())
    assert plan.to_json()["packs_repacked"] == len(plan.repack)


def test_some_waste_may_stay(backend):
    repository = new_repository(backend)
    old = save(repository, files(*range(20)))
    save(repository, files(*range(19)), hours=1)
    with repository.lock():
        repository.remove_snapshot(old.id)
    assert not len(prune.plan(repository, PruneSettings(max_unused="50%")).repack)
    assert not len(prune.plan(repository, PruneSettings(max_unused="10MiB")).repack)
    assert not len(prune.plan(repository, PruneSettings(max_unused="unlimited")).repack)
    assert len(prune.plan(repository, PruneSettings(max_unused="1%")).repack)


def test_rewriting_is_limited_and_the_next_run_goes_on(backend):
    repository = new_repository(backend)
    old = save(repository, files(*range(60)))
    half = files(*range(0, 60, 2))
    kept = save(repository, half, hours=1)
    with repository.lock():
        repository.remove_snapshot(old.id)
    free = prune.plan(repository, TIGHT)
    limit = free.figures.bytes_repacked // 2
    runs = 0
    while not prune.plan(open_repository(backend), TIGHT).empty:
        plan, done = run(open_repository(backend), PruneSettings(max_unused="0", max_repack=limit))
        assert done.bytes_repacked <= limit
        assert plan.figures.packs_repacked < free.figures.packs_repacked or runs
        runs += 1
        assert runs < 10
    assert runs >= 2
    proven(backend, (kept, half))


def test_a_budget_ends_rewriting_in_order(backend):
    clock = FakeClock()
    repository = new_repository(backend, clock=clock)
    old = save(repository, files(*range(60)))
    half = files(*range(0, 60, 2))
    kept = save(repository, half, hours=1)
    with repository.lock():
        repository.remove_snapshot(old.id)
    settings = PruneSettings(max_unused="0", budget=timedelta(seconds=10))
    with repository.lock(exclusive=True) as lock:
        plan = prune.plan(repository, settings)
        done = prune.execute(plan, repository, lock, settings=settings, report=lambda _: clock.advance(6))
    assert 0 < done.packs_repacked < len(plan.repack)
    assert done.packs_left == len(plan.repack) - done.packs_repacked
    proven(backend, (kept, half))
    run(open_repository(backend))
    proven(backend, (kept, half))


def test_small_packs_and_small_indexes_are_merged(backend):
    repository = new_repository(backend)
    made = [(save(repository, files(n, size=3000), hours=n), files(n, size=3000)) for n in range(20)]
    assert len(packs(backend)) == 40
    plan, _ = run(repository)
    assert plan.figures.packs_repacked == 40
    assert len(packs(backend)) < 5
    assert len(list(backend.list(Kind.INDEX))) == 1
    proven(backend, *made)
    assert prune.plan(open_repository(backend), TIGHT).empty


def test_a_pack_that_no_index_lists_is_removed(backend):
    repository = new_repository(backend)
    kept = save(repository, files(1))
    orphan = Handle(Kind.DATA, "ab" * 32)
    backend.put(orphan, b"left behind by a killed run")
    plan, done = run(repository)
    assert (plan.figures.packs_unindexed, done.packs_removed) == (1, 1)
    proven(backend, (kept, files(1)))


def test_a_missing_pack_that_nothing_needs_leaves_the_index(backend):
    repository = new_repository(backend)
    old = save(repository, files(1))
    gone = packs(backend)
    kept = save(repository, files(2), hours=1)
    with repository.lock():
        repository.remove_snapshot(old.id)
    for name in gone:
        backend.delete(Handle(Kind.DATA, name))
    plan, _ = run(repository)
    assert plan.figures.packs_vanished == len(gone)
    proven(backend, (kept, files(2)))


def test_duplicates_are_kept_once(backend):
    repository = new_repository(backend)
    kept = save(repository, files(*range(6)))
    other = open_repository(backend)
    with other.lock(), other.writer() as writer:  # an index that was not loaded knows nothing
        for data in files(*range(6)).values():
            writer.add(BlobType.DATA, data)
    plan, _ = run(repository)
    assert plan.figures.bytes_duplicate > 6 * 20_000
    proven(backend, (kept, files(*range(6))))
    assert sum(info.size for info in backend.list(Kind.DATA)) < 8 * 20_000


def test_indexes_that_list_the_same_packs_twice_count_once(backend):
    repository = new_repository(backend)
    kept = save(repository, files(*range(6)))
    (index,) = backend.list(Kind.INDEX)
    document = repository.files.read(index.handle)
    repository.files.write(Kind.INDEX, document)
    plan = prune.plan(repository, TIGHT)
    assert plan.figures.bytes_duplicate == 0
    assert plan.figures.blobs_unused == 0
    proven(backend, (kept, files(*range(6))))


# ---------------------------------------------------------------- refusals
@pytest.fixture
def wasteful(backend):
    """A repository in which there is something to do."""
    repository = new_repository(backend)
    old = save(repository, files(*range(20)))
    save(repository, files(*range(10, 30)), hours=1)
    with repository.lock():
        repository.remove_snapshot(old.id)
    return repository


def unchanged_after(backend: MemoryBackend, repository: Repository, error: type[Exception], match: str) -> None:
    before = {handle: data for handle, data in backend.objects.items() if handle.kind is not Kind.LOCK}
    with pytest.raises(error, match=match):
        run(repository)
    after = {handle: data for handle, data in backend.objects.items() if handle.kind is not Kind.LOCK}
    assert {handle: after.get(handle) for handle in before} == before  # nothing was removed


def needed_pack(repository: Repository) -> str:
    plan = prune.plan(repository, TIGHT)
    return plan.packs.table.name(int(plan.packs.table.used.argmax()))


def test_it_refuses_when_a_needed_pack_is_missing(backend, wasteful):
    backend.delete(Handle(Kind.DATA, needed_pack(wasteful)))
    unchanged_after(backend, wasteful, RefusedError, "are missing")


def test_it_refuses_when_a_needed_pack_has_another_size(backend, wasteful):
    handle = Handle(Kind.DATA, needed_pack(wasteful))
    backend.objects[handle] += b"x"
    unchanged_after(backend, wasteful, RefusedError, "another size")


def test_it_refuses_when_a_blob_is_in_no_index(backend, wasteful):
    name = max(backend.list(Kind.INDEX), key=lambda info: info.size).handle.name
    backend.delete(Handle(Kind.INDEX, name))
    unchanged_after(backend, wasteful, RefusedError, "is in no index")


def test_it_refuses_when_a_snapshot_is_not_readable(backend, wasteful):
    backend.put(Handle(Kind.SNAPSHOT, "ab" * 32), b"not a snapshot")
    unchanged_after(backend, wasteful, RefusedError, "snapshot abababab")


def test_it_refuses_when_an_index_is_not_readable(backend, wasteful):
    backend.put(Handle(Kind.INDEX, "ab" * 32), b"not an index")
    unchanged_after(backend, wasteful, DamagedError, "index/abab")


def test_it_refuses_to_move_a_broken_blob(backend, wasteful):
    plan = prune.plan(wasteful, TIGHT)
    facts = plan.packs.table
    number = next(int(n) for n in plan.repack if facts.types[n] == 1)
    entry = plan.packs.entries(number, plan.packs.pick(plan.repack, needed=True))[0]
    handle = Handle(Kind.DATA, facts.name(number))
    damaged = bytearray(backend.objects[handle])
    damaged[entry.offset + 20] ^= 1
    backend.objects[handle] = bytes(damaged)
    unchanged_after(backend, wasteful, DamagedError, "blob data/")


def test_it_stops_when_somebody_writes_a_snapshot_meanwhile(backend, wasteful):
    with wasteful.lock(exclusive=True) as lock:
        plan = prune.plan(wasteful, TIGHT)
        save(wasteful, files(5), hours=3, locked=True)
        with pytest.raises(LockLost, match="snapshot"):
            prune.execute(plan, wasteful, lock, settings=TIGHT)


def test_it_stops_when_somebody_indexes_a_pack_that_is_to_go(backend, wasteful):
    with wasteful.lock(exclusive=True) as lock:
        plan = prune.plan(wasteful, TIGHT)
        (index, *_) = backend.list(Kind.INDEX)
        wasteful.files.write(Kind.INDEX, wasteful.files.read(index.handle))
        with pytest.raises(LockLost, match="index"):
            prune.execute(plan, wasteful, lock, settings=TIGHT)


def test_it_needs_an_exclusive_lock(backend, wasteful):
    with wasteful.lock() as lock:
        plan = prune.plan(wasteful, TIGHT)
        with pytest.raises(RuntimeError):
            prune.execute(plan, wasteful, lock)


def test_it_can_be_stopped(backend, wasteful):
    from threading import Event

    stop = Event()
    stop.set()
    with wasteful.lock(exclusive=True) as lock:
        plan = prune.plan(wasteful, TIGHT)
        with pytest.raises(Interrupted):
            prune.execute(plan, wasteful, lock, settings=TIGHT, stop=stop)
        with pytest.raises(Interrupted):
            prune.plan(wasteful, TIGHT, stop=stop)


@pytest.mark.parametrize("text", ["100%", "-1%", "much"])
def test_a_share_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="max_unused"):
        PruneSettings(max_unused=text)
