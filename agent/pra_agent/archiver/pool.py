"""The archiver's side of its workers: hands out tasks, takes blobs and results, and notices when one dies."""

import os
import random
import select
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NoReturn, Protocol, Self

from pra_agent.archiver.channel import Arena, encode, receive
from pra_agent.archiver.reading import Buffer, FileReader, FileResult, FileTask
from pra_agent.archiver.values import Limits
from pra_agent.archiver.worker import ERROR, READ, SEAL, Link, Tools, work
from pra_agent.errors import Interrupted, PraError
from pra_agent.model.ids import BlobHandle, BlobType

#: So many tasks wait at a worker beside the one that it works on.
_AHEAD = 3
_PIECE = 8 << 20
#: Milliseconds after which whoever waits for a worker looks whether the run is to stop.
_LOOK = 200

Done = Callable[[Any], None]


class Sink(Protocol):
    """Takes sealed data blobs, and has copied `stored` when it returns; False when the blob was stored before."""

    def __call__(self, blob: bytes, length: int, stored: memoryview | bytes, compressed: bool, /) -> bool: ...


class Sample:
    """Some of the blobs that were stored, each with the same chance."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._picked: list[BlobHandle] = []

    def add(self, blob: bytes) -> None:
        """Tell of a stored data blob."""
        self._seen += 1
        if len(self._picked) < self._size:
            self._picked.append(BlobHandle(BlobType.DATA, blob))
        elif (place := int(random.random() * self._seen)) < self._size:  # noqa: S311 - a sample, not a secret
            self._picked[place] = BlobHandle(BlobType.DATA, blob)

    @property
    def picked(self) -> Sequence[BlobHandle]:
        """What was picked."""
        return self._picked


@dataclass(slots=True)
class _Peer:
    """One worker process as the archiver sees it."""

    pid: int
    link: Link
    pending: dict[int, Done] = field(default_factory=lambda: dict[int, Done]())
    unsent: bytearray = field(default_factory=bytearray)
    has_piece: bool = False
    weight: int = 0


class Pool:
    """Workers, or the calling process itself when `limits.workers` is 0. A context manager: leaving it ends them.

    Whatever waits for them, or reads in their place, raises `Interrupted` soon after `stop` is set.
    """

    def __init__(self, tools: Tools, sink: Sink, limits: Limits, stop: Event | None = None) -> None:
        self._tools = tools
        self._sink = sink
        self._limits = limits
        self._stop = stop or Event()
        self._peers: list[_Peer] = []
        self._by_fd: dict[int, _Peer] = {}
        self._poll = select.poll()
        self._number = 0
        self.sample = Sample(limits.sample)
        self._inline = FileReader(tools.chunker, tools.known, self._put_inline, self.stop_if_asked)

    def __enter__(self) -> Self:
        try:
            for _ in range(self._limits.workers):
                self._fork()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    # ---------------------------------------------------------------- tasks
    def read(self, tasks: Sequence[FileTask], weight: int, done: Callable[[list[FileResult]], None]) -> None:
        """Have files read; `done` is called with their results, later, from within a method of this pool.

        `weight` is about what it costs, in bytes to be read.
        """
        if not self._peers:
            results = [self._inline.read(task) for task in tasks]
            self._inline.close()
            done(results)
            return
        peer = self._idlest(_AHEAD)
        peer.weight += weight

        def finish(results: list[FileResult]) -> None:
            peer.weight -= weight
            done(results)

        self._send(peer, READ, tasks, finish)

    def seal(self, data: Buffer, done: Callable[[bytes], None]) -> None:
        """Have a piece of a stream (8 MiB at most) stored; `done` is called with its id."""
        if not self._peers:
            done(self._inline.store(data))
            return
        while all(peer.has_piece for peer in self._peers):
            self.pump(wait=True)
        peer = min((peer for peer in self._peers if not peer.has_piece), key=lambda each: each.weight)
        peer.has_piece = True
        peer.link.piece.memory[: len(data)] = data

        def finish(blob: bytes) -> None:
            peer.has_piece = False
            done(blob)

        self._send(peer, SEAL, len(data), finish)

    def drain(self) -> None:
        """Wait until all tasks are done."""
        while any(peer.pending for peer in self._peers):
            self.pump(wait=True)

    def pump(self, *, wait: bool) -> None:
        """Take in what workers have ready; with `wait`, wait for something. Raises PraError when one died."""
        while not (ready := self._poll.poll(_LOOK if wait else 0)) and wait:
            self.stop_if_asked()
        self.stop_if_asked()
        for fd, event in ready:
            peer = self._by_fd[fd]
            if fd == peer.link.task_write:
                self._write(peer)
            elif event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._take(peer)

    def stop_if_asked(self) -> None:
        """Raise `Interrupted` when the run is to stop."""
        if self._stop.is_set():
            raise Interrupted("the run was asked to stop")

    # ---------------------------------------------------------------- inside
    def _idlest(self, limit: int) -> _Peer:
        while True:
            peer = min(self._peers, key=lambda each: (len(each.pending) >= limit, each.weight))
            if len(peer.pending) < limit:
                return peer
            self.pump(wait=True)

    def _send(self, peer: _Peer, kind: str, payload: object, done: Done) -> None:
        self._number += 1
        peer.pending[self._number] = done
        peer.unsent += encode((kind, self._number, payload))
        self._write(peer)

    def _write(self, peer: _Peer) -> None:
        """Write as much as the pipe takes; the rest when it is ready, so that nobody waits for each other."""
        fd = peer.link.task_write
        while peer.unsent:
            try:
                written = os.write(fd, memoryview(peer.unsent)[: 1 << 16].tobytes())
            except BlockingIOError:
                self._poll.register(fd, select.POLLOUT)
                return
            except BrokenPipeError:
                self._lost(peer)
            else:
                del peer.unsent[:written]
        if fd in self._by_fd:
            try:
                self._poll.unregister(fd)
            except KeyError:
                return

    def _take(self, peer: _Peer) -> None:
        message = receive(peer.link.result_read)
        if message is None:
            self._lost(peer)
        blobs, taken, done = message
        if blobs == ERROR:
            raise PraError(f"a worker process failed: {taken}", advice="Run it again; report it if it comes back.")
        if blobs:
            with memoryview(peer.link.arena.memory) as arena:
                for blob, length, compressed, offset, stored in blobs:
                    with arena[offset : offset + stored] as view:
                        if self._sink(blob, length, view, compressed):
                            self.sample.add(blob)
            peer.link.arena.release(taken)
        if done is not None:
            number, result = done
            peer.pending.pop(number)(result)

    def _put_inline(self, blob: bytes, data: Buffer) -> None:
        sealed = self._tools.seal(data, blob)
        if self._sink(blob, len(data), sealed.stored, sealed.compressed):
            self.sample.add(blob)

    def _lost(self, peer: _Peer) -> NoReturn:
        pid, status = os.waitpid(peer.pid, 0)
        peer.pid = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise PraError(
            f"worker process {pid} {how}",
            advice="See the kernel's log for the out-of-memory killer, then run it again; finished work is kept.",
        )

    def _fork(self) -> None:
        link = Link(Arena(self._limits.arena), Arena(_PIECE))
        parent = os.getpid()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads: the worker only reads and seals, and touches none of their locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            work(link, self._tools, parent)
        os.close(link.task_read)
        os.close(link.result_write)
        os.set_blocking(link.task_write, False)
        peer = _Peer(pid, link)
        self._peers.append(peer)
        self._by_fd[link.task_write] = self._by_fd[link.result_read] = peer
        self._poll.register(link.result_read, select.POLLIN)

    def _end(self) -> None:
        """End the workers: they have nothing of their own to save."""
        self._inline.close()
        for peer in self._peers:
            if peer.pid:
                os.kill(peer.pid, signal.SIGKILL)
                os.waitpid(peer.pid, 0)
            os.close(peer.link.task_write)
            os.close(peer.link.result_read)
            peer.link.arena.close()
            peer.link.piece.close()
        self._peers = []
