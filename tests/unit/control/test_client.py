"""The client against servers that answer badly, late or not at all."""

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pra_agent.control import protocol
from pra_agent.control.client import Client
from pra_agent.control.connection import Connections
from pra_agent.control.reader import SessionReader
from pra_agent.errors import DaemonUnreachable, DamagedError, Locked, PraError
from tests.support.daemons import blob

Answer = Callable[[bytes], bytes]


class Server:
    """Answers each connection's requests with bytes, one after the other, then closes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[bytes] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            with connection:
                try:
                    while self.answers and _whole(connection):
                        connection.sendall(self.answers.pop(0))
                except OSError:
                    continue

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(60)


def _whole(connection: socket.socket) -> bool:
    """Read a request; False at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := connection.recv(65536)):
            return False
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return True


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pra-") as place:
        made = Server(Path(place) / "s")
        yield made
        made.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.path) as made:
        yield made


def ok(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*bodies: bytes, end: bool = True) -> bytes:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + (b"0\r\n\r\n" if end else b"")


def batch(*frames: bytes) -> bytes:
    body = b"".join(frames)
    return protocol.LENGTH.pack(len(body)) + body


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"], ids=["none", "no", "half"]
)
def test_no_proper_answer(server: Server, client: Client, answer: bytes) -> None:
    server.answers.append(answer)

    with pytest.raises(DaemonUnreachable):
        client.status()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ok(b"{"), "not JSON"),
        (ok(b"{}"), "not understood"),
        (ok(b"<html>", "502 Bad Gateway"), "502 Bad Gateway"),
        (ok(b'{"error": "x", "kind": "Locked"}', "423 Locked"), "x"),
    ],
)
def test_answers_that_are_no_status(server: Server, client: Client, answer: bytes, told: str) -> None:
    server.answers.append(answer)

    with pytest.raises(PraError, match=told):
        client.status()


def test_connections_are_kept_and_closed_ones_replaced(server: Server, client: Client) -> None:
    # The third answer's connection is closed by the server after it.
    server.answers += [ok(b"[]"), ok(b"[]"), ok(b"[]")]
    assert [client.jobs(), client.jobs(), client.jobs()] == [[], [], []]

    server.answers.append(ok(b"[]"))
    assert client.jobs() == []


@pytest.mark.parametrize(
    "answer",
    [
        chunked(b'{"type":"ping"}\n'),
        chunked(b'{"type":"ping"}\n', end=False),
        chunked(b'{"type":"progress","stage":"read"}\n', b'{"type'),
    ],
    ids=["ended", "cut", "half a line"],
)
def test_a_stream_without_its_record(server: Server, client: Client, answer: bytes) -> None:
    server.answers.append(answer)

    with pytest.raises(PraError):
        client.run_job("app")


def test_a_stream_that_tells_an_error(server: Server, client: Client) -> None:
    server.answers.append(chunked(b'{"type":"error","error":"x","kind":"Locked"}\n'))

    with pytest.raises(Locked):
        client.follow("r1")


def test_following_may_be_refused(server: Server, client: Client) -> None:
    server.answers.append(ok(b'{"error": "x", "kind": "Locked"}', "423 Locked"))

    with pytest.raises(Locked):
        client.follow("r1")


# ---------------------------------------------------------------- blobs
GOOD = blob(b"good")
FRAME = protocol.frame_header(GOOD, 4) + b"good"
BAD_STREAMS = {
    "cut in a chunk": (chunked(batch(FRAME, protocol.last_frame()), end=False)[:-10], DaemonUnreachable),
    "no last frame": (chunked(batch(FRAME)), DaemonUnreachable),
    "nothing": (chunked(), DaemonUnreachable),
    "left out": (chunked(batch(protocol.last_frame())), DamagedError),
    "twice": (chunked(batch(FRAME, FRAME, protocol.last_frame())), DamagedError),
    "not asked for": (chunked(batch(protocol.frame_header(blob(b"x"), 1), b"x")), DamagedError),
    "other bytes": (chunked(batch(protocol.frame_header(GOOD, 4), b"evil")), DamagedError),
    "half a frame": (chunked(batch(FRAME[:-1])), DamagedError),
    "odd type": (chunked(batch(b"?" + FRAME[1:])), DamagedError),
    "bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", DaemonUnreachable),
    "an error": (chunked(batch(protocol.last_frame(Locked("x")))), Locked),
    "refused": (ok(b'{"error": "x", "kind": "Locked"}', "423 Locked"), Locked),
    "refused oddly": (ok(b"<html>", "502 Bad Gateway"), PraError),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_bad_stream_is_never_taken_for_a_whole_one(server: Server, name: str) -> None:
    answer, error = BAD_STREAMS[name]
    server.answers.append(answer)
    connections = Connections(server.path)

    with pytest.raises(error):
        list(SessionReader(connections, "s").read([GOOD]))
    connections.close()


def test_a_stream_in_other_chunks_is_the_same(server: Server) -> None:
    body = batch(FRAME) + batch(protocol.last_frame())
    server.answers.append(chunked(*(body[at : at + 3] for at in range(0, len(body), 3))))
    connections = Connections(server.path)

    assert list(SessionReader(connections, "s").read([GOOD])) == [(GOOD, b"good")]
    connections.close()
