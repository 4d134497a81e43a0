"""What every store promises, whatever it is made of."""

import hashlib
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pra_agent.errors import AlreadyExists, DamagedError, NotFound, StorageError
from pra_agent.storage.backend import Backend, Handle, Kind
from pra_agent.storage.local import LocalBackend
from tests.support.memory import MemoryBackend

NAMED = [kind for kind in Kind if kind is not Kind.CONFIG]


@pytest.fixture(params=["memory", "local"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made: Backend = MemoryBackend() if request.param == "memory" else LocalBackend(tmp_path / "repository")
    made.create()
    yield made
    made.close()


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
@pytest.mark.parametrize("other", [b"other bytes", b"OTHER", b""], ids=["longer", "as long", "empty"])
def test_other_bytes_under_a_name_are_refused(backend, kind, other):
    handle = unknown(kind)
    backend.put(handle, b"first")
    with pytest.raises(AlreadyExists):
        backend.put(handle, other)
    assert backend.get(handle) == b"first"


def test_a_lock_may_be_overwritten(backend):
    handle = unknown(Kind.LOCK)
    backend.put(handle, b"first")
    backend.put(handle, b"second one")
    assert backend.get(handle) == b"second one"


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
    name = secrets.token_hex(32)
    for kind in NAMED:
        backend.put(Handle(kind, name), kind.value.encode())
    for kind in NAMED:
        assert backend.get(Handle(kind, name)) == kind.value.encode()
        assert [i.handle for i in backend.list(kind)] == [Handle(kind, name)]


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


def test_of_two_that_write_one_config_at_once_one_loses(backend):
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
