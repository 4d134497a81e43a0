"""Repair: what can be saved is saved, what is lost is left out and told, and nothing gets worse."""

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Event
from typing import BinaryIO

import pytest

from pra_agent.errors import (
    AccessDenied,
    Interrupted,
    NoRepository,
    RefusedError,
    TransientStorageError,
    WrongKey,
)
from pra_agent.model.events import Event as Told
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.repair import RepairDone, RepairRequest, host_files, repair
from pra_agent.repository import prune, repair_packs
from pra_agent.repository import repair as repairing
from pra_agent.repository.check import check
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.index import encode_index
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repair_config import rebuild_config
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind
from tests.support.memory import MemoryBackend
from tests.support.restic import PASSWORD
from tests.support.small_repository import content, new_repository, noise, open_repository, save

ALL = parse_subset("all")
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 4]) + data[len(data) // 3 + 1 :],
    "cut": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda _: b"",
    "lengthened": lambda data: data + b"\0",
}


def files(*seeds: int) -> dict[str, bytes]:
    return {f"dir{seed % 3}/file{seed}": noise(seed, 20_000) for seed in seeds}


def rooted(of: dict[str, bytes]) -> dict[str, bytes]:
    return {f"/{path}": data for path, data in of.items()}


FIRST, SECOND, DB = files(*range(9)), files(*range(3, 12)), files(100, 101)


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def repository(backend: MemoryBackend) -> Repository:
    """Two jobs, of which one has two snapshots that share files."""
    repository = new_repository(backend)
    save(repository, FIRST)
    save(repository, SECOND, hours=1)
    save(repository, DB, hours=2, job="db")
    return repository


def mend(backend: MemoryBackend, **fields: object) -> RepairDone:
    """Repair, and demand that a check finds nothing afterwards."""
    done = repair(RepairRequest(**{"subset": ALL, **fields}), open_repository(backend))  # type: ignore[arg-type]
    fresh = open_repository(backend)
    with fresh.lock():
        result = check(fresh, ALL)
    assert result.ok, result.lines()
    return done


def contents(backend: MemoryBackend) -> list[dict[str, bytes]]:
    repository = open_repository(backend)
    repository.load_index()
    return [content(repository, snapshot) for snapshot in repository.snapshots()]


def largest(backend: MemoryBackend, kind: Kind) -> Handle:
    return max(backend.list(kind), key=lambda info: info.size).handle


def packs_of(backend: MemoryBackend, blob_type: BlobType) -> list[Handle]:
    repository = open_repository(backend)
    repository.load_index()
    packs = [(len(entries), pack) for pack, entries in repository.index.packs() if entries[0].type is blob_type]
    return [Handle(Kind.DATA, pack) for _, pack in sorted(packs, reverse=True)]


def test_nothing_to_repair_changes_nothing(backend, repository):
    before = dict(backend.objects)
    done = mend(backend)
    assert done.plan.empty
    assert backend.objects == before


@pytest.mark.parametrize("how", [*DAMAGE, "deleted"])
def test_a_damaged_index_is_made_anew_from_packs(backend, repository, how):
    for info in list(backend.list(Kind.INDEX)):
        if how == "deleted":
            backend.delete(info.handle)
        else:
            backend.objects[info.handle] = DAMAGE[how](backend.objects[info.handle])
    done = mend(backend)
    assert not done.plan.lost
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]


def test_an_index_that_lies_is_made_anew(backend, repository):
    repository.load_index()
    listed = list(repository.index.packs())
    for info in list(backend.list(Kind.INDEX)):
        backend.delete(info.handle)
    wrong = [(pack, [entry._replace(length=entry.length + 1) for entry in entries]) for pack, entries in listed]
    repository.files.write(Kind.INDEX, encode_index(wrong))
    mend(backend)
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]


