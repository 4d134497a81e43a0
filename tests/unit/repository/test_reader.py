"""Reading blobs: in pack order, few requests, and never a byte that is not the blob's."""

import itertools
import os
from pathlib import Path

import pytest

from pra_agent.errors import DamagedError, TransientStorageError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.trees import encode_tree
from pra_agent.repository.pack import OpenPack
from pra_agent.repository.repository import Repository
from pra_agent.repository.settings import MIB
from pra_agent.storage.backend import Handle, Kind
from tests.support.faulty import Fault, FaultyBackend
from tests.support.memory import MemoryBackend
from tests.support.repositories import make_repository, noise, reopen, store


def pack_of(repository: Repository, handle: BlobHandle) -> str:
    location = repository.index.find(handle)
    assert location is not None
    return location.pack


def test_each_blob_once_in_pack_order() -> None:
    repository = make_repository()
    blobs = [noise(700_000) for _ in range(30)]
    handles = store(repository, *blobs)
    other = reopen(repository)
    asked = handles[::-1] + handles
    got = list(other.read(iter(asked)))
    assert dict(got) == dict(zip(handles, blobs, strict=True))
    assert len(got) == len(handles)
    packs = [pack for pack, _ in itertools.groupby(pack_of(other, handle) for handle, _ in got)]
    assert len(packs) == len(set(packs))
    assert packs[0] == pack_of(other, asked[0])
    assert list(other.read([])) == []


def test_neighbours_come_in_one_request() -> None:
    repository = make_repository()
    handles = store(repository, *[b"%d" % number for number in range(500)])
    faulty = FaultyBackend(repository.backend)
    other = reopen(repository, backend=faulty)
    faulty.log.clear()
    assert len(list(other.read(handles))) == 500
    assert faulty.log == [("get", Kind.DATA)]


def test_ranges_have_bounds() -> None:
    """Neither the stored nor the plain bytes that are held grow with what is asked for."""
    repository = make_repository()
    zeros = [bytes(7 * MIB) + b"%d" % number for number in range(12)]
    handles = store(repository, *zeros)
    faulty = FaultyBackend(repository.backend)
    other = reopen(repository, backend=faulty)
    faulty.log.clear()
    reading = other.read(handles)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert len(faulty.log) <= 6


def test_an_unknown_blob_is_named_before_anything_is_read() -> None:
    repository = make_repository()
    (handle,) = store(repository, b"one")
    other = reopen(repository)
    missing = BlobHandle(BlobType.DATA, b"\xab" * 32)
    with pytest.raises(DamagedError, match="abababab"):
        next(other.read([handle, missing]))
    with pytest.raises(DamagedError, match="abababab"):
        other.read_blob(missing)
    with pytest.raises(DamagedError, match="tree/"):
        other.read_tree(handle.id)


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "swap"])
@pytest.mark.parametrize("count", [1, 20])
def test_damage_is_named_with_blob_and_pack(harm: str, count: int) -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    handles = store(repository, *[noise(900_000) for _ in range(count)])
    other = reopen(repository)
    victim = handles[count // 2]
    location = other.index.find(victim)
    assert location is not None
    pack = Handle(Kind.DATA, location.pack)
    data = bytearray(backend.objects[pack])
    if harm == "gone":
        del backend.objects[pack]
    elif harm == "cut":
        backend.objects[pack] = bytes(data[: location.entry.offset + 100])
    elif harm == "swap":
        end = location.entry.offset + location.entry.length
        data[location.entry.offset : end] = repository.codec.seal(noise(location.entry.size))
        backend.objects[pack] = bytes(data)
    else:
        data[location.entry.offset + 500] ^= 4
        backend.objects[pack] = bytes(data)
    with pytest.raises(DamagedError, match=victim.id.hex()) as told:
        other.read_blob(victim)
    assert location.pack in told.value.message
    reading = other.read(handles)
    with pytest.raises(DamagedError, match=location.pack):
        list(reading)
    assert list(reading) == []


def test_a_second_copy_saves_a_damaged_blob() -> None:
    backend = MemoryBackend()
    repository = make_repository(backend)
    (handle,) = store(repository, b"twice")
    first = pack_of(reopen(repository), handle)
    pack = OpenPack(BlobType.DATA)
    pack.add(repository.sealer().seal(BlobType.DATA, b"twice"))
    second = pack.finish(repository.codec)
    backend.put(second.handle, second.data)
    from pra_agent.repository.index import encode_index

    repository.files.write(Kind.INDEX, encode_index([(second.id, second.entries)]))
    for victim in (first, second.id):
        kept = backend.objects.pop(Handle(Kind.DATA, victim))
        assert reopen(repository).read_blob(handle) == b"twice"
        assert dict(reopen(repository).read([handle])) == {handle: b"twice"}
        backend.objects[Handle(Kind.DATA, victim)] = kept


def test_an_error_of_the_store_is_not_damage() -> None:
    repository = make_repository()
    handles = store(repository, *[noise(900_000) for _ in range(20)])
    faulty = FaultyBackend(repository.backend)
    other = reopen(repository, backend=faulty)
    faulty.fault = Fault(at=3, operations=("get",), kinds=(Kind.DATA,))
    with pytest.raises(TransientStorageError):
        list(other.read(handles))


def test_reading_works_in_a_forked_child() -> None:
    repository = make_repository()
    blobs = [noise(700_000) for _ in range(20)]
    handles = store(repository, *blobs)
    other = reopen(repository)
    assert len(list(other.read(handles))) == 20
    child = os.fork()
    if child == 0:
        os._exit(0 if dict(other.read(handles)) == dict(zip(handles, blobs, strict=True)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_trees_come_by_the_pack_and_from_the_cache(tmp_path: Path) -> None:
    backend = MemoryBackend(off_host=True)
    repository = make_repository(backend)
    trees = [encode_tree([Node(name=b"%d" % number, type=NodeType.FIFO)]) for number in range(50)]
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            ids = [writer.add(BlobType.TREE, tree) for tree in trees]
    for expected in (1, 0):
        faulty = FaultyBackend(backend)
        other = reopen(repository, backend=faulty, state=tmp_path)
        faulty.log.clear()
        assert [other.read_tree(tree)[0].name for tree in ids] == [b"%d" % number for number in range(50)]
        assert faulty.log == [("get", Kind.DATA)] * expected
        assert len(list(other.read(BlobHandle(BlobType.TREE, tree) for tree in ids))) == 50
        assert len(faulty.log) == expected
    # A cache that somebody has altered is not believed.
    for path in (tmp_path / "repositories" / repository.id / "cache" / "data").iterdir():
        path.write_bytes(b"forged")
    assert reopen(repository, state=tmp_path).read_tree(ids[0])[0].name == b"0"


def test_shares_are_one_request_each_and_leave_nothing_out() -> None:
    repository = make_repository()
    handles = store(repository, *[noise(700_000) for _ in range(40)], *[b"%d" % number for number in range(50)])
    faulty = FaultyBackend(repository.backend)
    other = reopen(repository, backend=faulty)
    shares = other.shares([*handles, *handles])
    assert sorted(handle for share in shares for handle in share) == sorted(handles)
    for share in shares:
        faulty.log.clear()
        assert {handle for handle, _ in other.read(share)} == set(share)
        assert faulty.log == [("get", Kind.DATA)]
    with pytest.raises(DamagedError, match="abababab"):
        other.shares([BlobHandle(BlobType.DATA, b"\xab" * 32)])
