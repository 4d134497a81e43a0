"""Storing blobs: durable and indexed at the end, bounded on the way, nothing twice, honest after an error."""

import threading
from pathlib import Path

import pytest

from pra_agent.errors import Interrupted, LockLost, StorageFull, TransientStorageError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.repository.codec import content_id
from pra_agent.repository.index import decode_index
from pra_agent.repository.pack import read_header
from pra_agent.repository.repository import Repository, still_sealed
from pra_agent.repository.settings import MIB
from pra_agent.storage.backend import Handle, Kind
from tests.support.clock import FakeClock
from tests.support.faulty import Crash, Fault, FaultyBackend, Mode
from tests.support.memory import MemoryBackend
from tests.support.repositories import SETTINGS, add_all, make_repository, noise, reopen, store


def objects(repository: Repository, kind: Kind) -> list[str]:
    return [info.handle.name for info in repository.backend.list(kind)]


def memory(repository: Repository) -> MemoryBackend:
    assert isinstance(repository.backend, MemoryBackend)
    return repository.backend


def all_blobs(repository: Repository) -> dict[BlobHandle, int]:
    """How often each blob lies in a pack, by the packs' own headers."""
    found: dict[BlobHandle, int] = {}
    for info in repository.backend.list(Kind.DATA):
        for entry in read_header(repository.backend, repository.codec, info.handle.name, info.size):
            handle = BlobHandle(entry.type, entry.id)
            found[handle] = found.get(handle, 0) + 1
    return found


def test_what_was_added_is_read_by_another_process() -> None:
    repository = make_repository()
    blobs = [b"", b"x", b"text " * 1000, noise(100_000)]
    handles = store(repository, *blobs)
    other = reopen(repository)
    assert dict(other.read(handles)) == dict(zip(handles, blobs, strict=True))
    assert [other.read_blob(handle) for handle in handles] == blobs
    assert other.sizes([*handles, BlobHandle(BlobType.DATA, bytes(32))]) == {
        handle: len(blob) for handle, blob in zip(handles, blobs, strict=True)
    }


def test_a_blob_is_stored_once() -> None:
    repository = make_repository()
    (first,) = store(repository, b"again")
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            assert add_all(writer, (b"again", b"new", b"new"))[0] == first
            sealed = repository.sealer().seal(BlobType.DATA, b"again")
            assert not writer.add_sealed(sealed)
            sealed = repository.sealer().seal(BlobType.DATA, b"sealed elsewhere")
            assert writer.add_sealed(sealed)
            assert not writer.add_sealed(sealed)
            # A tree with the same bytes is another blob.
            writer.add(BlobType.TREE, b"again")
            assert (writer.stats.blobs, writer.stats.data_blobs, writer.stats.tree_blobs) == (3, 2, 1)
            assert writer.stats.bytes_added == len(b"new" + b"sealed elsewhere" + b"again")
    assert set(all_blobs(repository).values()) == {1}
    assert len(all_blobs(repository)) == 4


def test_packs_have_their_size_and_one_type() -> None:
    repository = make_repository()
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            for number in range(40):
                writer.add(BlobType.DATA, noise(500_000))
                writer.add(BlobType.TREE, b"%d" % number)
    sizes = {info.handle.name: info.size for info in repository.backend.list(Kind.DATA)}
    for pack, size in sizes.items():
        entries = read_header(repository.backend, repository.codec, pack, size)
        assert len({entry.type for entry in entries}) == 1
        assert size < 5 * MIB
        assert content_id(repository.backend.get(Handle(Kind.DATA, pack))).hex() == pack
    assert sum(1 for size in sizes.values() if size > 4 * MIB) >= 3
    assert len(sizes) <= 7
    assert len(objects(repository, Kind.INDEX)) == 1


def test_blobs_are_spread_over_open_packs() -> None:
    """Neighbours in a file need not be neighbours in a pack; small packs are joined at the end."""
    repository = make_repository()
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            order = [content_id(blob) for blob in (b"%05d" % number for number in range(64))]
            for number in range(64):
                writer.add(BlobType.DATA, b"%05d" % number)
    (info,) = repository.backend.list(Kind.DATA)
    stored = [one.id for one in read_header(repository.backend, repository.codec, info.handle.name, info.size)]
    assert sorted(stored) == sorted(order)
    assert stored != order


def test_indexes_are_written_while_the_run_goes_on() -> None:
    repository = make_repository(settings=SETTINGS.model_copy(update={"index_blobs": 5}))
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            for _ in range(30):
                writer.add(BlobType.DATA, noise(1 * MIB))
            writer.flush()
            flushed = objects(repository, Kind.INDEX)
            assert len(flushed) >= 4
            seen = reopen(repository)
            assert len(seen.index) == 30
            writer.add(BlobType.DATA, b"last")
    listed = [pack.pack for name in objects(repository, Kind.INDEX) for pack in _packs_of(repository, name)]
    assert sorted(listed) == sorted(objects(repository, Kind.DATA))


class _Pack:
    def __init__(self, pack: str) -> None:
        self.pack = pack


