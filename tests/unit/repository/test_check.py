"""Check: a whole repository is found whole; damage of each kind is found and traced to snapshots, jobs and paths."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event

import numpy as np
import pytest

from pra_agent.errors import DamagedError, Interrupted, RefusedError, TransientStorageError
from pra_agent.model.ids import BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository import prune
from pra_agent.repository.check import check
from pra_agent.repository.check_data import prove_pack
from pra_agent.repository.check_report import CheckReport
from pra_agent.repository.check_subset import Part, Share, Window, parse_subset
from pra_agent.repository.check_trees import references
from pra_agent.repository.index import encode_index
from pra_agent.repository.prune_packs import hex_id, raw_ids
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend
from tests.support.restic import PASSWORD
from tests.support.small_repository import HOST, SETTINGS, START, new_repository, noise, open_repository, save

ALL = parse_subset("all")


def files(*seeds: int) -> dict[str, bytes]:
    return {f"dir{seed % 3}/file{seed}": noise(seed, 20_000) for seed in seeds}


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def repository(backend: MemoryBackend) -> Repository:
    """Two jobs, of which one has two snapshots that share files."""
    repository = new_repository(backend)
    save(repository, files(*range(9)))
    save(repository, files(*range(3, 12)), hours=1)
    save(repository, files(100, 101), hours=2, job="db")
    return repository


def run(backend: MemoryBackend, subset: object = ALL) -> CheckReport:
    repository = open_repository(backend)
    with repository.lock():
        return check(repository, subset)  # type: ignore[arg-type]


def test_a_whole_repository_is_found_whole(backend, repository):
    result = run(backend)
    assert result.ok, result.damage
    assert not result.notes
    assert not result.hits
    assert (result.snapshots, result.packs, result.packs_read) == (3, len(list(backend.list(Kind.DATA))), result.packs)
    assert result.bytes_read == result.bytes_stored == sum(i.size for i in backend.list(Kind.DATA))
    assert result.lines()[-1] == "no damage was found"


def test_without_a_subset_no_pack_is_read(backend, repository):
    result = run(backend, None)
    assert result.ok
    assert result.packs_read == 0


def test_an_empty_repository_is_whole(backend):
    new_repository(backend)
    assert run(backend).ok
    assert run(backend, Share(5)).ok


def pack_of(repository: Repository, blob_type: BlobType, snapshot: int = 0) -> Handle:
    """The pack that holds the root tree, or the first data blob, of a snapshot."""
    repository.load_index()
    root = repository.snapshots()[snapshot].tree
    tree, blob = root, root
    while blob_type is BlobType.DATA and blob is root:
        for node in repository.read_tree(tree):
            if node.content:
                blob = node.content[0]
            tree = node.subtree or tree
    location = repository.index.find((blob_type, blob))  # type: ignore[arg-type]
    assert location
    return Handle(Kind.DATA, location.pack)


def flip(data: bytes) -> bytes:
    return data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 4]) + data[len(data) // 3 + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "cut": lambda data: data[: len(data) * 2 // 3],
    "emptied": lambda _: b"",
    "lengthened": lambda data: data + b"\0",
}


@pytest.mark.parametrize("how", [*DAMAGE, "deleted"])
def test_damage_of_data_names_jobs_and_paths(backend, repository, how):
    handle = pack_of(repository, BlobType.DATA, 2)
    if how == "deleted":
        backend.delete(handle)
    else:
        backend.objects[handle] = DAMAGE[how](backend.objects[handle])
    result = run(backend)
    assert not result.ok
    assert handle.path in {finding.subject for finding in result.damage}
    assert handle.name in result.broken_packs
    if how == "lengthened":
        assert not result.lost  # every blob in it still opens
    else:
        assert result.jobs == ["db"]
        assert {path for hit in result.hits for path in hit.paths} <= {"/dir1/file100", "/dir2/file101"}
        assert result.hits[0].count >= 1


def test_a_flip_is_only_found_by_reading(backend, repository):
    handle = pack_of(repository, BlobType.DATA, 2)
    backend.objects[handle] = flip(backend.objects[handle])
    assert run(backend, None).ok


@pytest.mark.parametrize("how", [*DAMAGE, "deleted"])
def test_damage_of_trees_is_found_without_reading_data(backend, repository, how):
    handle = pack_of(repository, BlobType.TREE, 2)
    whole = backend.objects[handle]
    if how == "deleted":
        backend.delete(handle)
    else:
        backend.objects[handle] = DAMAGE[how](whole)
    result = run(backend, None if how != "flipped" else ALL)
    assert not result.ok
    assert handle.name in result.broken_packs
    if how not in {"lengthened", "flipped"}:
        assert [hit.job for hit in result.hits] == ["db"]


@pytest.mark.parametrize("kind", [Kind.SNAPSHOT, Kind.INDEX, Kind.KEY])
@pytest.mark.parametrize("how", list(DAMAGE))
def test_damage_of_small_files_is_found(backend, repository, kind, how):
    handle = next(iter(backend.list(kind))).handle
    if kind is Kind.KEY:
        opened = open_repository(backend)
        backend.objects[handle] = DAMAGE[how](backend.objects[handle])
        with opened.lock():
            result = check(opened)
    else:
        backend.objects[handle] = DAMAGE[how](backend.objects[handle])
        result = run(backend)
    assert handle.path in {finding.subject for finding in result.damage}


def test_a_damaged_config_is_found(backend, repository):
    opened = open_repository(backend)
    backend.objects[Handle(Kind.CONFIG)] = flip(backend.objects[Handle(Kind.CONFIG)])
    with opened.lock():
        assert {finding.subject for finding in check(opened).damage} == {"config"}


@pytest.mark.parametrize("kind", [Kind.SNAPSHOT, Kind.INDEX, Kind.DATA])
def test_files_that_changed_places_are_found(backend, repository, kind):
    one, other = sorted((info.handle for info in backend.list(kind)), key=lambda handle: handle.name)[:2]
    backend.objects[one], backend.objects[other] = backend.objects[other], backend.objects[one]
    result = run(backend)
    assert {one.path, other.path} <= {finding.subject for finding in result.damage}


def test_a_lost_index_is_found_by_what_is_missing_from_it(backend, repository):
    largest = max(backend.list(Kind.INDEX), key=lambda info: info.size)
    backend.delete(largest.handle)
    result = run(backend, None)
    assert any("in no index" in finding.message for finding in result.damage)
    assert "files" in result.jobs


def test_a_second_copy_of_a_blob_saves_it(backend, repository):
    handle = pack_of(repository, BlobType.DATA, 2)
    other = open_repository(backend)
    with other.lock(), other.writer() as writer:
        for data in files(100, 101).values():
            writer.add(BlobType.DATA, data)
    backend.objects[handle] = flip(backend.objects[handle])
    result = run(backend)
    assert not result.ok
    assert not result.lost
    assert not result.hits


def test_what_is_in_no_index_is_a_note(backend, repository):
    backend.put(Handle(Kind.DATA, "ab" * 32), b"left over")
    result = run(backend)
    assert result.ok
    assert len(result.notes) == 1


def test_a_missing_pack_that_nothing_needs_is_a_note(backend, repository):
    handle = pack_of(repository, BlobType.DATA, 2)
    with repository.lock():
        repository.remove_snapshot(repository.snapshots()[2].id)
    backend.delete(handle)
    result = run(backend)
    assert [note.subject for note in result.notes] == [handle.path]
    assert not result.hits


def test_a_header_that_disagrees_with_the_index_is_found(backend, repository):
    repository.load_index()
    listed = list(repository.index.packs())
    swapped = [(pack, [entry._replace(uncompressed_length=0) for entry in entries]) for pack, entries in listed]
    for info in backend.list(Kind.INDEX):
        backend.delete(info.handle)
    repository.files.write(Kind.INDEX, encode_index(swapped))
    assert not run(backend).ok


def test_two_indexes_that_disagree_are_found(backend, repository):
    repository.load_index()
    pack, entries = next(iter(repository.index.packs()))
    repository.files.write(Kind.INDEX, encode_index([(pack, entries[:-1])]))
    assert any("listed differently" in finding.message for finding in run(backend).damage)


def test_a_tree_out_of_order_is_found(backend, repository):
    from pra_agent.model import gojson
    from pra_agent.model.trees import encode_tree

    a, b = (encode_tree([Node(name, NodeType.FILE, content=[])]) for name in (b"a", b"b"))
    twisted = b'{"nodes":[' + b[len(b'{"nodes":[') : -3] + b"," + a[len(b'{"nodes":[') :]
    assert gojson.dumps({})  # the bytes above are what its encoder would make, in the wrong order
    broken = encode_tree([Node(b"d", NodeType.DIR)])
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            trees = [writer.add(BlobType.TREE, twisted), writer.add(BlobType.TREE, broken)]
        for tree in trees:
            repository.save_snapshot(Snapshot(time=START, tree=tree, paths=("/",), hostname="h"))
    messages = " ".join(str(finding) for finding in run(backend).damage)
    assert "a is out of order" in messages
    assert "the directory d has no tree" in messages


def test_a_cache_does_not_hide_damage(tmp_path):
    backend = MemoryBackend(off_host=True)
    save(new_repository(backend), files(1))

    def opened() -> Repository:
        return Repository.open(backend, PASSWORD, clock=FakeClock(), host=HOST, state=tmp_path, settings=SETTINGS)

    opened().load_index()
    opened().snapshots()
    damaged = [next(iter(backend.list(kind))).handle for kind in (Kind.INDEX, Kind.SNAPSHOT)]
    for handle in damaged:
        backend.objects[handle] = flip(backend.objects[handle])
    repository = opened()
    with repository.lock():
        result = check(repository)
    assert {handle.path for handle in damaged} <= {finding.subject for finding in result.damage}


@pytest.mark.parametrize(
    "data",
    [
        b"no JSON",
        b"[]",
        b'{"nodes":[1]}',
        b'{"nodes":[{"content":["ab"]}]}',
        b'{"nodes":[{"subtree":"zz"}]}',
        b'{"nodes":[{"subtree":"abcd"}]}',
        b'{"nodes":[{"content":[7]}]}',
    ],
)
def test_a_blob_that_is_no_tree_is_found(backend, repository, data):
    with pytest.raises(DamagedError):
        references(bytes(32), data)
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            tree = writer.add(BlobType.TREE, data)
        repository.save_snapshot(Snapshot(time=START, tree=tree, paths=("/",), hostname="h"))
    result = run(backend)
    assert [hit.snapshot for hit in result.hits] or not result.ok
    assert not result.ok
    fresh = open_repository(backend)
    with fresh.lock(exclusive=True), pytest.raises((DamagedError, RefusedError)):
        prune.plan(fresh)


def test_one_broken_tree_among_many_hides_no_other(backend, repository):
    """All trees of a batch but the broken one are looked at."""
    repository.load_index()
    handle = pack_of(repository, BlobType.TREE, 0)
    entries = next(entries for pack, entries in repository.index.packs() if pack == handle.name)
    damaged = bytearray(backend.objects[handle])
    damaged[entries[0].offset + 20] ^= 1
    backend.objects[handle] = bytes(damaged)
    result = run(backend, None)
    assert len(result.lost) == 1
    assert result.trees >= len(entries) - 1


def test_what_goes_while_it_is_looked_at_is_not_missed(backend, repository, monkeypatch):
    """A forget and a change of keys at the same time: files are listed, and gone when they are read."""
    ghosts = [ObjectInfo(Handle(kind, "cd" * 32), 10) for kind in (Kind.SNAPSHOT, Kind.KEY)]
    inner = backend.list

    def haunted(kind: Kind) -> Iterator[ObjectInfo]:
        yield from inner(kind)
        yield from (ghost for ghost in ghosts if ghost.handle.kind is kind)

    opened = open_repository(backend)
    monkeypatch.setattr(backend, "list", haunted)
    with opened.lock():
        assert check(opened, ALL).ok


def test_a_pack_that_the_disk_cannot_read_is_damage_but_a_store_that_is_away_is_none(backend, repository, monkeypatch):
    handle = pack_of(repository, BlobType.DATA, 2)
    inner = backend.get
    away = False

    def get(wanted: Handle, offset: int = 0, length: int | None = None) -> bytes:
        if wanted == handle or (away and wanted.kind in {Kind.DATA, Kind.CONFIG}):
            raise TransientStorageError("input/output error")
        data: bytes = inner(wanted, offset, length)
        return data

    opened = open_repository(backend)
    opened.load_index()
    monkeypatch.setattr(backend, "get", get)
    entries = next(entries for pack, entries in opened.index.packs() if pack == handle.name)
    proof = prove_pack(opened, handle.name, entries)
    assert "input/output error" in proof.fault
    assert len(proof.broken) == len(entries)
    away = True
    with pytest.raises(TransientStorageError):
        prove_pack(opened, handle.name, entries)


def test_it_can_be_stopped(backend, repository):
    stop = Event()
    stop.set()
    with repository.lock(), pytest.raises(Interrupted):
        check(repository, stop=stop)


# ---------------------------------------------------------------- subsets
IDS = np.sort(raw_ids(noise(number, 32).hex() for number in range(2000)))


def test_parts_together_are_the_whole_and_do_not_overlap():
    parts = [Part(number, 7).choose(IDS) for number in range(1, 8)]
    assert np.array_equal(np.sum(parts, axis=0), np.ones(len(IDS)))
    assert all(200 < part.sum() < 370 for part in parts)


def test_a_share_is_random_and_as_large_as_asked():
    assert Share(5).choose(IDS).sum() == 100
    assert not np.array_equal(Share(5).choose(IDS), Share(5).choose(IDS))
    assert Share(0.001).choose(IDS).sum() == 1


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(hours=7), timedelta(days=4, hours=5)])
def test_windows_walk_the_whole_in_the_time_given(step):
    every = timedelta(days=30)
    start = now = datetime(2026, 3, 1, 4, 30, tzinfo=UTC)
    seen = np.zeros(len(IDS), np.int64)
    while now - start < every:
        last, now = now, now + step
        seen += Window.since(last, now, every).choose(IDS)
    assert seen.min() >= 1
    assert np.count_nonzero(seen > 1) <= len(IDS) * (step / every) + 40


def test_a_window_after_a_long_pause_is_the_whole_and_the_first_is_a_day():
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert Window.since(now - timedelta(days=90), now, timedelta(days=30)).choose(IDS).all()
    assert 20 < Window.since(None, now, timedelta(days=30)).choose(IDS).sum() < 120
    assert not Window.since(now + timedelta(days=1), now, timedelta(days=30)).choose(IDS).any()


@pytest.mark.parametrize("text", ["0%", "101%", "8/7", "0/7", "some", "", "1.5"])
def test_a_subset_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="subset"):
        parse_subset(text)


def test_subsets_are_read():
    assert parse_subset("2/7") == Part(2, 7)
    assert parse_subset("5%") == Share(5)
    assert parse_subset("100%") == parse_subset("all") == Window(0, 1)
    assert hex_id(IDS[0])
