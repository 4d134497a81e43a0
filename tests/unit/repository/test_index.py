import json
import os
import random
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.repository.index import Index, Location, decode_index, encode_index
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.table import Columns, Table

Packs = list[tuple[str, list[PackEntry]]]


def make_packs(count: int, blobs: int, seed: int = 1) -> Packs:
    rng = random.Random(seed)
    packs: Packs = []
    for number in range(count):
        offset = 0
        entries: list[PackEntry] = []
        blob_type = BlobType.TREE if number % 3 == 0 else BlobType.DATA
        for _ in range(blobs):
            length = rng.randrange(32, 5000)
            entries.append(PackEntry(blob_type, rng.randbytes(32), offset, length, rng.choice([0, length * 3])))
            offset += length
        packs.append((rng.randbytes(32).hex(), entries))
    return packs


def loaded(*files: Packs) -> Index:
    index = Index()
    index.load((f"{number:064x}", decode_index(encode_index(packs))) for number, packs in enumerate(files))
    return index


def assert_knows(index: Index, packs: Packs) -> None:
    for pack, entries in packs:
        for entry in entries:
            handle = BlobHandle(entry.type, entry.id)
            assert index.has(handle)
            assert index.find(handle) == Location(pack, entry)
            other = BlobType.DATA if entry.type is BlobType.TREE else BlobType.TREE
            assert not index.has(BlobHandle(other, entry.id))
            assert not index.has(BlobHandle(entry.type, entry.id[:-1] + bytes([entry.id[-1] ^ 1])))
            assert index.find(BlobHandle(entry.type, bytes([entry.id[0] ^ 1]) + entry.id[1:])) is None


def test_loaded_files_are_known():
    packs = make_packs(6, 50)
    index = loaded(packs[:2], packs[2:])
    assert_knows(index, packs)
    assert len(index) == 300
    assert index.files == ["0" * 64, "0" * 63 + "1"]
    assert dict(index.packs()) == dict(packs)
    assert [pack for pack, _ in index.packs()] == sorted(pack for pack, _ in packs)
    assert sorted(index.memberships()) == sorted(
        (pack, index.files[0 if number < 2 else 1]) for number, (pack, _) in enumerate(packs)
    )
    assert index.pack_ids() == {pack for pack, _ in packs}


def test_an_empty_index_knows_nothing():
    for index in (Index(), loaded([])):
        assert not index.has(BlobHandle(BlobType.DATA, bytes(32)))
        assert list(index.packs()) == []
        assert len(index) == 0


def test_additions_are_known_before_and_after_folding():
    packs = make_packs(40, 25)
    index = loaded(packs[:5])
    for number, (pack, entries) in enumerate(packs[5:]):
        index.add_pack(pack, entries)
        if number % 4 == 0:
            index.fold()
        assert_knows(index, packs[: number + 6])
    assert dict(index.packs()) == dict(packs)
    assert all(len(index.tables(t)) < 6 for t in BlobType)
    assert len(index) == 40 * 25


def test_a_claim_is_given_once():
    index = loaded(make_packs(1, 3))
    entry = PackEntry(BlobType.DATA, b"\x07" * 32, 0, 40)
    handle = BlobHandle(BlobType.DATA, entry.id)
    assert index.reserve(handle)
    assert not index.reserve(handle)
    assert index.has(handle)
    assert index.find(handle) is None
    index.release(handle)
    assert not index.has(handle)
    assert index.reserve(handle)
    index.add_pack("ab" * 32, [entry])
    index.release_all()
    assert not index.reserve(handle)
    assert index.find(handle) == Location("ab" * 32, entry)


def test_threads_claim_each_blob_once():
    index = Index()
    handles = [BlobHandle(BlobType.DATA, os.urandom(32)) for _ in range(500)]
    won: list[BlobHandle] = []

    def claim() -> None:
        won.extend([handle for handle in handles if index.reserve(handle)])

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(handles)


def test_a_blob_may_lie_in_several_packs_and_a_pack_in_several_files():
    packs = make_packs(2, 4)
    blob = packs[1][1][0]
    twin = ("cd" * 32, [blob._replace(offset=0)])
    index = loaded(packs, [packs[0], twin])
    handle = BlobHandle(blob.type, blob.id)
    assert set(index.find_all(handle)) == {Location(packs[1][0], blob), Location(twin[0], twin[1][0])}
    assert dict(index.packs()) == dict([*packs, twin])
    assert sum(1 for pack, _ in index.memberships() if pack == packs[0][0]) == 2


