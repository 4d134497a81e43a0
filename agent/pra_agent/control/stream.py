"""Writes blobs to a client's connection: batches inside HTTP chunks, large writes, no copy of large blobs."""

import select
import socket
from collections.abc import Iterable
from typing import Final

from pra_agent.control.protocol import BATCH, LENGTH, frame_header, last_frame
from pra_agent.errors import PraError
from pra_agent.model.ids import BlobHandle

#: Up to so many pieces go to the kernel as they are; more (small blobs) are joined first. IOV_MAX is 1024.
_MOST_PIECES: Final = 64


class ClientGone(Exception):
    """The client has closed its connection, reads no more, or the daemon has ended the request."""


def write_blobs(
    client: socket.socket, request: socket.socket, blobs: Iterable[tuple[BlobHandle, bytes]], stalled: float
) -> tuple[int, int]:
    """Write all blobs and the last frame; returns their number and bytes. An error of reading becomes the last frame.

    `client` is non-blocking and shared with the daemon, who has written the head of the answer and will write the
    chunk that ends it. `request` becomes readable when the daemon has given the request up. Raises `ClientGone`.
    """
    out = _Chunks(client, request, stalled)
    number = size = 0
    try:
        for handle, data in blobs:
            out.add(frame_header(handle, len(data)), data)
            number += 1
            size += len(data)
        out.add(last_frame())
    except PraError as error:
        out.add(last_frame(error))
    out.flush()
    return number, size


class _Chunks:
    """Gathers frames, and sends each batch as one HTTP chunk."""

    def __init__(self, client: socket.socket, request: socket.socket, stalled: float) -> None:
        self._client = client
        self._stalled = stalled * 1000
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._given_up = select.poll()
        self._given_up.register(request, select.POLLIN | select.POLLHUP)
        self._writable = select.poll()
        self._writable.register(client, select.POLLOUT)
        self._writable.register(request, select.POLLIN | select.POLLHUP)
        self._request_fd = request.fileno()

    def add(self, *pieces: bytes) -> None:
        self._pieces.extend(pieces)
        self._size += sum(map(len, pieces))
        if self._size >= BATCH:
            self.flush()

    def flush(self) -> None:
        if not self._pieces:
            return
        if self._given_up.poll(0):
            raise ClientGone("the request was given up")
        head = b"%x\r\n" % (self._size + LENGTH.size) + LENGTH.pack(self._size)
        pieces = [head, *self._pieces, b"\r\n"]
        self._pieces, self._size = [], 0
        if len(pieces) > _MOST_PIECES:
            pieces = [b"".join(pieces)]
        self._send([memoryview(piece) for piece in pieces if piece])

    def _send(self, pieces: list[memoryview]) -> None:
        while pieces:
            try:
                sent = self._client.sendmsg(pieces)
            except BlockingIOError:
                self._wait()
                continue
            except OSError as error:
                raise ClientGone("the client has gone") from error
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][sent:]

    def _wait(self) -> None:
        ready = self._writable.poll(self._stalled)
        if not ready:
            raise ClientGone("the client does not read")
        if any(fd == self._request_fd for fd, _ in ready):
            raise ClientGone("the request was given up")
