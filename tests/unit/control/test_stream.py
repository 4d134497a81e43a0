"""Blobs on their way to a client that reads, dawdles or dies."""

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from pra_agent.control.protocol import BATCH
from pra_agent.control.reader import _blobs
from pra_agent.control.stream import ClientGone, write_blobs
from pra_agent.errors import DamagedError, Locked
from pra_agent.model.ids import BlobHandle, BlobType
from tests.support.daemons import blob

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Wire:
    """The daemon's and the client's ends of a connection, and of a request."""

    def __init__(self) -> None:
        self.client, self.server = socket.socketpair()
        self.daemon, self.request = socket.socketpair()
        self.server.sendall(HEAD)
        self.server.setblocking(False)

    def close(self) -> None:
        for sock in (self.client, self.server, self.daemon, self.request):
            sock.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def received(wire: Wire) -> list[tuple[BlobHandle, bytes]]:
    with HTTPResponse(wire.client) as response:
        response.begin()
        return list(_blobs(response))


def sent(wire: Wire, blobs: Iterator[tuple[BlobHandle, bytes]]) -> threading.Thread:
    def work() -> None:
        write_blobs(wire.server, wire.request, blobs, 60)
        wire.server.setblocking(True)
        wire.server.sendall(b"0\r\n\r\n")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "sizes", [[], [0], [1] * 5000, [BATCH - 1, BATCH, BATCH + 1], [8 * BATCH, 3, 0], [70_000] * 100]
)
def test_what_is_written_is_read(wire: Wire, sizes: list[int]) -> None:
    blobs = [
        (BlobHandle(BlobType.DATA, number.to_bytes(32, "big")), bytes([number % 251]) * size)
        for number, size in enumerate(sizes)
    ]
    thread = sent(wire, iter(blobs))

    assert received(wire) == blobs
    thread.join(60)


def test_an_error_in_the_middle_reaches_the_client(wire: Wire) -> None:
    def blobs() -> Iterator[tuple[BlobHandle, bytes]]:
        yield blob(b"good"), b"good"
        raise Locked("lost")

    thread = sent(wire, blobs())
    seen: list[tuple[BlobHandle, bytes]] = []
    with HTTPResponse(wire.client) as response:
        response.begin()
        with pytest.raises(Locked, match="lost"):
            for item in _blobs(response):
                seen.append(item)  # noqa: PERF402 - what came before the error counts
    assert seen == [(blob(b"good"), b"good")]
    thread.join(60)


def test_a_client_that_has_gone(wire: Wire) -> None:
    wire.client.close()

    with pytest.raises(ClientGone, match="gone"):
        write_blobs(wire.server, wire.request, iter([(blob(b"x"), bytes(BATCH))]), 60)


def test_a_client_that_does_not_read(wire: Wire) -> None:
    with pytest.raises(ClientGone, match="does not read"):
        write_blobs(wire.server, wire.request, iter([(blob(b"x"), bytes(16 * BATCH))]), 0.05)


def test_a_request_that_the_daemon_gives_up(wire: Wire) -> None:
    wire.daemon.close()

    with pytest.raises(ClientGone, match="given up"):
        write_blobs(wire.server, wire.request, iter([(blob(b"x"), bytes(BATCH))]), 60)


def test_a_batch_beyond_all_bounds_is_damage(wire: Wire) -> None:
    wire.server.sendall(b"4\r\n\xff\xff\xff\xff\r\n")

    with pytest.raises(DamagedError, match="larger than"):
        received(wire)
