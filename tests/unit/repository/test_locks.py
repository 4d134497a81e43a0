"""Locks: nobody works beside an exclusive one, dead ones of this host go, living ones of anybody stay."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import Locked, LockLost, TransientStorageError
from pra_agent.repository.codec import Codec, MasterKey, content_id
from pra_agent.repository.host import Host, process_start
from pra_agent.repository.locks import EXPIRE_SECONDS, REFRESH_SECONDS, Lock, LockFiles, hold
from pra_agent.storage.backend import Handle, Kind
from tests.support.clock import FakeClock
from tests.support.faulty import Fault, FaultyBackend, Mode
from tests.support.memory import MemoryBackend
from tests.support.process import wait_until
from tests.support.repositories import ELSEWHERE, HOST

CODEC = Codec(MasterKey.generate())
#: A pid that no process of Linux has.
NOBODY = 1 << 23


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2024, 5, 1, 12, tzinfo=UTC))


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def files(backend: MemoryBackend, clock: FakeClock, tmp_path: Path) -> LockFiles:
    return LockFiles(backend, CODEC, clock, HOST, tmp_path / "locks")


def locks_of(files: LockFiles, host: Host) -> LockFiles:
    return LockFiles(files.backend, CODEC, files.clock, host)


def put(backend: MemoryBackend, document: object) -> str:
    sealed = CODEC.seal_unpacked(orjson.dumps(document))
    name = content_id(sealed).hex()
    backend.put(Handle(Kind.LOCK, name), sealed)
    return name


def stock(clock: FakeClock, **changes: object) -> dict[str, object]:
    """A lock as stock restic writes it, with Go's nanoseconds and zone."""
    time = (clock.now() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.123456789+02:00")
    return {"time": time, "exclusive": False, "hostname": HOST.hostname, "username": "u", "pid": os.getpid()} | changes


def count(backend: MemoryBackend) -> int:
    return sum(1 for handle in backend.objects if handle.kind is Kind.LOCK)


def test_a_lock_is_there_while_it_is_held(files: LockFiles, backend: MemoryBackend, clock: FakeClock) -> None:
    with hold(files, exclusive=False) as lock:
        (found,) = files.read_all()
        assert (found.id, found.exclusive, found.pid) == (lock.id, False, os.getpid())
        assert (found.dead, found.stale) == (False, False)
        assert found.time == clock.now() - timedelta(seconds=0.2)
        lock.check()
        lock.confirm()
        document = orjson.loads(CODEC.unseal_unpacked(backend.objects[Handle(Kind.LOCK, lock.id)]))
        assert list(document)[:7] == ["time", "exclusive", "hostname", "username", "pid", "uid", "gid"]
        assert HOST.machine_id not in str(document)
    assert count(backend) == 0
    assert clock.slept == [0.2]


def test_the_lock_goes_when_the_work_fails(files: LockFiles, backend: MemoryBackend) -> None:
    with pytest.raises(RuntimeError), hold(files, exclusive=True):
        raise RuntimeError
    assert count(backend) == 0


@pytest.mark.parametrize(("first", "second", "refused"), [(0, 0, False), (0, 1, True), (1, 0, True), (1, 1, True)])
def test_who_may_work_beside_whom(files: LockFiles, first: int, second: int, refused: bool) -> None:
    with ExitStack() as stack:
        stack.enter_context(hold(files, exclusive=bool(first)))
        other = locks_of(files, ELSEWHERE)
        if refused:
            with pytest.raises(Locked, match=r"web-1\.example\.org"):
                stack.enter_context(hold(other, exclusive=bool(second)))
        else:
            stack.enter_context(hold(other, exclusive=bool(second)))
    assert files.read_all() == []


def test_the_second_look_finds_who_came_at_the_same_time(files: LockFiles, backend: MemoryBackend) -> None:
    rival = ""

    class Meeting(FakeClock):
        def sleep(self, seconds: float) -> None:
            nonlocal rival
            super().sleep(seconds)
            rival = locks_of(files, ELSEWHERE).write(exclusive=True)

    files.clock = Meeting()
    with pytest.raises(Locked), hold(files, exclusive=False):
        pytest.fail("must not be reached")
    assert [lock.id for lock in files.read_all()] == [rival]
    assert count(backend) == 1


def test_refreshing_writes_a_new_file_and_deletes_the_old(
    files: LockFiles, backend: MemoryBackend, clock: FakeClock
) -> None:
    with hold(files, exclusive=True) as lock:
        first = lock.id
        clock.advance(REFRESH_SECONDS)
        wait_until(lambda: lock.id != first and count(backend) == 1, "a refresh by the thread")
        (found,) = files.read_all()
        assert (found.id, found.exclusive) == (lock.id, True)
        assert found.time == clock.now()
        assert list((files._notes._directory or Path()).iterdir()) == [Path(files._notes._directory or "", lock.id)]
    assert count(backend) == 0
    assert list((files._notes._directory or Path()).iterdir()) == []


def test_work_stops_when_the_lock_was_taken_away(files: LockFiles, backend: MemoryBackend, clock: FakeClock) -> None:
    with hold(files, exclusive=False) as lock:
        backend.delete(Handle(Kind.LOCK, lock.id))
        with pytest.raises(LockLost, match="removed"):
            lock.confirm()
        with pytest.raises(LockLost, match="removed"):
            lock.check()
    with hold(files, exclusive=False) as lock:
        backend.delete(Handle(Kind.LOCK, lock.id))
        clock.advance(REFRESH_SECONDS)
        wait_until(lambda: bool(lock._lost), "the thread to notice")
        with pytest.raises(LockLost):
            lock.check()
        assert count(backend) == 0


def test_work_stops_when_the_lock_could_not_be_refreshed(clock: FakeClock) -> None:
    fault = Fault(at=2, times=10**9, operations=("put",), error=lambda: TransientStorageError("no answer"))
    backend = FaultyBackend(MemoryBackend(), fault)
    files = LockFiles(backend, CODEC, clock, HOST)
    with hold(files, exclusive=False) as lock:
        clock.advance(REFRESH_SECONDS)
        wait_until(lambda: ("put", Kind.LOCK) in backend.log[backend.log.index(("put", Kind.LOCK)) + 1 :], "a try")
        lock.check()
        clock.advance(EXPIRE_SECONDS - REFRESH_SECONDS - 1)
        lock.check()
        clock.advance(2)
        with pytest.raises(LockLost, match="could not be refreshed"):
            lock.check()


@pytest.mark.parametrize("operation", ["put", "delete"])
def test_a_lost_answer_leaves_no_lock_behind(clock: FakeClock, operation: str) -> None:
    backend = FaultyBackend(MemoryBackend())
    files = LockFiles(backend, CODEC, clock, HOST)
    backend.fault = Fault(at=1, mode=Mode.FAIL_AFTER if operation == "put" else Mode.FAIL, operations=(operation,))
    if operation == "put":
        with pytest.raises(TransientStorageError), hold(files, exclusive=True):
            pytest.fail("must not be reached")
    else:
        with hold(files, exclusive=True) as lock:
            with pytest.raises(TransientStorageError):
                lock.refresh()
            assert len(files.read_all()) == 2
            lock.refresh()
            assert [one.id for one in files.read_all()] == [lock.id]
    assert files.read_all() == []


def test_a_sleeping_machine_counts_as_time(files: LockFiles) -> None:
    lock = Lock(files, exclusive=False)
    lock._wall -= EXPIRE_SECONDS + 60
    with pytest.raises(LockLost):
        lock.check()
    lock.release()


def test_the_knock_of_stock_unlock_does_not_kill(files: LockFiles) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with hold(files, exclusive=False) as lock:
            os.kill(os.getpid(), signal.SIGHUP)
            lock.confirm()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_leaves_the_lock(files: LockFiles, backend: MemoryBackend) -> None:
    lock = Lock(files, exclusive=False)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(count(backend))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    lock.release()
    lock.refresh()
    assert count(backend) == 0


# ---------------------------------------------------------------- the dead
@pytest.fixture
def corpse() -> tuple[int, int]:
    """Pid and start of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(process.pid)
    assert started is not None
    process.kill()
    process.communicate()
    return process.pid, started


def forge(
    files: LockFiles, backend: MemoryBackend, host: Host = HOST, *, exclusive: bool = False, **ours: object
) -> str:
    """Write a lock, then change what it says of its process."""
    name = locks_of(files, host).write(exclusive=exclusive)
    document = orjson.loads(CODEC.unseal_unpacked(backend.objects.pop(Handle(Kind.LOCK, name))))
    document["pid"] = ours.pop("pid", document["pid"])
    document["pra_agent"] |= ours
    return put(backend, document)


def test_a_dead_process_of_this_boot_is_cleared(
    files: LockFiles, backend: MemoryBackend, corpse: tuple[int, int]
) -> None:
    pid, start = corpse
    forge(files, backend, exclusive=True, pid=pid, start=start)
    with hold(files, exclusive=False):
        assert count(backend) == 1
    reused = forge(files, backend, exclusive=True, start=1)  # our own pid, but of an earlier process
    assert [lock.id for lock in files.read_all() if lock.dead] == [reused]
    with hold(files, exclusive=False):
        assert count(backend) == 1


def test_another_boot_is_cleared_only_if_noted_here(files: LockFiles, backend: MemoryBackend) -> None:
    name = forge(files, backend, exclusive=True, boot="earlier")
    with pytest.raises(Locked), hold(files, exclusive=False):
        pytest.fail("it may be a clone's")
    files._notes.add(name)
    with hold(files, exclusive=False):
        assert count(backend) == 1
    assert name not in files._notes


@pytest.mark.parametrize("host", [ELSEWHERE, replace(HOST, machine_id="3" * 32)])
def test_other_machines_are_never_cleared(
    files: LockFiles, backend: MemoryBackend, corpse: tuple[int, int], host: Host
) -> None:
    pid, start = corpse
    name = forge(files, backend, host, exclusive=True, pid=pid, start=start, boot=HOST.boot_id)
    files._notes.add(name)
    with pytest.raises(Locked), hold(files, exclusive=False):
        pytest.fail("must not be reached")
    assert count(backend) == 1


def test_another_pid_namespace_is_not_judged(files: LockFiles, backend: MemoryBackend, corpse: tuple[int, int]) -> None:
    forge(files, backend, pid=corpse[0], start=corpse[1], pid_namespace="pid:[1]")
    assert not files.read_all()[0].dead


def test_a_host_without_machine_id_clears_nothing(
    backend: MemoryBackend, clock: FakeClock, corpse: tuple[int, int]
) -> None:
    files = LockFiles(backend, CODEC, clock, replace(HOST, machine_id=""))
    forge(files, backend, replace(HOST, machine_id=""), pid=corpse[0], start=corpse[1])
    assert not files.read_all()[0].dead


def test_stock_locks_are_stale_by_age_or_by_a_dead_pid_here(
    files: LockFiles, backend: MemoryBackend, clock: FakeClock
) -> None:
    living = put(backend, stock(clock))
    dead = put(backend, stock(clock, pid=NOBODY))
    foreign = put(backend, stock(clock, hostname="web-9", pid=NOBODY))
    assert {lock.id: (lock.dead, lock.stale) for lock in files.read_all()} == {
        living: (False, False),
        dead: (False, True),
        foreign: (False, False),
    }
    with hold(files, exclusive=False):
        assert count(backend) == 4  # nothing of stock restic is cleared unasked
    assert [lock.id for lock in files.unlock()] == [dead]
    clock.advance(31 * 60)
    assert {lock.id for lock in files.unlock()} == {living, foreign}


def test_unlocking_everything_takes_the_living_too(files: LockFiles, backend: MemoryBackend) -> None:
    with hold(files, exclusive=True) as lock:
        assert files.unlock() == []
        assert [one.id for one in files.unlock(everything=True)] == [lock.id]
        assert count(backend) == 0
        with pytest.raises(LockLost):
            lock.confirm()


def test_empty_files_are_no_locks_and_unreadable_ones_are_conflicts(
    files: LockFiles, backend: MemoryBackend, clock: FakeClock
) -> None:
    backend.put(Handle(Kind.LOCK, "0" * 64), b"")
    assert files.read_all() == []
    backend.put(Handle(Kind.LOCK, "1" * 64), b"garbage")
    put(backend, {"time": "yesterday"})
    put(backend, [])
    assert [lock.unreadable for lock in files.read_all()] == [True] * 3
    with pytest.raises(Locked, match="unreadable"), hold(files, exclusive=False):
        pytest.fail("must not be reached")
    backend.modified[Handle(Kind.LOCK, "1" * 64)] = clock.now() - timedelta(hours=1)
    assert "1" * 64 in {lock.id for lock in files.unlock()}


def test_a_killed_process_leaves_a_lock_that_the_next_one_clears(tmp_path: Path) -> None:
    script = tmp_path / "locker.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pra_agent.clock import SystemClock\n"
        "from pra_agent.repository.codec import Codec, MasterKey\n"
        "from pra_agent.repository.host import this_host\n"
        "from pra_agent.repository.locks import LockFiles, hold\n"
        "from pra_agent.storage.local import LocalBackend\n"
        "backend = LocalBackend(Path(sys.argv[1]))\n"
        "backend.create()\n"
        "key = MasterKey(bytes(32), bytes(16), bytes(16))\n"
        "with hold(LockFiles(backend, Codec(key), SystemClock(), this_host('n')), exclusive=True):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    from pra_agent.storage.local import LocalBackend

    root = tmp_path / "repository"
    process = subprocess.Popen(
        [sys.executable, script, root],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    files = LockFiles(LocalBackend(root), Codec(MasterKey(bytes(32), bytes(16), bytes(16))), SystemClock(), HOST)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Locked), hold(files, exclusive=False):
            pytest.fail("its process lives")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with hold(files, exclusive=True):
        assert len(files.read_all()) == 1
