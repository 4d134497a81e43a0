"""The reading child, here in a thread: questions over its channel, answers, errors, and its end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest

from pra_agent.control import protocol, worker
from pra_agent.errors import DamagedError, PraError, WrongKey
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshots import Snapshot
from tests.support.daemons import START, MemoryReader, blob


class Session:
    """The daemon's side of a channel."""

    def __init__(self, reader: MemoryReader, error: Exception | None = None) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.closed = False

        @contextmanager
        def opened() -> Iterator[MemoryReader]:
            if error is not None:
                raise error
            yield reader
            self.closed = True

        self.thread = threading.Thread(target=worker.serve, args=(theirs, opened))
        self.thread.start()
        self.first = orjson.loads(self.channel.recv(65536))

    def request(self, client: socket.socket | None = None) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        with theirs:
            fds = [theirs.fileno()] if client is None else [theirs.fileno(), client.fileno()]
            socket.send_fds(self.channel, [b"r"], fds)
        return ours

    def ask(
        self, op: str, argument: str = "", body: bytes = b"", *, json: bool = False
    ) -> tuple[dict[str, object], bytes]:
        with self.request() as pipe:
            pipe.sendall(question(op, argument, body, json=json))
            data = b""
            while b"\n" not in data:
                data += pipe.recv(65536)
            line, _, rest = data.partition(b"\n")
            head = orjson.loads(line)
            while len(rest) < head.get("length", 0):
                rest += pipe.recv(65536)
            return head, rest

    def end(self) -> None:
        self.channel.close()
        self.thread.join(60)
        assert not self.thread.is_alive()


def question(op: str, argument: str = "", body: bytes = b"", *, json: bool = False) -> bytes:
    head = orjson.dumps({"op": op, "argument": argument, "json": json, "stalled": 60.0}) + b"\n"
    pieces = b"".join(
        protocol.LENGTH.pack(len(body[at : at + 50])) + body[at : at + 50] for at in range(0, len(body), 50)
    )
    return head + pieces + protocol.LENGTH.pack(0)


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader()


@pytest.fixture
def session(reader: MemoryReader) -> Iterator[Session]:
    made = Session(reader)
    yield made
    made.end()
    assert made.closed, "the repository was given back"


def test_it_says_when_it_is_ready(session: Session) -> None:
    assert session.first == {"ready": True}


def test_snapshots_and_one(session: Session, reader: MemoryReader) -> None:
    reader.listed += [Snapshot(START, bytes(32), ("/srv",), "web-1", id=two * 32) for two in ("ab", "ac")]

    assert [item["id"] for item in orjson.loads(session.ask("snapshots")[1])] == ["ab" * 32, "ac" * 32]
    assert orjson.loads(session.ask("snapshot", "ac")[1])["id"] == "ac" * 32
    assert session.ask("snapshot", "a")[0]["kind"] == "UsageError"
    assert session.ask("snapshot", "ff")[0]["kind"] == "NotFound"


def test_sizes_and_trees(session: Session, reader: MemoryReader) -> None:
    handles = [reader.add(b"x" * 7), blob(b"absent"), reader.add(b"{}", BlobType.TREE)]

    _, data = session.ask("sizes", body=protocol.pack_handles(handles))
    assert protocol.parse_sizes(handles, data) == {handles[0]: 7, handles[2]: 2}
    assert session.ask("tree", handles[2].id.hex())[1] == b"{}"
    assert session.ask("tree", handles[0].id.hex())[0]["kind"] == "NotFound"


def test_a_list_that_is_none(session: Session) -> None:
    assert session.ask("blobs", body=b"odd")[0]["kind"] == "UsageError"
    assert session.ask("trees", body=b"d" + bytes(32))[0]["kind"] == "UsageError"
    assert session.ask("sizes", body=b"[1]", json=True)[0]["kind"] == "UsageError"


def test_blobs_need_their_connection(session: Session) -> None:
    assert session.ask("blobs")[0]["kind"] == "PraError"


def stream(session: Session, handles: list[BlobHandle], go: bytes = b"g") -> tuple[dict[str, object], bytes]:
    """Ask for blobs; gives the child's last word, and what the client got."""
    client, theirs = socket.socketpair()
    got = bytearray()

    def read() -> None:
        while piece := client.recv(65536):
            got.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    with session.request(theirs) as pipe, pipe.makefile("rb") as answer:
        theirs.setblocking(False)
        theirs.close()
        pipe.sendall(question("blobs", body=protocol.pack_handles(handles)))
        assert orjson.loads(answer.readline()) == {"ok": True}
        pipe.sendall(go)
        line = answer.readline()
    thread.join(60)
    client.close()
    return orjson.loads(line or b"{}"), bytes(got)


def test_blobs(session: Session, reader: MemoryReader) -> None:
    handles = [reader.add(b"x" * 70_000), reader.add(b"y")]

    told, got = stream(session, handles)

    assert told == {"done": True, "blobs": 2, "bytes": 70_001, "error": None}
    assert got.endswith(b"\r\n")
    assert b"x" * 70_000 in got


def test_a_stream_that_is_not_wanted_after_all(session: Session, reader: MemoryReader) -> None:
    assert stream(session, [reader.add(b"y")], go=b"n") == ({}, b"")


def test_an_error_while_reading_is_the_last_frame(session: Session) -> None:
    told, got = stream(session, [blob(b"absent")])

    assert told["error"] is None
    assert b'"kind":"DamagedError"' in got


def test_a_bug_while_reading_is_told_without_details(session: Session, reader: MemoryReader) -> None:
    def fail(_handle: BlobHandle) -> None:
        raise ZeroDivisionError("secret")

    reader.on_read = fail
    told, got = stream(session, [reader.add(b"y")])

    assert told["kind"] == "PraError"
    assert "secret" not in str(told)
    assert got == b""


def test_a_question_that_is_cut_off_harms_nothing(session: Session) -> None:
    for data in (b"", b"{", question("snapshots")[:-2], b"\xff\n"):
        with session.request() as pipe:
            pipe.sendall(data)
    assert session.ask("snapshots")[1] == b"[]\n"


def test_the_end_gives_up_what_is_under_way(reader: MemoryReader) -> None:
    session = Session(reader)
    client, theirs = socket.socketpair()
    pipe = session.request(theirs)
    theirs.setblocking(False)
    pipe.sendall(question("blobs", body=protocol.pack_handles([reader.add(bytes(50_000_000))])))
    assert pipe.recv(100) == b'{"ok":true}\n'
    pipe.sendall(b"g")
    assert client.recv(10)
    # Nobody reads on: the child waits for room when its channel is closed.
    session.end()
    for sock in (client, theirs, pipe):
        sock.close()
    assert session.closed


@pytest.mark.parametrize(
    ("error", "kind"), [(WrongKey("no"), "WrongKey"), (DamagedError("x"), "DamagedError"), (OSError("x"), "PraError")]
)
def test_errors_of_opening(reader: MemoryReader, error: Exception, kind: str) -> None:
    session = Session(reader, error)
    session.end()

    assert session.first["kind"] == kind
    assert isinstance(protocol.error_of(session.first), PraError)


def test_a_daemon_that_has_gone_before_the_error(reader: MemoryReader) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @contextmanager
    def opened() -> Iterator[MemoryReader]:
        ours.close()
        raise WrongKey("no")
        yield reader

    worker.serve(theirs, opened)