@pytest.mark.parametrize("how", [*DAMAGE, "deleted"])
def test_of_a_damaged_data_pack_the_rest_is_saved(backend, repository, how):
    handle = packs_of(backend, BlobType.DATA)[0]
    if how == "deleted":
        backend.delete(handle)
    else:
        backend.objects[handle] = DAMAGE[how](backend.objects[handle])
    done = mend(backend)
    assert done.done
    lost_files = 0
    for found, expected in zip(contents(backend), (FIRST, SECOND, DB), strict=True):
        assert found.items() <= rooted(expected).items()
        lost_files += len(expected) - len(found)
    if how == "lengthened":
        assert not lost_files
    else:
        assert 0 < lost_files < 9
    assert done.done.blobs_saved or how in {"emptied", "deleted"}


def test_a_repaired_snapshot_is_marked_and_keeps_its_time(backend, repository):
    before = repository.snapshots()
    backend.delete(packs_of(backend, BlobType.DATA)[0])
    done = mend(backend)
    assert done.done
    after = repository.snapshots()
    assert [each.time for each in after] == [each.time for each in before]
    for old, new in zip(before, after, strict=True):
        if old.id in done.done.rewritten:
            assert new.id == done.done.rewritten[old.id]
            assert new.original == old.id
            assert {"partial", "repaired"} <= set(new.tags)
            assert new.job == old.job
        else:
            assert new == old


@pytest.mark.parametrize("how", [*DAMAGE, "deleted"])
def test_lost_trees_take_only_their_own_directories(backend, repository, how):
    handle = packs_of(backend, BlobType.TREE)[0]
    if how == "deleted":
        backend.delete(handle)
    else:
        backend.objects[handle] = DAMAGE[how](backend.objects[handle])
    mend(backend)
    for found in contents(backend):
        assert any(found.items() <= rooted(expected).items() for expected in (FIRST, SECOND, DB))


def test_a_snapshot_of_which_nothing_is_left_is_dropped(backend, repository):
    for handle in packs_of(backend, BlobType.TREE):
        backend.delete(handle)
    done = mend(backend)
    assert done.done
    assert len(done.plan.doomed) == 3
    assert not contents(backend)


def test_blobs_are_read_again_from_the_host(backend, repository):
    for handle in packs_of(backend, BlobType.DATA):
        backend.delete(handle)
    host = {**rooted(SECOND), **rooted(DB)}

    def opener(_snapshot: Snapshot, path: bytes) -> AbstractContextManager[BinaryIO] | None:
        data = host.get(path.decode())
        return None if data is None else nullcontext(io.BytesIO(data))

    done = mend(backend, opener=opener)
    assert done.done
    assert done.done.blobs_read_again >= 11
    assert contents(backend) == [rooted(files(*range(3, 9))), rooted(SECOND), rooted(DB)]


def test_a_file_that_changed_on_the_host_is_no_help_and_no_harm(backend, repository):
    for handle in packs_of(backend, BlobType.DATA):
        backend.delete(handle)
    done = mend(backend, opener=lambda _snapshot, _path: nullcontext(io.BytesIO(b"something else")))
    assert done.done
    assert done.done.blobs_read_again == 0
    assert all(not found for found in contents(backend))


