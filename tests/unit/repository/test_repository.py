"""Opening, snapshots, and the order of things."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import (
    AlreadyExists,
    DamagedError,
    Locked,
    LockLost,
    NoRepository,
    NotFound,
    RepositoryExists,
    TransientStorageError,
    UsageError,
    WrongKey,
)
from pra_agent.model.ids import BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.model.trees import encode_tree
from pra_agent.repository import repository as repository_module
from pra_agent.repository.keys import open_master_key
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind
from tests.support.clock import FakeClock
from tests.support.faulty import Fault, FaultyBackend
from tests.support.memory import MemoryBackend
from tests.support.repositories import (
    ELSEWHERE,
    HOST,
    PASSWORD,
    QUICK,
    SETTINGS,
    make_repository,
    noise,
    reopen,
    snapshot,
    store,
)

TREE = encode_tree([Node(name=b"empty", type=NodeType.FILE, content=())])


def open_again(backend: MemoryBackend, password: str = PASSWORD, state: Path | None = None) -> Repository:
    return Repository.open(backend, password, clock=SystemClock(), host=HOST, state=state, settings=SETTINGS)


def save(repository: Repository, tags: tuple[str, ...] = ()) -> Snapshot:
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            tree = writer.add(BlobType.TREE, TREE)
        return repository.save_snapshot(snapshot(repository, tree, tags=tags))


def test_a_new_repository_has_a_config_and_a_key_and_nothing_else() -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    assert sorted(handle.kind for handle in backend.objects) == [Kind.CONFIG, Kind.KEY]
    again = open_again(backend)
    assert again.id == repository.id
    assert [slot.current for slot in again.keys.list()] == [True]
    reader: SnapshotReader = again
    assert reader.snapshots() == []


def test_a_second_init_changes_nothing() -> None:
    backend = MemoryBackend()
    make_repository(backend)
    before = dict(backend.objects)
    with pytest.raises(RepositoryExists):
        make_repository(backend)
    assert backend.objects == before


def test_of_two_inits_at_once_one_wins() -> None:
    backend = MemoryBackend()
    rival = MemoryBackend()
    make_repository(rival)

    class Racing(FaultyBackend):
        def put(self, handle: Handle, data: bytes | memoryview) -> None:
            if handle.kind is Kind.CONFIG:
                backend.objects.update(rival.objects)
            super().put(handle, data)

    with pytest.raises(RepositoryExists):
        make_repository(Racing(backend))
    assert backend.objects == rival.objects


def test_opening_tells_what_is_wrong() -> None:
    backend = MemoryBackend()
    with pytest.raises(NoRepository):
        open_again(backend)
    make_repository(backend)
    with pytest.raises(WrongKey):
        open_again(backend, "wrong")
    config = backend.objects[Handle(Kind.CONFIG)]
    backend.objects[Handle(Kind.CONFIG)] = config[:-1] + bytes([config[-1] ^ 1])
    with pytest.raises(DamagedError, match="config"):
        open_again(backend)
    keys = [handle for handle in backend.objects if handle.kind is Kind.KEY]
    del backend.objects[keys[0]]
    with pytest.raises(NotFound, match="no key slots"):
        open_again(backend)


def test_the_slot_that_opened_is_tried_first_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    for number in range(5):
        repository.keys.add(f"other {number}", cost=QUICK)
    hints: list[str] = []

    def spy(where: MemoryBackend, password: str, hint: str) -> object:
        hints.append(hint)
        return open_master_key(where, password, hint)

    monkeypatch.setattr(repository_module, "open_master_key", spy)
    opened = open_again(backend, "other 3", tmp_path)
    open_again(backend, "other 3", tmp_path)
    assert hints == ["", opened.keys.current]


def test_state_that_cannot_be_kept_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    backend = MemoryBackend()
    make_repository(backend)
    repository = open_again(backend, state=tmp_path / "file")
    assert repository.state is None
    store(repository, b"works all the same")


def test_snapshots_come_by_age_and_are_found() -> None:
    clock = FakeClock(datetime(2024, 5, 1, tzinfo=UTC))
    repository = make_repository(clock=clock)
    with pytest.raises(NotFound):
        repository.find_snapshot("latest")
    saved: list[Snapshot] = []
    for number in range(3):
        clock.advance(3600)
        saved.append(save(repository, (f"job=j{number}",)))
    other = reopen(repository)
    assert other.snapshots() == saved
    assert other.find_snapshot("latest") == saved[-1]
    for one in saved:
        assert other.find_snapshot(one.id) == one
        assert other.find_snapshot(one.id[:16].upper()) == one
    with pytest.raises(UsageError, match="too short"):
        other.find_snapshot(saved[0].id[:3])
    with pytest.raises(NotFound):
        other.find_snapshot("0000000000")
    assert other.read_tree(saved[0].tree)[0].name == b"empty"
    with other.lock():
        other.remove_snapshot(saved[2].id)
        assert other.find_snapshot("latest") == saved[1]
        with pytest.raises(NotFound):
            other.remove_snapshot(saved[2].id)


def test_a_prefix_of_two_snapshots_is_refused() -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    backend.objects[Handle(Kind.SNAPSHOT, "abcd" + "0" * 60)] = b"x"
    backend.objects[Handle(Kind.SNAPSHOT, "abcd" + "1" * 60)] = b"x"
    with pytest.raises(UsageError, match="2 snapshots"):
        repository.find_snapshot("abcd")
    with pytest.raises(DamagedError, match="abcd0"):
        repository.find_snapshot("abcd0")


def test_an_unreadable_snapshot_is_told_and_harms_no_other() -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    good = save(repository)
    bad = save(repository, ("job=x",))
    handle = Handle(Kind.SNAPSHOT, bad.id)
    backend.objects[handle] = backend.objects[handle][:-1] + b"?"
    strange = repository.files.write(Kind.SNAPSHOT, b'{"tree":7}')
    assert repository.snapshots() == [good]
    assert set(repository.unreadable_snapshots) == {bad.id, strange}
    del backend.objects[handle]
    backend.objects.pop(Handle(Kind.SNAPSHOT, strange))
    assert repository.snapshots() == [good]
    assert repository.unreadable_snapshots == {}


def test_snapshots_swapped_with_each_other_are_damaged() -> None:
    """Both are sealed by the right key; only the name tells them apart."""
    backend = MemoryBackend()
    repository = make_repository(backend)
    one, two = save(repository, ("job=1",)), save(repository, ("job=2",))
    first, second = Handle(Kind.SNAPSHOT, one.id), Handle(Kind.SNAPSHOT, two.id)
    backend.objects[first], backend.objects[second] = backend.objects[second], backend.objects[first]
    assert repository.snapshots() == []
    assert len(repository.unreadable_snapshots) == 2


def test_nothing_is_changed_without_a_lock() -> None:
    repository = make_repository()
    one = snapshot(repository, bytes(32))
    for change in (lambda: repository.save_snapshot(one), lambda: repository.remove_snapshot("0" * 64)):
        with pytest.raises(RuntimeError, match="without a lock"):
            change()
    with repository.lock() as lock:
        repository.backend.delete(Handle(Kind.LOCK, lock.id))
        with pytest.raises(LockLost):
            repository.save_snapshot(one)
    assert repository.snapshots() == []


def test_locks_of_two_hosts() -> None:
    repository = make_repository()
    other = reopen(repository, host=ELSEWHERE)
    with repository.lock(), other.lock():
        assert len(repository.locks.read_all()) == 2
        with pytest.raises(Locked), other.lock(exclusive=True):
            pytest.fail("must not be reached")
    with repository.lock(exclusive=True), pytest.raises(Locked), other.lock():
        pytest.fail("must not be reached")
    assert repository.unlock() == []


def test_a_reload_forgets_what_another_machine_removed() -> None:
    repository = make_repository()
    (handle,) = store(repository, b"pruned elsewhere")
    repository.load_index()
    assert repository.has(handle)
    for info in list(repository.backend.list(Kind.INDEX)):
        repository.backend.delete(info.handle)
    with repository.lock():
        repository.load_index()
        assert not repository.has(handle)


def test_an_unreadable_index_is_an_error_but_not_for_repair() -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    store(repository, b"one")
    (good,) = [handle for handle in backend.objects if handle.kind is Kind.INDEX]
    (handle,) = store(repository, b"two")
    (bad,) = [one for one in backend.objects if one.kind is Kind.INDEX and one != good]
    backend.objects[bad] = backend.objects[bad][:50]
    strange = repository.files.write(Kind.INDEX, json.dumps({"packs": [{}]}).encode())
    with pytest.raises(DamagedError, match="index/"):
        repository.load_index()
    unreadable = repository.load_readable_index()
    assert set(unreadable) == {bad.name, strange}
    assert len(repository.index) == 1
    assert not repository.has(handle)


def test_an_error_of_the_store_while_loading_is_raised() -> None:
    inner = MemoryBackend()
    repository = make_repository(inner)
    store(repository, b"one")
    faulty = FaultyBackend(inner, Fault(at=1, times=99, operations=("get",), kinds=(Kind.INDEX,)))
    other = Repository.open(faulty, PASSWORD, clock=SystemClock(), host=HOST)
    with pytest.raises(TransientStorageError):
        other.load_readable_index()


def test_indexes_and_snapshots_are_cached_only_off_host(tmp_path: Path) -> None:
    backend = MemoryBackend(off_host=True)
    repository = make_repository(backend)
    save(repository)
    for expected in (1, 0):
        faulty = FaultyBackend(backend)
        other = reopen(repository, backend=faulty, state=tmp_path)
        other.snapshots()
        assert faulty.log.count(("get", Kind.INDEX)) == expected
        assert faulty.log.count(("get", Kind.SNAPSHOT)) == expected
    local = make_repository(MemoryBackend(), state=tmp_path)
    assert local.cache is None


def test_many_index_files_load_in_parallel() -> None:
    backend = MemoryBackend()
    repository = make_repository(backend, clock=FakeClock())
    handles = [store(repository, noise(50))[0] for _ in range(30)]
    other = reopen(repository)
    assert all(other.has(handle) for handle in handles)
    assert len(other.index.files) == 30


def test_a_config_that_exists_with_other_content_is_not_overwritten() -> None:
    backend = MemoryBackend()
    make_repository(backend)
    with pytest.raises(AlreadyExists):
        backend.put(Handle(Kind.CONFIG), b"other")


def test_the_lock_goes_stale_without_refresh() -> None:
    clock = FakeClock()
    repository = make_repository(clock=clock)
    name = repository.locks.write(exclusive=True)
    assert [lock.stale for lock in repository.locks.read_all()] == [False]
    clock.advance(timedelta(minutes=31).total_seconds())
    assert [lock.id for lock in repository.unlock()] == [name]
