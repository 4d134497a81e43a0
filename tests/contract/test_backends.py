"""What every store promises, whatever it is made of."""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import AlreadyExists, DamagedError, NotFound, StorageError
from pra_agent.storage.backend import Backend, Handle, Kind
from pra_agent.storage.limited import LimitedBackend
from pra_agent.storage.local import LocalBackend
from pra_agent.storage.metered import Meter, MeteredBackend
from pra_agent.storage.opening import open_backend
from pra_agent.storage.retrying import RetryingBackend
from pra_agent.storage.s3.backend import S3Backend
from pra_agent.storage.settings import StorageLimits
from tests.support.clock import FakeClock
from tests.support.faulty import FaultyBackend
from tests.support.memory import MemoryBackend
from tests.support.s3 import S3Server

NAMED = [kind for kind in Kind if kind is not Kind.CONFIG]
S3_MARKS = (pytest.mark.s3, pytest.mark.xdist_group("s3"))


@dataclass
class Store:
    """A backend, and a way past it to put bytes under a name that is not theirs."""

    backend: Backend
    plant: Callable[[Handle, bytes], None]


def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    backend = MemoryBackend()
    return Store(backend, backend.objects.__setitem__)


def decorated(wrap: Callable[[Backend], Backend]) -> Callable[[pytest.FixtureRequest, Path], Store]:
    def make(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
        store = memory(request, tmp_path)
        return Store(wrap(store.backend), store.plant)

    return make


def local(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = tmp_path / "repository"

    def plant(handle: Handle, data: bytes) -> None:
        path = root / handle.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return Store(LocalBackend(root), plant)


def s3(server_name: str, *, opened: bool = False, **more: Any) -> Callable[[pytest.FixtureRequest, Path], Store]:
    def make(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
        server: S3Server = request.getfixturevalue(server_name)
        bucket = server.new_bucket()
        settings = server.settings(bucket, **more)
        clock = SystemClock()
        client = server.client()

        def plant(handle: Handle, data: bytes) -> None:
            client.put_object(Bucket=bucket, Key=f"backups/web-1/{handle.path}", Body=data)

        return Store(open_backend(settings, clock) if opened else S3Backend(settings, clock), plant)

    return make


STORES = {
    "memory": memory,
    "local": local,
    "metered": decorated(lambda inner: MeteredBackend(inner, Meter())),
    "limited": decorated(lambda inner: LimitedBackend(inner, StorageLimits(upload=1000, download=1000), FakeClock())),
    "retrying": decorated(lambda inner: RetryingBackend(inner, FakeClock())),
    "faulty": decorated(FaultyBackend),
    "moto": s3("moto"),
    "versitygw": s3("versitygw"),
    "versitygw-md5": s3("versitygw", checksums="md5"),
    "versitygw-bare": s3("versitygw", checksums="off", conditional=False),
    "versitygw-opened": s3("versitygw", opened=True),
}


@pytest.fixture(params=[pytest.param(name, marks=S3_MARKS if "versitygw" in name else ()) for name in STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = STORES[request.param](request, tmp_path)
    made.backend.create()
    yield made
    made.backend.close()


@pytest.fixture
def backend(store: Store) -> Backend:
    return store.backend


def handle_of(kind: Kind, data: bytes) -> Handle:
    return Handle(kind) if kind is Kind.CONFIG else Handle(kind, hashlib.sha256(data).hexdigest())


def unknown(kind: Kind) -> Handle:
    return Handle(kind) if kind is Kind.CONFIG else Handle(kind, secrets.token_hex(32))


@pytest.mark.parametrize("kind", Kind)
def test_what_was_put_is_read_back(backend, kind):
    data = secrets.token_bytes(5000)
    handle = handle_of(kind, data)
    backend.put(handle, data)
    assert backend.get(handle) == data
    assert backend.stat(handle).size == 5000
    assert [(i.handle, i.size) for i in backend.list(kind)] == [(handle, 5000)]


def test_a_memoryview_is_stored_as_its_bytes(backend):
    data = bytes(range(256)) * 10
    handle = handle_of(Kind.DATA, data[100:2000])
    backend.put(handle, memoryview(data)[100:2000])
    assert backend.get(handle) == data[100:2000]


@pytest.mark.parametrize("size", [0, 1, 16 * 1024 * 1024 + 17])
def test_objects_of_any_size(backend, size):
    data = secrets.token_bytes(size)
    handle = handle_of(Kind.DATA, data)
    backend.put(handle, data)
    assert backend.get(handle) == data
    assert [i.size for i in backend.list(Kind.DATA)] == [size]


def test_ranges(backend):
    data = secrets.token_bytes(1000)
    handle = handle_of(Kind.DATA, data)
    backend.put(handle, data)
    assert backend.get(handle, 10, 20) == data[10:30]
    assert backend.get(handle, 0, 1000) == data
    assert backend.get(handle, 900) == data[900:]
    assert backend.get(handle, 999, 1) == data[999:]
    assert backend.get(handle, 1000) == b""
    assert backend.get(handle, 500, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(0, 1001), (999, 2), (1000, 1), (5000, 10), (1001, None)])
def test_a_range_past_the_end_is_damage(backend, offset, length):
    data = secrets.token_bytes(1000)
    handle = handle_of(Kind.DATA, data)
    backend.put(handle, data)
    with pytest.raises(DamagedError):
        backend.get(handle, offset, length)


@pytest.mark.parametrize("kind", Kind)
def test_what_is_not_there_is_not_found(backend, kind):
    handle = unknown(kind)
    for ask in (backend.get, backend.stat, backend.delete):
        with pytest.raises(NotFound):
            ask(handle)
    with pytest.raises(NotFound):
        backend.get(handle, 5, 0)
    assert list(backend.list(kind)) == []


@pytest.mark.parametrize("kind", Kind)
def test_the_same_bytes_again_are_success(backend, kind):
    data = secrets.token_bytes(100)
    handle = handle_of(kind, data)
    backend.put(handle, data)
    backend.put(handle, data)
    assert backend.get(handle) == data
    assert len(list(backend.list(kind))) == 1


@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.LOCK])
@pytest.mark.parametrize("other", [b"some other bytes", b"THE right bytes", b""], ids=["longer", "as long", "empty"])
def test_other_bytes_under_a_name_are_refused(store, kind, other):
    handle = handle_of(kind, b"the right bytes")
    store.plant(handle, other)
    with pytest.raises(AlreadyExists):
        store.backend.put(handle, b"the right bytes")
    assert store.backend.get(handle) == other


def test_a_lock_may_be_overwritten(store):
    handle = handle_of(Kind.LOCK, b"the new bytes")
    store.plant(handle, b"old")
    store.backend.put(handle, b"the new bytes")
    assert store.backend.get(handle) == b"the new bytes"


@pytest.mark.parametrize("kind", Kind)
def test_what_was_deleted_is_gone_and_may_come_back(backend, kind):
    data = secrets.token_bytes(100)
    handle = handle_of(kind, data)
    backend.put(handle, data)
    backend.delete(handle)
    with pytest.raises(NotFound):
        backend.get(handle)
    assert list(backend.list(kind)) == []
    backend.put(handle, data)
    assert backend.get(handle) == data


def test_kinds_do_not_mix(backend):
    data = b"the same everywhere"
    for kind in NAMED:
        backend.put(handle_of(kind, data), data)
    for kind in NAMED:
        assert [i.handle for i in backend.list(kind)] == [handle_of(kind, data)]
        backend.delete(handle_of(kind, data))
        assert list(backend.list(kind)) == []


def test_foreign_names_are_not_listed(store):
    data = b"ours"
    for kind in NAMED:
        store.plant(Handle(kind, "aabb.tmp"), b"x")
        store.plant(Handle(kind, "a" * 64 + "-tmp-1234"), b"x")
        store.plant(Handle(kind, "A" * 64), b"x")
        store.backend.put(handle_of(kind, data), data)
        assert [i.handle for i in store.backend.list(kind)] == [handle_of(kind, data)]


@pytest.mark.parametrize("name", ["", "..", "../config", "a" * 63, "A" * 64, "a" * 64 + "\n", "a/" * 32])
def test_a_name_that_is_no_address_is_refused(backend, name):
    for ask in (backend.get, backend.stat, backend.delete):
        with pytest.raises(StorageError, match="name"):
            ask(Handle(Kind.DATA, name))
    with pytest.raises(StorageError, match="name"):
        backend.put(Handle(Kind.DATA, name), b"x")


def test_the_config_has_no_name(backend):
    with pytest.raises(StorageError, match="name"):
        backend.put(Handle(Kind.CONFIG, "a" * 64), b"x")


def test_many_objects_from_many_threads(backend):
    contents = [secrets.token_bytes(300) for _ in range(60)]
    handles = [handle_of(Kind.DATA, data) for data in contents]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(backend.put, handles, contents))
        assert list(pool.map(backend.get, handles)) == contents
    assert {i.handle for i in backend.list(Kind.DATA)} == set(handles)


def test_of_two_that_write_one_config_at_once_one_loses(backend, request):
    if "bare" in request.node.name:
        pytest.skip("without conditional requests a store cannot promise this")

    def attempt(data: bytes) -> bool:
        try:
            backend.put(Handle(Kind.CONFIG), data)
        except AlreadyExists:
            return False
        return True

    contents = [secrets.token_bytes(50) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = [data for data, ok in zip(contents, pool.map(attempt, contents), strict=True) if ok]
    assert won == [backend.get(Handle(Kind.CONFIG))]


def test_create_harms_nothing_that_is_there(backend):
    data = b"kept"
    backend.put(handle_of(Kind.KEY, data), data)
    backend.create()
    assert backend.get(handle_of(Kind.KEY, data)) == data


def test_times_are_aware(backend):
    data = b"now"
    backend.put(handle_of(Kind.SNAPSHOT, data), data)
    (listed,) = backend.list(Kind.SNAPSHOT)
    for info in (listed, backend.stat(listed.handle)):
        assert info.modified is not None
        assert info.modified.utcoffset() is not None
    told = backend.store_time()
    assert told is None or told.utcoffset() is not None


def test_it_says_where_it_is(backend):
    assert backend.location
    assert backend.connections >= 1


def test_closing_twice_is_harmless(backend):
    backend.close()
    backend.close()
