"""A run that fails or dies at each operation of the store in turn: what was saved stays, what is listed is there."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from pra_agent.errors import PraError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.snapshots import Snapshot
from pra_agent.model.trees import encode_tree
from pra_agent.repository.pack import read_header
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Backend, Handle, Kind
from tests.support.clock import FakeClock
from tests.support.faulty import Crash, Fault, FaultyBackend, Mode
from tests.support.memory import MemoryBackend
from tests.support.repositories import SETTINGS, make_repository, reopen, snapshot

#: Packs that are smaller than any operator may ask for, so that a run of many operations takes no time.
SIZE = 16 << 10
FAST = SETTINGS.model_copy(update={"index_blobs": 4, "pack_size": 4 * SIZE, "upload_memory": 8 * SIZE})


def content(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(SIZE) for _ in range(20)]


def run(repository: Repository, blobs: list[bytes]) -> Snapshot:
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            ids = [writer.add(BlobType.DATA, blob) for blob in blobs]
            node = Node(b"file", NodeType.FILE, size=len(blobs) * SIZE, content=ids)
            tree = writer.add(BlobType.TREE, encode_tree([node]))
        return repository.save_snapshot(snapshot(repository, tree))


def assert_sound(repository: Repository) -> None:
    """Every index entry is in its pack as listed, no pack is listed twice, every snapshot is whole."""
    seen = reopen(repository)
    sizes = {info.handle.name: info.size for info in seen.backend.list(Kind.DATA)}
    for pack, entries in seen.index.packs():
        assert read_header(seen.backend, seen.codec, pack, sizes[pack]) == entries
    listed = [pack for pack, _ in seen.index.memberships()]
    assert len(listed) == len(set(listed))
    for one in seen.snapshots():
        (node,) = seen.read_tree(one.tree)
        wanted = {BlobHandle(BlobType.DATA, blob) for blob in node.content or ()}
        assert {handle for handle, _ in seen.read(wanted)} == wanted
    assert not seen.unreadable_snapshots


def copy_of(backend: MemoryBackend, clock: FakeClock) -> MemoryBackend:
    copy = MemoryBackend(clock=clock)
    copy.objects.update(backend.objects)
    return copy


def operations_of_a_run(backend: Backend, repository: Repository, state: Path) -> int:
    counting = FaultyBackend(backend)
    opened = reopen(repository, backend=counting, state=state, settings=FAST)
    counting.log.clear()
    run(opened, content(2))
    return counting.count


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.FAIL_AFTER, Mode.DIE, Mode.DIE_AFTER])
def test_each_operation_in_turn(mode: Mode, tmp_path: Path) -> None:
    clock = FakeClock()
    base = MemoryBackend(clock=clock)
    repository = make_repository(base, clock=clock, settings=FAST)
    first = run(repository, content(1))
    total = operations_of_a_run(copy_of(base, clock), repository, tmp_path / "counting")
    assert total > 15, total
    for at in range(1, total + 1):
        backend = copy_of(base, clock)
        faulty = FaultyBackend(backend)
        state = tmp_path / str(at)
        opened = reopen(repository, backend=faulty, state=state, settings=FAST)
        faulty.fault = Fault(at=at, mode=mode)
        saved = None
        with suppress(Crash, PraError):
            saved = run(opened, content(2))
        faulty.fault, faulty.dead = None, False
        after = reopen(repository, backend=backend, settings=FAST)
        assert_sound(after)
        kept = {one.id for one in after.snapshots()}
        assert first.id in kept
        assert saved is None or saved.id in kept
        for lock in [handle for handle in backend.objects if handle.kind is Kind.LOCK]:
            backend.delete(Handle(Kind.LOCK, lock.name))
        again = run(reopen(repository, backend=backend, state=state, settings=FAST), content(2))
        assert_sound(after)
        assert again.id in {one.id for one in after.snapshots()}