def test_host_files_opens_regular_files_only(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    opener = host_files(lambda _snapshot, path: None if path == b"/not here" else bytes(tmp_path) + path)
    snapshot = Snapshot(time=None, tree=b"", paths=(), hostname="")  # type: ignore[arg-type]
    opened = opener(snapshot, b"/file")
    assert opened is not None
    with opened as file:
        assert file.read() == b"content"
    assert [opener(snapshot, path) for path in (b"/link", b"/missing", b"/not here", b"/")] == [None] * 4


@pytest.mark.parametrize("how", [*DAMAGE, "deleted"])
def test_a_lost_snapshot_file_is_recovered_from_its_tree(backend, repository, how):
    victim = repository.snapshots()[2]
    handle = Handle(Kind.SNAPSHOT, victim.id)
    if how == "deleted":
        backend.delete(handle)
    else:
        backend.objects[handle] = DAMAGE[how](backend.objects[handle])
    done = mend(backend, recover=True)
    assert done.done
    assert len(done.done.recovered) == 1
    fresh = open_repository(backend)
    fresh.load_index()
    (recovered,) = (each for each in fresh.snapshots() if each.id in done.done.recovered)
    assert content(fresh, recovered) == rooted(DB)
    assert not recovered.job


@pytest.mark.parametrize("kind", [Kind.SNAPSHOT, Kind.INDEX, Kind.DATA])
def test_files_that_changed_places_are_all_saved(backend, repository, kind):
    for one, other in zip(
        *[iter(sorted((i.handle for i in backend.list(kind)), key=lambda h: h.name))] * 2, strict=False
    ):
        backend.objects[one], backend.objects[other] = backend.objects[other], backend.objects[one]
    mend(backend)
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]
    assert [snapshot.job for snapshot in repository.snapshots()] == ["files", "files", "db"]


def test_a_dry_run_changes_nothing(backend, repository):
    backend.delete(packs_of(backend, BlobType.DATA)[0])
    before = dict(backend.objects)
    done = repair(RepairRequest(subset=ALL, dry_run=True), open_repository(backend))
    assert done.done is None
    assert backend.objects == before
    assert any("are missing or broken" in line for line in done.plan.lines())


def test_doing_it_again_finds_nothing_to_do(backend, repository):
    backend.delete(packs_of(backend, BlobType.DATA)[0])
    mend(backend)
    before = dict(backend.objects)
    assert mend(backend).plan.empty
    assert backend.objects == before


def test_a_prune_after_a_repair_clears_what_is_left(backend, repository):
    handle = packs_of(backend, BlobType.DATA)[0]
    backend.objects[handle] = DAMAGE["flipped"](backend.objects[handle])
    mend(backend)
    before = contents(backend)
    fresh = open_repository(backend)
    with fresh.lock(exclusive=True) as lock:
        prune.execute(prune.plan(fresh, PruneSettings(max_unused="0")), fresh, lock)
    assert handle not in backend.objects
    assert contents(backend) == before
    mend(backend)


def test_it_needs_an_exclusive_lock(repository):
    with repository.lock() as lock, pytest.raises(RuntimeError):
        repairing.execute(repairing.plan(repository), repository, lock)


def test_a_lost_config_is_written_anew(backend, repository):
    with pytest.raises(RefusedError):
        rebuild_config(backend, PASSWORD)
    backend.delete(Handle(Kind.CONFIG))
    with pytest.raises(NoRepository):
        open_repository(backend)
    with pytest.raises(WrongKey):
        rebuild_config(backend, "wrong")
    assert rebuild_config(backend, PASSWORD, repository_id=repository.id).id == repository.id
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]
    backend.objects[Handle(Kind.CONFIG)] = b"broken"
    rebuild_config(backend, PASSWORD)
    mend(backend)


def test_many_lost_things_at_once(backend, repository):
    """A disk that lost every third file: what is left is whole, and no file has wrong content."""
    handles: Sequence[Handle] = sorted(
        (h for h in backend.objects if h.kind in {Kind.DATA, Kind.INDEX, Kind.SNAPSHOT}), key=lambda h: h.name
    )
    for number, handle in enumerate(handles):
        if number % 3 == 0:
            backend.objects[handle] = DAMAGE[list(DAMAGE)[number % 4]](backend.objects[handle])
    mend(backend)
    for found in contents(backend):
        assert any(found.items() <= rooted(expected).items() for expected in (FIRST, SECOND, DB))


