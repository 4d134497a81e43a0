"""The child process of a restore session: it reads the repository and writes blobs straight to the client's socket.

The daemon's loop never touches a blob: for each request the child gets, over the session's channel, one end of a
socket pair for question and answer, and the client's own connection, as file descriptors. The session ends when the
channel is closed, and with it the process and its memory.

Question: a line of JSON (`op`, `json`), then its body in pieces (4 bytes length, bytes; length 0 ends), then for a
stream of blobs one byte more when the head of the answer has gone to the client. Answer: a line of JSON, `{"ok": true,
"length": n}` and n bytes, or `{"ok": true}` before and `{"done": true}` after a stream, or an error.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Final, cast

import orjson
import structlog

from pra_agent.control.protocol import LENGTH, error_json, pack_sizes, parse_handles
from pra_agent.control.stream import ClientGone, write_blobs
from pra_agent.control.wire import dumps, snapshot_json
from pra_agent.errors import DamagedError, NotFound, PraError, UsageError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshots import Snapshot, SnapshotReader

#: Opens the repository under its shared lock; the exit gives both back.
OpenReader = Callable[[], AbstractContextManager[SnapshotReader]]

#: Seconds for requests that are under way when the session ends.
_LAST_REQUESTS: Final = 10.0
_log = structlog.get_logger(__name__)


def serve(channel: socket.socket, open_reader: OpenReader) -> None:
    """Serve a session until its channel is closed; errors of opening go to the server, not to the caller.

    `channel` is a blocking SOCK_SEQPACKET socket, and is closed at the end.
    """
    with channel:
        try:
            with open_reader() as reader:
                channel.send(orjson.dumps({"ready": True}))
                _Worker(channel, reader).run()
        except PraError as error:
            _tell(channel, error)
        except Exception:  # noqa: BLE001 - a bug must reach the log and the client, not end silently
            _log.exception("restore_session_failed")
            _tell(channel, PraError("the restore session failed; the daemon's log tells why"))


def _tell(channel: socket.socket, error: PraError) -> None:
    try:
        channel.send(orjson.dumps(error_json(error)))
    except OSError:
        # The server has gone or has closed the session: nobody is left to be told.
        _log.info("restore_session_ended", error=error.message)


@dataclass(frozen=True, slots=True)
class _Request:
    """One question, and where its answer goes."""

    pipe: socket.socket
    stream: IO[bytes]
    client: socket.socket | None
    op: str
    argument: str
    stalled: float
    handles: list[BlobHandle]

    def answer(self, body: bytes) -> None:
        self.pipe.sendall(orjson.dumps({"ok": True, "length": len(body)}) + b"\n" + body)

    def say(self, **fields: object) -> None:
        self.pipe.sendall(orjson.dumps(fields) + b"\n")


class _Worker:
    """The loop over the channel, and a thread for each request."""

    def __init__(self, channel: socket.socket, reader: SnapshotReader) -> None:
        self._channel = channel
        self._reader = reader
        self._threads: list[threading.Thread] = []
        self._pipes: set[socket.socket] = set()
        self._ops: dict[str, Callable[[_Request], None]] = {
            "snapshots": self._snapshots,
            "snapshot": self._snapshot,
            "sizes": self._sizes,
            "tree": self._tree,
            "blobs": self._blobs,
            "trees": self._blobs,
        }

    def run(self) -> None:
        """Take requests until the channel is closed, then let those under way end soon."""
        try:
            while True:
                data, fds, _, _ = socket.recv_fds(self._channel, 16, 2)
                if not data:
                    return
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                sockets = [socket.socket(fileno=fd) for fd in fds]
                thread = threading.Thread(target=partial(self._handle, *sockets), daemon=True)
                self._threads.append(thread)
                thread.start()
        finally:
            for pipe in tuple(self._pipes):
                _shut(pipe)
            for thread in self._threads:
                thread.join(_LAST_REQUESTS)

    def _handle(self, pipe: socket.socket, client: socket.socket | None = None) -> None:
        # The client's connection is shared with the daemon: it is non-blocking, and stays so.
        self._pipes.add(pipe)
        pipe.setblocking(True)
        with pipe, pipe.makefile("rb") as stream:
            try:
                self._answer(pipe, stream, client)
            except OSError:
                # The daemon has closed the request: the client has gone, or the lease has ended.
                _log.debug("restore_request_dropped")
            finally:
                self._pipes.discard(pipe)
                if client is not None:
                    client.close()

    def _answer(self, pipe: socket.socket, stream: IO[bytes], client: socket.socket | None) -> None:
        try:
            request = _read_request(pipe, stream, client)
            self._ops[request.op](request)
        except PraError as error:
            pipe.sendall(orjson.dumps(error_json(error)) + b"\n")
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - as in `serve`
            _log.exception("restore_request_failed")
            pipe.sendall(orjson.dumps(error_json(PraError("the daemon failed; its log tells why"))) + b"\n")

    # ------------------------------------------------------------ operations
    def _snapshots(self, request: _Request) -> None:
        request.answer(dumps([snapshot_json(snapshot) for snapshot in self._reader.snapshots()]))

    def _snapshot(self, request: _Request) -> None:
        request.answer(dumps(snapshot_json(_pick(self._reader.snapshots(), request.argument))))

    def _sizes(self, request: _Request) -> None:
        request.answer(pack_sizes(request.handles, self._reader.sizes(request.handles)))

    def _tree(self, request: _Request) -> None:
        handle = BlobHandle(BlobType.TREE, bytes.fromhex(request.argument))
        if handle not in self._reader.sizes([handle]):
            raise NotFound(f"there is no tree {request.argument}")
        blobs = dict(self._reader.read([handle]))
        request.answer(blobs[handle])

    def _blobs(self, request: _Request) -> None:
        if request.client is None:
            raise PraError("the request came without its connection")
        request.say(ok=True)
        if request.stream.read(1) != b"g":
            return
        error, blobs, size = None, 0, 0
        try:
            blobs, size = write_blobs(request.client, request.pipe, self._reader.read(request.handles), request.stalled)
        except ClientGone as gone:
            error = str(gone)
        request.say(done=True, blobs=blobs, bytes=size, error=error)


def _pick(snapshots: Iterable[Snapshot], prefix: str) -> Snapshot:
    found = [snapshot for snapshot in snapshots if snapshot.id.startswith(prefix)]
    if not found:
        raise NotFound(f"there is no snapshot {prefix}", advice="pra-agent snapshots lists them.")
    if len(found) > 1:
        raise UsageError(f"{len(found)} snapshots begin with {prefix}", advice="Give more digits of the id.")
    return found[0]


def _read_request(pipe: socket.socket, stream: IO[bytes], client: socket.socket | None) -> _Request:
    head = cast("dict[str, Any]", orjson.loads(stream.readline(65536)))
    body = b"".join(_pieces(stream))
    op = str(head["op"])
    only = BlobType.TREE if op == "trees" else None
    handles = parse_handles(body, json=bool(head["json"]), only=only) if op in ("sizes", "blobs", "trees") else []
    return _Request(pipe, stream, client, op, str(head["argument"]), float(head["stalled"]), handles)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
        if length == 0:
            return
        yield _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise DamagedError("the request was cut off")
    return data


def _shut(pipe: socket.socket) -> None:
    try:
        pipe.shutdown(socket.SHUT_RDWR)
    except OSError:
        _log.debug("restore_request_closed")