def _packs_of(repository: Repository, name: str) -> list[_Pack]:
    decoded = decode_index(repository.files.read(Handle(Kind.INDEX, name)))
    return [_Pack(decoded.packs[start : start + 32].hex()) for start in range(0, len(decoded.packs), 32)]


def test_indexes_are_written_by_time() -> None:
    clock = FakeClock()
    repository = make_repository(clock=clock)
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            for _ in range(12):
                clock.advance(100)
                writer.add(BlobType.DATA, noise(3 * MIB))
            writer.flush()
            assert len(objects(repository, Kind.INDEX)) >= 2


def test_nothing_new_writes_nothing() -> None:
    repository = make_repository()
    store(repository, b"one")
    before = dict(memory(repository).objects)
    store(repository, b"one")
    assert memory(repository).objects == before


def test_threads_add_side_by_side() -> None:
    repository = make_repository()
    blobs = [noise(1000) + b"%d" % number for number in range(300)]
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            threads = [
                threading.Thread(target=lambda: [writer.add(BlobType.DATA, blob) for blob in blobs]) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert writer.stats.blobs == 300
    assert set(all_blobs(repository).values()) == {1}
    handles = [BlobHandle(BlobType.DATA, content_id(blob)) for blob in blobs]
    assert dict(reopen(repository).read(handles)) == dict(zip(handles, blobs, strict=True))


def test_an_upload_error_reaches_who_adds() -> None:
    inner = MemoryBackend()
    repository = make_repository(inner)
    faulty = FaultyBackend(
        inner, Fault(at=2, operations=("put",), kinds=(Kind.DATA,), error=lambda: StorageFull("no room"), times=99)
    )
    opened = reopen(repository, backend=faulty)

    def fill() -> None:
        with opened.lock():
            opened.load_index()
            with opened.writer() as writer:
                for _ in range(200):
                    writer.add(BlobType.DATA, noise(1 * MIB))

    with pytest.raises(StorageFull, match="no room"):
        fill()
    # The pack that was durable is indexed, and what is in no pack is not claimed to be stored.
    assert len(objects(repository, Kind.DATA)) == 1
    seen = reopen(repository)
    assert {BlobHandle(e.type, e.id) for _, entries in seen.index.packs() for e in entries} == set(all_blobs(seen))
    assert not opened.index._reserved[BlobType.DATA]
    assert objects(repository, Kind.LOCK) == []
    faulty.fault = None
    fill()
    assert len(reopen(repository).index) > 200


def test_an_error_of_the_caller_keeps_what_is_durable() -> None:
    repository = make_repository()
    with pytest.raises(RuntimeError, match="caller"), repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            for _ in range(20):
                writer.add(BlobType.DATA, noise(1 * MIB))
            raise RuntimeError("caller")
    assert set(all_blobs(repository).values()) <= {1}
    assert len(reopen(repository).index) == len(all_blobs(repository))


def test_a_blob_that_cannot_be_sealed_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = make_repository()
    handle = BlobHandle(BlobType.DATA, content_id(b"blob"))

    def fail(_: object) -> bytes:
        raise MemoryError

    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            with monkeypatch.context() as patch:
                patch.setattr(repository.codec, "seal", fail)
                with pytest.raises(MemoryError):
                    writer.add(BlobType.DATA, b"blob")
            assert not repository.has(handle)
            writer.add(BlobType.DATA, b"blob")
    assert reopen(repository).read_blob(handle) == b"blob"


def test_an_index_that_cannot_be_stored_fails_the_run_and_is_tried_no_more() -> None:
    inner = MemoryBackend()
    repository = make_repository(inner)
    faulty = FaultyBackend(inner, Fault(at=1, times=99, operations=("put",), kinds=(Kind.INDEX,)))
    opened = reopen(repository, backend=faulty)
    with pytest.raises(TransientStorageError), opened.lock():
        opened.load_index()
        with opened.writer() as writer:
            writer.add(BlobType.DATA, b"stored, but listed nowhere")
    assert len(objects(repository, Kind.DATA)) == 1
    assert len(reopen(repository).index) == 0


def test_who_is_asked_to_stop_keeps_all_that_is_done() -> None:
    repository = make_repository()
    with pytest.raises(Interrupted), repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            add_all(writer, (b"half a pack", b"of blobs"))
            raise Interrupted("SIGTERM")
    assert len(reopen(repository).index) == 2


def test_no_index_without_the_lock() -> None:
    repository = make_repository()
    with pytest.raises(LockLost), repository.lock() as lock:
        repository.load_index()
        with repository.writer() as writer:
            writer.add(BlobType.DATA, b"orphan")
            repository.backend.delete(Handle(Kind.LOCK, lock.id))
    assert objects(repository, Kind.INDEX) == []
    with pytest.raises(RuntimeError, match="without a lock"), repository.writer():
        pytest.fail("must not be reached")


def test_one_writer_at_a_time() -> None:
    repository = make_repository()
    with repository.lock():
        with repository.writer(), pytest.raises(RuntimeError, match="already"), repository.writer():
            pytest.fail("must not be reached")
        with repository.writer() as writer:
            writer.add(BlobType.DATA, b"and again")


def test_repacking_moves_sealed_blobs() -> None:
    repository = make_repository()
    blobs = (b"one" * 100, noise(5000))
    handles = store(repository, *blobs)
    ((pack, entries),) = reopen(repository).index.packs()
    with repository.lock(exclusive=True):
        repository.load_index()
        with repository.writer() as writer:
            for entry, stored in repository.stored_blobs(pack, entries):
                writer.repack(still_sealed(entry, stored))
    assert set(all_blobs(repository).values()) == {2}
    repository.backend.delete(Handle(Kind.DATA, pack))
    assert dict(reopen(repository).read(handles)) == dict(zip(handles, blobs, strict=True))


# ---------------------------------------------------------------- resuming
def _die_while_writing(repository: Repository, state: Path, blobs: list[bytes], mode: Mode, kind: Kind) -> None:
    faulty = FaultyBackend(repository.backend)
    opened = reopen(repository, backend=faulty, state=state)
    with pytest.raises(Crash), opened.lock():
        opened.load_index()
        faulty.fault = Fault(at=1, mode=mode, operations=("put",), kinds=(kind,))
        with opened.writer() as writer:
            add_all(writer, tuple(blobs))
    repository.backend.delete(Handle(Kind.LOCK, objects(repository, Kind.LOCK)[0]))


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    """Killed when all packs were stored and before the index was: the next run stores nothing again."""
    repository = make_repository()
    blobs = [noise(1 * MIB) for _ in range(10)]
    _die_while_writing(repository, tmp_path, blobs, Mode.DIE, Kind.INDEX)
    packs = objects(repository, Kind.DATA)
    assert packs
    assert objects(repository, Kind.INDEX) == []

    without_lock = reopen(repository, state=tmp_path)
    assert len(without_lock.index) == 0

    opened = reopen(repository, state=tmp_path)
    with opened.lock():
        opened.load_index()
        assert len(objects(repository, Kind.INDEX)) == 1
        assert dict(opened.index.memberships()) == dict.fromkeys(packs, objects(repository, Kind.INDEX)[0])
        with opened.writer() as writer:
            handles = add_all(writer, tuple(blobs))
            assert writer.stats.blobs == 0
    assert sorted(objects(repository, Kind.DATA)) == sorted(packs)
    assert dict(reopen(repository).read(handles)) == dict(zip(handles, blobs, strict=True))
    assert list((tmp_path / "repositories" / repository.id / "pending").iterdir()) == []


def test_packs_that_are_gone_or_listed_are_not_adopted(tmp_path: Path) -> None:
    repository = make_repository()
    blobs = [noise(1 * MIB) for _ in range(10)]
    _die_while_writing(repository, tmp_path, blobs, Mode.DIE_AFTER, Kind.INDEX)
    packs = objects(repository, Kind.DATA)
    assert len(objects(repository, Kind.INDEX)) == 1  # written, but the run did not live to note it
    opened = reopen(repository, state=tmp_path)
    with opened.lock():
        opened.load_index()
    assert len(objects(repository, Kind.INDEX)) == 1

    blobs = [noise(1 * MIB) for _ in range(10)]
    _die_while_writing(repository, tmp_path, blobs, Mode.DIE, Kind.INDEX)
    left = sorted(set(objects(repository, Kind.DATA)) - set(packs))
    assert len(left) >= 2
    repository.backend.delete(Handle(Kind.DATA, left[0]))
    memory(repository).objects[Handle(Kind.DATA, left[1])] = b"swapped"
    opened = reopen(repository, state=tmp_path)
    with opened.lock():
        opened.load_index()
        assert opened.index.pack_ids() == {*packs, *left[2:]}


def test_who_may_not_write_leaves_the_notes(tmp_path: Path) -> None:
    repository = make_repository()
    _die_while_writing(repository, tmp_path, [noise(1 * MIB) for _ in range(5)], Mode.DIE, Kind.INDEX)
    faulty = FaultyBackend(repository.backend, Fault(at=1, times=99, operations=("put",), kinds=(Kind.INDEX,)))
    opened = reopen(repository, backend=faulty, state=tmp_path)
    with opened.lock():
        opened.load_index()
        assert len(opened.index) == 0
    opened = reopen(repository, state=tmp_path)
    with opened.lock():
        opened.load_index()
        assert len(opened.index) == 5


def test_a_lost_lock_adopts_nothing(tmp_path: Path) -> None:
    repository = make_repository()
    _die_while_writing(repository, tmp_path, [noise(1 * MIB) for _ in range(5)], Mode.DIE, Kind.INDEX)
    opened = reopen(repository, state=tmp_path)
    with opened.lock() as lock:
        repository.backend.delete(Handle(Kind.LOCK, lock.id))
        with pytest.raises(LockLost):
            opened.load_index()
    assert objects(repository, Kind.INDEX) == []
