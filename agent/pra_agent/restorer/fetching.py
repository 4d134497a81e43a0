"""Reading blobs so that a bad one costs only what needs it."""

import re
from collections.abc import Generator, Iterable, Iterator
from typing import cast

from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobHandle
from pra_agent.model.snapshots import SnapshotReader

_HEX_ID = re.compile(r"\b[0-9a-f]{64}\b")


def fetch(reader: SnapshotReader, handles: Iterable[BlobHandle]) -> Generator[tuple[BlobHandle, bytes | DamagedError]]:
    """Yield every handle once, with its plaintext or with the error that keeps it from being read.

    A reader stops at the first bad blob. Its error names the blob, which is then left out; where it names none, the
    rest is halved until the bad ones stand alone.
    """
    stack: list[set[BlobHandle]] = [set(handles)]
    while stack:
        wanted = stack.pop()
        if not wanted:
            continue
        blobs = reader.read(tuple(wanted))
        try:
            for handle, data in blobs:
                wanted.discard(handle)
                yield handle, data
        except DamagedError as error:
            bad = _named(error, wanted)
            if bad is None and len(wanted) == 1:
                bad = next(iter(wanted))
            if bad is not None:
                wanted.discard(bad)
                yield bad, error
                stack.append(wanted)
            else:
                rest = sorted(wanted)
                stack += [set(rest[len(rest) // 2 :]), set(rest[: len(rest) // 2])]
        else:
            for handle in sorted(wanted):
                yield handle, DamagedError(f"blob {handle} was not delivered")
        finally:
            _close(blobs)


def _close(blobs: Iterator[tuple[BlobHandle, bytes]]) -> None:
    """End a read that is given up in the middle now, with its threads and connections, not when it is collected."""
    if isinstance(blobs, Generator):
        cast("Generator[tuple[BlobHandle, bytes]]", blobs).close()


def _named(error: DamagedError, wanted: set[BlobHandle]) -> BlobHandle | None:
    ids = {bytes.fromhex(text) for text in _HEX_ID.findall(error.message)}
    return next((handle for handle in wanted if handle.id in ids), None) if ids else None
