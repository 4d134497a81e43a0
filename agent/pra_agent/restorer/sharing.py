"""Files of one blob, read and written by several forked processes.

A share is what the reader fetches at once. A child tells what it has made after each share, and at its end what
failed; like every writing child it inherits the plan, dies with its parent and keeps no descriptor but its own.
"""

import itertools
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
from pra_agent.restorer.workers import fork_children
from pra_agent.restorer.writing import FileWriter, Tally

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
    """The children. Each has a run of neighbouring shares, so that they seldom wait for the same directory."""

    def __init__(self, count: int, writer: FileWriter, root_fd: int, work: Shares) -> None:
        ends = [len(work.shares) * number // count for number in range(count + 1)]
        serves = [_server(writer, work, work.shares[start:end]) for start, end in itertools.pairwise(ends)]
        self._children = fork_children(writer, (root_fd,), serves)

    def run(self, made: Callable[[int, int], None], tick: Callable[[], None]) -> Tally:
        """Have everything made; `made` is told of files and bytes as they are written, `tick` is called now and then.

        Raises RestoreError when a child cannot go on, and what `tick` raises.
        """
        poll = select.poll()
        said = {child.answers: bytearray() for child in self._children}
        for child in self._children:
            child.close_requests()
            poll.register(child.answers, select.POLLIN)
        total = Tally()
        while said:
            tick()
            for fd, _ in poll.poll(_WAIT_MS):
                data = os.read(fd, _PIPE)
                if not data:
                    poll.unregister(fd)
                    _take_over(total, bytes(said.pop(fd)))
                    continue
                said[fd] += data
                for files, size in _reports(said[fd]):
                    made(files, size)
        for child in self._children:
            child.reap()
        return total

    def abandon(self) -> None:
        """End the children at once; harmless when they have ended."""
        for child in self._children:
            child.kill()


def _server(writer: FileWriter, work: Shares, shares: Sequence[Sequence[BlobHandle]]) -> Callable[[int, int], None]:
    def serve(_requests: int, answers: int) -> None:
        for share in shares:
            os.write(answers, b"+" + _MADE.pack(*_make(share, writer, work)))

    return serve


def _make(share: Sequence[BlobHandle], writer: FileWriter, work: Shares) -> tuple[int, int]:
    """Make the files of a share; how many there were, and the bytes written."""
    files = size = 0
    with closing(fetch(work.reader, share)) as blobs:
        for handle, data in blobs:
            indexes = work.items[handle.id]
            files += len(indexes)
            if isinstance(data, DamagedError):
                writer.failures += [(index, data.message) for index in indexes]
                continue
            size += len(data) * len(indexes)
            for index in indexes:
                writer.make(index, data)
    return files, size


def _reports(buffer: bytearray) -> Iterator[tuple[int, int]]:
    """Take whole reports from the front of what a child has said; its answer stays."""
    step = 1 + _MADE.size
    while len(buffer) >= step and buffer.startswith(b"+"):
        yield _MADE.unpack(buffer[1:step])
        del buffer[:step]


def _take_over(total: Tally, data: bytes) -> None:
    answer = cast("dict[str, object]", orjson.loads(data)) if data else {"error": "a writing process died"}
    if "error" in answer:
        raise RestoreError(str(answer["error"]), advice=str(answer.get("advice") or RestoreError.advice))
    total.add(answer)
