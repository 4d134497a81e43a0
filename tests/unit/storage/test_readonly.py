import pytest
from tests.support.memory import MemoryBackend

from pra_agent.clock import SystemClock
from pra_agent.errors import AccessDenied, NotFound
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.readonly import ReadOnlyBackend

LOCK = Handle(Kind.LOCK, "b" * 64)


def test_reads_pass_and_writes_do_not():
    memory = MemoryBackend()
    memory.put(Handle(Kind.CONFIG), b"config")
    backend = ReadOnlyBackend(memory)
    assert backend.get(Handle(Kind.CONFIG)) == b"config"
    assert backend.stat(Handle(Kind.CONFIG)).size == 6
    assert len(list(backend.list(Kind.CONFIG))) == 1
    now = SystemClock().now()
    for write in (
        backend.create,
        lambda: backend.put(Handle(Kind.CONFIG), b"x"),
        lambda: backend.delete(Handle(Kind.CONFIG)),
        lambda: backend.extend_retention(Handle(Kind.CONFIG), now),
    ):
        with pytest.raises(AccessDenied):
            write()
    assert memory.get(Handle(Kind.CONFIG)) == b"config"
    assert backend.location == memory.location
    assert backend.connections == memory.connections
    assert backend.off_host == memory.off_host
    assert backend.store_time() is None
    backend.close()
    assert memory.closed


def test_locks_live_in_memory_and_stored_ones_are_not_seen():
    memory = MemoryBackend()
    memory.put(Handle(Kind.LOCK, "c" * 64), b"theirs")
    backend = ReadOnlyBackend(memory)
    assert list(backend.list(Kind.LOCK)) == []
    backend.put(LOCK, b"mine")
    assert backend.get(LOCK) == b"mine"
    assert backend.get(LOCK, 1, 2) == b"in"
    assert backend.stat(LOCK).size == 4
    assert [info.handle for info in backend.list(Kind.LOCK)] == [LOCK]
    backend.delete(LOCK)
    for ask in (backend.get, backend.stat, backend.delete):
        with pytest.raises(NotFound):
            ask(LOCK)
    assert [info.handle.name for info in memory.list(Kind.LOCK)] == ["c" * 64]