def test_headers_are_believed_where_nothing_is_proven(backend, repository):
    """Without reading everything a lost index costs one request a pack, not the whole repository."""
    for info in list(backend.list(Kind.INDEX)):
        backend.delete(info.handle)
    hopeless = Handle(Kind.DATA, "ab" * 32)
    backend.put(hopeless, b"not a pack")
    done = repair(RepairRequest(), open_repository(backend))
    assert done.plan.packs.hopeless == [hopeless.name]
    assert hopeless in backend.objects
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]


def test_a_large_index_is_built_in_parts(backend, repository, monkeypatch):
    monkeypatch.setattr(repair_packs, "_FOLD", 5)
    backend.delete(largest(backend, Kind.INDEX))
    mend(backend)
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]


def test_a_store_that_does_not_answer_is_no_reason_to_drop_a_snapshot(backend, repository, monkeypatch):
    victim = next(iter(backend.list(Kind.SNAPSHOT))).handle
    inner = backend.get

    def get(handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        if handle == victim:
            raise TransientStorageError("no answer")
        data: bytes = inner(handle, offset, length)
        return data

    opened = open_repository(backend)
    monkeypatch.setattr(backend, "get", get)
    before = dict(backend.objects)
    with pytest.raises(TransientStorageError):
        repair(RepairRequest(), opened)
    assert backend.objects == before


def test_what_may_not_be_removed_stops_the_repair(backend, repository, monkeypatch):
    index = largest(backend, Kind.INDEX)
    backend.objects[index] = b"broken"
    inner = backend.delete

    def delete(handle: Handle) -> None:
        if handle.kind is not Kind.LOCK:
            raise AccessDenied("no")
        inner(handle)

    monkeypatch.setattr(backend, "delete", delete)
    told: list[Told] = []
    with pytest.raises(AccessDenied):
        repair(RepairRequest(ALL), open_repository(backend), report=told.append)
    assert any("could not be removed" in str(event) for event in told)
    monkeypatch.undo()
    mend(backend)
    assert contents(backend) == [rooted(FIRST), rooted(SECOND), rooted(DB)]


def test_it_can_be_stopped_and_done_again(backend, repository):
    for handle in packs_of(backend, BlobType.DATA)[:2]:
        backend.objects[handle] = DAMAGE["flipped"](backend.objects[handle])
    stop = Event()
    with repository.lock(exclusive=True) as lock:
        plan = repairing.plan(repository, suspects={h.name for h in packs_of(backend, BlobType.DATA)})
        stop.set()
        with pytest.raises(Interrupted):
            repairing.execute(plan, repository, lock, stop=stop)
        with pytest.raises(Interrupted):
            repairing.plan(repository, suspects={h.name for h in packs_of(backend, BlobType.DATA)}, stop=stop)
    mend(backend)


def test_a_host_that_fails_to_read_is_told_and_no_harm(backend, repository):
    class Failing(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(5, "input/output error")

    for handle in packs_of(backend, BlobType.DATA):
        backend.delete(handle)
    told: list[Told] = []
    request = RepairRequest(ALL, opener=lambda _snapshot, path: nullcontext(Failing()) if b"1" in path else None)
    repair(request, open_repository(backend), report=told.append)
    assert any("input/output error" in str(event) for event in told)
    assert all(not found for found in contents(backend))


def test_a_killed_repair_writes_no_snapshot_twice(backend, repository):
    """The new snapshots are there, the old ones still are: the second repair finishes without a third generation."""
    old = {h: backend.objects[h] for h in backend.objects if h.kind is Kind.SNAPSHOT}
    backend.delete(packs_of(backend, BlobType.DATA)[0])
    mend(backend)
    after = {h for h in backend.objects if h.kind is Kind.SNAPSHOT}
    backend.objects.update(old)
    mend(backend)
    assert {h for h in backend.objects if h.kind is Kind.SNAPSHOT} == after


def test_handles_are_told_by_type(backend, repository):
    repository.load_index()
    assert not repository.has(BlobHandle(BlobType.TREE, next(iter(repository.snapshots())).tree[::-1]))