def test_ids_with_equal_beginnings_are_told_apart():
    entries = [PackEntry(BlobType.DATA, b"same-8-b" + bytes(23) + bytes([n]), n * 40, 40) for n in (0, 1, 2, 255)]
    index = loaded([("ef" * 32, entries)])
    assert_knows(index, [])
    for entry in entries:
        assert index.find(BlobHandle(BlobType.DATA, entry.id)) == Location("ef" * 32, entry)
    assert not index.has(BlobHandle(BlobType.DATA, b"same-8-b" + bytes(23) + b"\x03"))


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=60), st.integers(1, 4))
def test_a_table_is_a_sorted_multiset(ids: list[bytes], cuts: int) -> None:
    size = max(1, len(ids) // cuts)
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    offset = 0
    columns: list[Columns] = []
    for part in parts:
        numbers = range(offset, offset + len(part))
        columns.append(Columns.build(b"".join(part), numbers, numbers, numbers, numbers))
        offset += len(part)
    table = Table(BlobType.DATA, columns)
    assert columns == []
    assert [table.id(row) for row in range(len(table))][: len(ids)] == sorted(ids, key=lambda one: one[:8])
    for number, blob_id in enumerate(ids):
        rows = list(table.rows(blob_id))
        assert len(rows) == ids.count(blob_id)
        assert number in {table.entry(row).offset for row in rows}
        assert table.row(blob_id) == rows[0]


def test_memory_per_blob_is_bounded() -> None:
    """64 bytes a blob when it is loaded, 110 at the worst moment of loading (parts of 50,000 blobs, as in files)."""
    part, parts = 50_000, 8
    tracemalloc.start()
    try:
        numbers = np.arange(part, dtype=np.uint32).tolist()
        before = tracemalloc.get_traced_memory()[0]
        columns = [Columns.build(os.urandom(32 * part), numbers, numbers, numbers, numbers) for _ in range(parts)]
        tracemalloc.reset_peak()
        table = Table(BlobType.DATA, columns)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (now - before) / (part * parts) < 64
    assert (peak - before) / (part * parts) < 110
    assert len(table) == part * parts


def test_index_files_are_restic_json():
    entry = PackEntry(BlobType.DATA, b"\x01" * 32, 7, 38, 150)
    plain = PackEntry(BlobType.TREE, b"\x02" * 32, 45, 40, 0)
    document = json.loads(encode_index([("ab" * 32, [entry, plain])]))
    assert document == {
        "packs": [
            {
                "id": "ab" * 32,
                "blobs": [
                    {"id": "01" * 32, "type": "data", "offset": 7, "length": 38, "uncompressed_length": 150},
                    {"id": "02" * 32, "type": "tree", "offset": 45, "length": 40},
                ],
            }
        ]
    }


def test_empty_lists_may_be_null_and_supersedes_is_ignored():
    assert decode_index(b'{"packs":null}').packs == b""
    pack = {"id": "ab" * 32, "blobs": None}
    index = Index()
    index.load([("0" * 64, decode_index(json.dumps({"supersedes": ["00"], "packs": [pack]}).encode()))])
    assert list(index.packs()) == [("ab" * 32, [])]


def _document(**changes: object) -> bytes:
    blob = {"id": "01" * 32, "type": "data", "offset": 0, "length": 40} | changes
    return json.dumps({"packs": [{"id": "ab" * 32, "blobs": [blob]}]}).encode()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"packs":[{}]}',
        b'{"packs":[{"id":"ab","blobs":[]}]}',
        b'{"packs":[{"id":5,"blobs":[]}]}',
        b'{"packs":7}',
        _document(id="01" * 31 + " 1"),
        _document(id="zz" * 32),
        _document(type="other"),
        _document(offset=-1),
        _document(offset=1 << 32),
        _document(length=31),
        _document(length="x"),
        _document(uncompressed_length=None),
    ],
)
def test_what_is_no_index_is_damaged(document: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_index(document)


def test_lookups_work_in_a_forked_child():
    packs = make_packs(3, 200)
    index = loaded(packs)
    child = os.fork()
    if child == 0:
        try:
            assert_knows(index, packs)
        except BaseException:  # noqa: BLE001 - the child tells by its status
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
