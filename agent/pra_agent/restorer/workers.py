"""Child processes that write small files: making a file costs more in the interpreter than in the kernel.

The parent reads blobs and hands each small file to the child that its directory belongs to, over a pipe. A child
inherits the plan by fork, dies with its parent, keeps no descriptor but its own, and answers once, at its end.
"""

import ctypes
import gc
import os
import signal
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO, NoReturn, Protocol, cast

import orjson

from pra_agent.errors import PraError, RestoreError
from pra_agent.restorer.writing import FileWriter, Tally

_FRAME = struct.Struct("<II")
_BUFFER = 256 * 1024
_PR_SET_PDEATHSIG = 1
_F_SETPIPE_SZ = 1031


class Maker(Protocol):
    """Whoever makes small files."""

    def make(self, index: int, data: bytes = b"") -> None:
        """Make an item of the plan, now or soon."""
        ...

    def finish(self) -> Tally:
        """Wait until all is made, and tell what was not."""
        ...

    def abandon(self) -> None:
        """End at once; what is made stays."""
        ...


class Inline:
    """Makes files in this process."""

    def __init__(self, writer: FileWriter) -> None:
        self.make = writer.make

    def finish(self) -> Tally:
        return Tally()

    def abandon(self) -> None:
        pass


class Child:
    """One child, seen from the parent."""

    def __init__(self, pid: int, requests: int, answers: int) -> None:
        self.pid = pid
        self.requests = requests
        self.answers = answers
        self._parts: list[bytes] = []
        self._size = 0

    def send(self, index: int, data: bytes) -> None:
        self._parts += (_FRAME.pack(index, len(data)), data)
        self._size += len(data) + _FRAME.size
        if self._size >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        view = memoryview(b"".join(self._parts))
        self._parts.clear()
        self._size = 0
        while view:
            view = view[os.write(self.requests, view) :]

    def close_requests(self) -> None:
        if self.requests >= 0:
            os.close(self.requests)
            self.requests = -1

    def answer(self) -> dict[str, object]:
        """Read the one answer to its end, and reap the child."""
        with os.fdopen(self.answers, "rb") as stream:
            data = stream.read()
        self.answers = -1
        self.reap()
        return cast("dict[str, object]", orjson.loads(data)) if data else {"error": "a writing process died"}

    def reap(self) -> None:
        """Wait for its end."""
        if self.answers >= 0:
            os.close(self.answers)
            self.answers = -1
        os.waitpid(self.pid, 0)
        self.pid = 0

    def kill(self) -> None:
        self.close_requests()
        if self.answers >= 0:
            os.close(self.answers)
            self.answers = -1
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


class Workers:
    """A few forked writers. `owner` tells which of them an item belongs to (any number)."""

    def __init__(self, count: int, writer: FileWriter, root_fd: int, owner: Callable[[int], int]) -> None:
        self._owner = owner

        def serve(requests: int, _answers: int) -> None:
            with os.fdopen(requests, "rb", buffering=_BUFFER) as stream:
                _serve(writer, stream)

        self._children = fork_children(writer, (root_fd,), [serve] * count)

    def make(self, index: int, data: bytes = b"") -> None:
        child = self._children[self._owner(index) % len(self._children)]
        try:
            child.send(index, data)
        except BrokenPipeError:
            self._raise(child)

    def finish(self) -> Tally:
        total = Tally()
        for child in self._children:
            with suppress(BrokenPipeError):
                child.flush()
            child.close_requests()
        for child in self._children:
            answer = child.answer()
            if "error" in answer:
                self.abandon()
                raise RestoreError(str(answer["error"]), advice=str(answer.get("advice") or RestoreError.advice))
            total.add(answer)
        return total

    def abandon(self) -> None:
        for child in self._children:
            child.kill()

    def _raise(self, child: Child) -> NoReturn:
        child.close_requests()
        answer = child.answer()
        self.abandon()
        raise RestoreError(
            str(answer.get("error", "a writing process ended early")),
            advice=str(answer.get("advice") or RestoreError.advice),
        )


def fork_children(writer: FileWriter, kept: Sequence[int], serves: Sequence[Callable[[int, int], None]]) -> list[Child]:
    """Fork a child for each of `serves`, called with descriptors of requests and answers; then it answers for `writer`.

    They keep the descriptors `kept`. All are there, or none.
    """
    children: list[Child] = []
    prctl = _libc_prctl()
    gc.freeze()  # the plan is shared with the children: a collection would touch, and so copy, all of it
    try:
        for serve in serves:
            children.append(_fork(writer, kept, prctl, serve))  # noqa: PERF401 - those before a failure are ended
    except BaseException:
        for child in children:
            child.kill()
        raise
    finally:
        gc.unfreeze()
    return children


def _fork(
    writer: FileWriter, kept: Sequence[int], prctl: Callable[[int, int], int], serve: Callable[[int, int], None]
) -> Child:
    request_read, request_write = os.pipe()
    answer_read, answer_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(writer, (request_read, answer_write), kept, lambda: _die_with(parent, prctl), serve)
    os.close(request_read)
    os.close(answer_write)
    return Child(pid, request_write, answer_read)


def _child(
    writer: FileWriter,
    channel: tuple[int, int],
    kept: Sequence[int],
    tie: Callable[[], None],
    serve: Callable[[int, int], None],
) -> NoReturn:
    """Live as a writer; never returns."""
    requests, answers = channel
    answer: dict[str, object] = {"error": "a writing process failed"}
    try:
        gc.disable()
        tie()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _close_all_but({0, 1, 2, requests, answers, *kept})
        os.umask(0)  # files that may have it get their mode as they are made
        writer.target.forget()
        serve(requests, answers)
        tally = writer.tally()
        answer = {
            "failures": tally.failures,
            "owners_refused": tally.owners_refused,
            "attributes_refused": tally.attributes_refused,
        }
    except PraError as error:
        answer = {"error": error.message, "advice": error.advice}
    except BaseException as error:  # noqa: BLE001 - a child has nobody to raise to but its parent
        answer = {"error": f"a writing process failed: {error}"}
    finally:
        try:
            _write_all(answers, orjson.dumps(answer))
        finally:
            os._exit(0)


def _serve(writer: FileWriter, stream: BinaryIO) -> None:
    while header := stream.read(_FRAME.size):
        index, size = _FRAME.unpack(header)
        writer.make(index, stream.read(size))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _libc_prctl() -> Callable[[int, int], int]:
    # Looked up before the fork: loading a library takes locks that another thread may hold.
    return cast("Callable[[int, int], int]", ctypes.CDLL(None, use_errno=True).prctl)


def _die_with(parent: int, prctl: Callable[[int, int], int]) -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)


def _close_all_but(kept: set[int]) -> None:
    first = 0
    for descriptor in sorted(kept):
        if first < descriptor:  # an empty range would be taken for all of them
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
