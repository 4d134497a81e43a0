"""Reading the repository through a restore session: a `model.snapshots.SnapshotReader` over the socket."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from http.client import HTTPException, HTTPResponse, IncompleteRead
from itertools import islice
from typing import Final

import orjson

from pra_agent.control.connection import Connections
from pra_agent.control.protocol import (
    HANDLES_TYPE,
    LENGTH,
    MAX_BATCH,
    error_of,
    pack_handles,
    parse_batch,
    parse_sizes,
)
from pra_agent.control.wire import snapshot_of
from pra_agent.errors import DaemonUnreachable, DamagedError, PraError
from pra_agent.model.ids import BlobHandle
from pra_agent.model.snapshots import Snapshot

#: Handles in one question (33 bytes each): more are asked for in several.
AT_ONCE: Final = 500_000
_AGAIN = "Nothing that was restored is lost; run the same command again to go on."


class SessionReader:
    """What a restore needs of the repository. May be used from several threads; ends with its session."""

    def __init__(self, connections: Connections, session: str) -> None:
        self._connections = connections
        self._query = f"?restore={session}"

    def snapshots(self) -> Sequence[Snapshot]:
        return [snapshot_of(item) for item in orjson.loads(self._ask("GET", "/v1/snapshots", b""))]

    def sizes(self, handles: Iterable[BlobHandle]) -> Mapping[BlobHandle, int]:
        found: dict[BlobHandle, int] = {}
        for some in _batches(handles):
            found.update(parse_sizes(some, self._ask("POST", "/v1/sizes", pack_handles(some))))
        return found

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        for some in _batches(handles):
            yield from self._read(some)

    def _ask(self, method: str, path: str, body: bytes) -> bytes:
        with self._connections.lend() as connection:
            response = connection.ask(method, path + self._query, body, {"Content-Type": HANDLES_TYPE})
            data = response.read()
        if response.status >= 400:
            raise _error(response, data)
        return data

    def _read(self, handles: Sequence[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        missing = set(handles)
        with self._connections.lend() as connection:
            response = connection.ask(
                "POST", f"/v1/blobs{self._query}", pack_handles(handles), {"Content-Type": HANDLES_TYPE}
            )
            if response.status >= 400:
                raise _error(response, response.read())
            for handle, data in _blobs(response):
                if handle not in missing:
                    raise DamagedError(f"{handle}: the daemon sent a blob that was not asked for")
                missing.discard(handle)
                if sha256(data).digest() != handle.id:
                    raise DamagedError(f"{handle}: the blob that came is not the one that was asked for")
                yield handle, data
        if missing:
            raise DamagedError(f"{next(iter(missing))}: the daemon left {len(missing)} blobs out")


def _batches(handles: Iterable[BlobHandle]) -> Iterator[list[BlobHandle]]:
    """Take handles apart into lists of a size that one question may have, each handle once."""
    distinct = iter(dict.fromkeys(handles))
    while some := list(islice(distinct, AT_ONCE)):
        yield some


def _blobs(response: HTTPResponse) -> Iterator[tuple[BlobHandle, bytes]]:
    """Read batches up to the last frame, into one buffer that grows to the largest of them."""
    buffer = bytearray(2 * 1024 * 1024)
    while True:
        (size,) = LENGTH.unpack(_exactly(response, memoryview(bytearray(LENGTH.size))))
        if size > MAX_BATCH:
            raise DamagedError(f"a batch of {size} bytes is larger than any can be")
        if size > len(buffer):
            buffer = bytearray(size)
        for frame in parse_batch(_exactly(response, memoryview(buffer)[:size])):
            if frame.handle is not None:
                yield frame.handle, frame.data
            elif frame.data:
                raise error_of(orjson.loads(frame.data))
            else:
                response.read()
                return


def _exactly(response: HTTPResponse, view: memoryview) -> memoryview:
    try:
        length = response.readinto(view)
    except IncompleteRead as error:
        raise DaemonUnreachable("the restore session ended in the middle of a blob", advice=_AGAIN) from error
    except (OSError, HTTPException, ValueError) as error:
        raise DaemonUnreachable(f"the connection to the daemon broke: {error}", advice=_AGAIN) from error
    if length != len(view):
        raise DaemonUnreachable("the restore session ended before all blobs were sent", advice=_AGAIN)
    return view


def _error(response: HTTPResponse, data: bytes) -> PraError:
    try:
        return error_of(orjson.loads(data))
    except orjson.JSONDecodeError:
        return PraError(f"the daemon refused the request: {response.status} {response.reason}")
