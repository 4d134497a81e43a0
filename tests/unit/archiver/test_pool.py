"""Worker processes: they share the work, are gone afterwards, and a dead one is an error and no hang."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pra_agent.archiver.channel import Arena, receive, send
from pra_agent.archiver.pool import Pool, Sample
from pra_agent.archiver.reading import Buffer, Chunker, FileResult, FileTask
from pra_agent.archiver.values import Limits
from pra_agent.errors import Interrupted, PraError
from pra_agent.sources.command import run
from tests.support.repositories import noise


@dataclass
class Sealed:
    stored: bytes
    compressed: bool = False


class WholeFiles:
    """A chunker that cuts every MiB."""

    min_size = 1 << 20

    def chunks(self, read: Callable[[int], bytes]) -> Iterator[bytes]:
        while piece := read(1 << 20):
            yield piece


@dataclass
class Plain:
    """Tools that seal nothing: what arrives is what was read."""

    chunker: Chunker = field(default_factory=WholeFiles)
    before: Callable[[bytes], None] = lambda _blob: None

    def known(self, blob: bytes) -> bool:  # noqa: ARG002 - the contract
        return False

    def seal(self, data: Buffer, blob: bytes) -> Sealed:
        self.before(blob)
        return Sealed(bytes(data))


class Kept:
    """A sink."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}

    def __call__(self, blob: bytes, length: int, stored: memoryview | bytes, compressed: bool, /) -> bool:  # noqa: ARG002 - the contract
        assert length == len(stored)
        new = blob not in self.blobs
        self.blobs[blob] = bytes(stored)
        return new


def task(path: Path) -> FileTask:
    st = path.stat()
    status = (st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)
    return -1, os.fsencode(path), status, 0, st.st_size, True


def children(besides: Collection[int] = ()) -> list[int]:
    """This process's children; servers that other tests' fixtures left running here are none of ours."""
    found = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return [pid for pid in found if pid not in besides]


def test_what_workers_send_is_what_they_read_and_they_are_gone_afterwards(tmp_path):
    kept = Kept()
    wanted: dict[str, bytes] = {}
    results: dict[str, FileResult] = {}
    descriptors, others = len(list(Path("/proc/self/fd").iterdir())), children()
    with Pool(Plain(), kept, Limits(workers=2, arena=3 << 20)) as pool:
        # 60 MiB through two arenas of 3 MiB: they are used again and again, and wrap at odd places.
        for number in range(60):
            name = f"f{number}"
            wanted[name] = noise((1 << 20) - 997 * (number % 3))
            (tmp_path / name).write_bytes(wanted[name])

            def done(found: list[FileResult], name: str = name) -> None:
                results[name] = found[0]

            pool.read([task(tmp_path / name)], 1 << 20, done)
        assert len(children(others)) >= 2
        pool.drain()
    for name, data in wanted.items():
        ids, size, _xattrs, status, changed, error = results[name]
        assert (size, status, changed, error) == (len(data), None, False, "")
        assert b"".join(kept.blobs[ids[at : at + 32]] for at in range(0, len(ids), 32)) == data
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert children(others) == []


def test_pieces_of_streams():
    kept = Kept()
    ids: list[bytes] = []
    pieces = [noise(size) for size in (1, 8 << 20, 100, 3 << 20, 8 << 20, 7 << 20)]
    with Pool(Plain(), kept, Limits(workers=2)) as pool:
        for piece in pieces:
            pool.seal(piece, ids.append)
        pool.drain()
    assert sorted(ids) == sorted(hashlib.sha256(piece).digest() for piece in pieces)
    assert sorted(kept.blobs.values()) == sorted(pieces)
    assert pool.sample.picked


def test_a_killed_worker_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text")
    others = children()
    with pytest.raises(PraError, match="was killed by signal 9"), Pool(Plain(), Kept(), Limits(workers=2)) as pool:
        for pid in children(others):
            os.kill(pid, signal.SIGKILL)
        for _ in range(10):
            pool.read([task(path)], 1, lambda _results: None)
        pool.drain()
    assert children(others) == []


def test_a_worker_that_dies_in_its_work_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text")

    def die(_blob: bytes) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with (
        pytest.raises(PraError, match="was killed by signal 9"),
        Pool(Plain(before=die), Kept(), Limits(workers=1)) as pool,
    ):
        pool.read([task(path)], 1, lambda _results: None)
        pool.drain()


