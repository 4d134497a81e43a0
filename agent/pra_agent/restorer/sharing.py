"""Files of one blob, read and written by several forked processes: each takes the next share until there is none.

A share is what the reader fetches at once. A child tells what it has made after each share, and at its end what
failed; like every writing child it inherits the plan, dies with its parent and keeps no descriptor but its own.
"""

import os
import select
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import orjson

from pra_agent.errors import DamagedError, RestoreError
from pra_agent.model.ids import BlobHandle
from pra_agent.model.snapshots import SnapshotReader
from pra_agent.restorer.fetching import fetch
from pra_agent.restorer.workers import Child, fork_children
from pra_agent.restorer.writing import FileWriter, Tally

_NUMBER = struct.Struct("<I")
_MADE = struct.Struct("<IQ")
_WAIT_MS = 200
_PIPE = 32 << 10


@dataclass(frozen=True, slots=True)
class Shares:
    """What is to be made: shares of blobs, and for each blob the items that it is the whole content of."""

    reader: SnapshotReader
    shares: Sequence[Sequence[BlobHandle]]
    items: Mapping[bytes, Sequence[int]]


class Sharers:
    """The children. `made` is told of files and bytes as they are written; `tick` is called now and then, may raise."""

    def __init__(self, count: int, writer: FileWriter, root_fd: int, work: Shares) -> None:
        self._shares = len(work.shares)
        self._numbers, hand_out = os.pipe()
        os.set_blocking(hand_out, False)
        self._hand_out = hand_out
        self._children: list[Child] = []

        def serve(_requests: int, answers: int) -> None:
            _serve(self._numbers, answers, writer, work)

        try:
            self._children = fork_children(count, writer, (root_fd, self._numbers), serve)
        finally:
            os.close(self._numbers)

    def run(self, made: Callable[[int, int], None], tick: Callable[[], None]) -> Tally:
        """Have everything made; raises RestoreError when a child cannot go on, and what `tick` raises."""
        poll = select.poll()
        answers = {child.answers: bytearray() for child in self._children}
        for child in self._children:
            child.close_requests()
            poll.register(child.answers, select.POLLIN)
        following = iter(range(self._shares))
        waiting = self._feed(following, b"")
        total = Tally()
        while answers:
            tick()
            for fd, _ in poll.poll(_WAIT_MS):
                data = os.read(fd, _PIPE)
                if not data:
                    poll.unregister(fd)
                    _take_over(total, bytes(answers.pop(fd)))
                    continue
                answers[fd] += data
                for files, size in _reports(answers[fd]):
                    made(files, size)
            waiting = self._feed(following, waiting)
        for child in self._children:
            child.reap()
        return total

    def abandon(self) -> None:
        """End the children at once; harmless when they have ended."""
        for child in self._children:
            child.kill()
        self._end_of_numbers()

    def _feed(self, following: Iterator[int], waiting: bytes) -> bytes:
        """Hand out numbers as far as the pipe takes them; the number that it did not take."""
        while self._hand_out >= 0:
            if not waiting:
                number = next(following, None)
                if number is None:
                    self._end_of_numbers()
                    break
                waiting = _NUMBER.pack(number)
            try:
                os.write(self._hand_out, waiting)
            except BlockingIOError:
                break
            except BrokenPipeError:  # all have died, which their answers tell
                self._end_of_numbers()
            waiting = b""
        return waiting

    def _end_of_numbers(self) -> None:
        if self._hand_out >= 0:
            os.close(self._hand_out)
            self._hand_out = -1


def _serve(numbers: int, answers: int, writer: FileWriter, work: Shares) -> None:
    # Numbers are written and read four bytes at a time, so none is ever torn between two children.
    while number := os.read(numbers, _NUMBER.size):
        files = size = 0
        with closing(fetch(work.reader, work.shares[_NUMBER.unpack(number)[0]])) as blobs:
            for handle, data in blobs:
                indexes = work.items[handle.id]
                files += len(indexes)
                if isinstance(data, DamagedError):
                    writer.failures += [(index, data.message) for index in indexes]
                    continue
                size += len(data) * len(indexes)
                for index in indexes:
                    writer.make(index, data)
        os.write(answers, b"+" + _MADE.pack(files, size))


def _reports(buffer: bytearray) -> Iterator[tuple[int, int]]:
    """Take whole reports from the front of what a child has said; its answer stays."""
    step = 1 + _MADE.size
    while len(buffer) >= step and buffer[:1] == b"+":
        yield _MADE.unpack(buffer[1:step])
        del buffer[:step]


def _take_over(total: Tally, data: bytes) -> None:
    answer = cast("dict[str, object]", orjson.loads(data)) if data else {"error": "a writing process died"}
    if "error" in answer:
        raise RestoreError(str(answer["error"]), advice=str(answer.get("advice") or RestoreError.advice))
    total.add(answer)