def test_an_error_in_a_worker_is_told(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text")

    def fail(_blob: bytes) -> None:
        raise RuntimeError("a fault of ours")

    with (
        pytest.raises(PraError, match=r"a worker process failed: RuntimeError: a fault of ours"),
        Pool(Plain(before=fail), Kept(), Limits(workers=1)) as pool,
    ):
        pool.read([task(path)], 1, lambda _results: None)
        pool.drain()


def test_workers_hold_no_descriptors_of_their_parent(tmp_path):
    """A pipe whose writing end a worker kept open would never end."""
    reading, writing = os.pipe()
    with Pool(Plain(), Kept(), Limits(workers=2)) as pool:
        os.close(writing)
        path = tmp_path / "file"
        path.write_bytes(b"text")
        # Each has had a task, so each has let go.
        for _ in range(20):
            pool.read([task(path)], 1, lambda _results: None)
        pool.drain()
        assert os.read(reading, 1) == b""
    os.close(reading)


def test_workers_die_with_their_parent():
    code = """
import os, signal, sys
from pathlib import Path
from tests.unit.archiver.test_pool import Kept, Limits, Plain, Pool, children
with Pool(Plain(), Kept(), Limits(workers=2)):
    print(*children(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = run(["sh", "-c", 'setsid "$0" -c "$1" || true', sys.executable, code], timeout=60, env=environment)
    pids = [int(pid) for pid in done.text.split()]
    assert len(pids) == 2
    for pid in pids:
        for _ in range(3000):
            if not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
                break
            time.sleep(0.01)
        else:
            pytest.fail("a worker outlived its parent")


def test_an_interrupt_at_the_terminal_is_the_parents_affair(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text")
    results: list[FileResult] = []
    with Pool(Plain(), Kept(), Limits(workers=1)) as pool:
        pool.read([task(path)], 1, results.extend)
        pool.drain()
        os.kill(children()[0], signal.SIGINT)
        pool.read([task(path)], 1, results.extend)
        pool.drain()
    assert len(results) == 2


def test_a_sample_has_at_most_its_size():
    sample = Sample(3)
    for number in range(100):
        sample.add(b"%d" % number)
    assert len(sample.picked) == 3


# ---------------------------------------------------------------- the channel


def test_messages_of_any_size():
    reading, writing = os.pipe()
    for message in ((), (b"x" * 30_000, None, [1, -1, 1 << 70], "text"), {b"a": (True, 0.5)}):
        send(writing, message)
        assert receive(reading) == message
    os.write(writing, b"\xff\x00\x00\x00half")
    os.close(writing)
    assert receive(reading) is None
    os.close(reading)


def test_an_arena_wraps_and_waits():
    arena = Arena(100)
    flushed: list[int] = []

    def flush() -> None:
        flushed.append(1)
        arena.release(60)

    first = arena.place(b"a" * 60, flush)
    assert (first, flushed) == ((0, 60), [])
    second = arena.place(b"b" * 50, flush)
    # 40 bytes at the end are too few, and are given up with the rest.
    assert (second, flushed) == ((0, 90), [1])
    assert arena.memory[:50] == b"b" * 50
    with pytest.raises(ValueError, match="do not fit"):
        arena.place(b"c" * 101, flush)
    arena.close()


def test_asked_to_stop_in_the_middle_of_a_file_that_a_worker_reads(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(noise(4 << 20))
    stop = threading.Event()
    before = children()

    def hang(_blob: bytes) -> None:
        time.sleep(600)

    with pytest.raises(Interrupted), Pool(Plain(before=hang), Kept(), Limits(workers=1), stop) as pool:
        asking = threading.Timer(0.2, stop.set)
        asking.start()
        pool.read([task(path)], 4 << 20, lambda _results: None)
        pool.drain()
    asking.join()
    assert children() == before


def test_asked_to_stop_in_the_middle_of_a_file_that_is_read_here(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(noise(8 << 20))
    stop = threading.Event()
    seen: list[bytes] = []

    def once(blob: bytes) -> None:
        seen.append(blob)
        stop.set()

    with pytest.raises(Interrupted), Pool(Plain(before=once), Kept(), Limits(workers=0), stop) as pool:
        pool.read([task(path)], 8 << 20, lambda _results: None)
    assert len(seen) == 1
