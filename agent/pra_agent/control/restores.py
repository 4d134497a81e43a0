"""The handlers of restore sessions: leases, listings, and blobs that go past the daemon."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import structlog
from aiohttp import HttpVersion11, web

from pra_agent.control.gate import Limits
from pra_agent.control.handlers import json_answer, options, peer_in
from pra_agent.control.protocol import BLOBS_TYPE, HANDLES_TYPE, JSON_TYPE, MAX_HANDLES
from pra_agent.control.routes import RestoreOptions
from pra_agent.control.sessions import Exchange, Session, Sessions
from pra_agent.errors import PraError, UsageError

_PIECE = 256 * 1024
_log = structlog.get_logger(__name__)


class RestoreHandlers:
    """Sessions and what is read in them."""

    def __init__(self, sessions: Sessions, limits: Limits) -> None:
        self._sessions = sessions
        self._limits = limits

    async def open_restore(self, request: web.Request) -> web.StreamResponse:
        chosen = await options(request, RestoreOptions, self._limits)
        peer = peer_in(request)
        session = await self._sessions.open(peer.uid)
        _log.info("control_session_opened", session=session.id[:8], uid=peer.uid, pid=peer.pid, purpose=chosen.purpose)
        if request.transport is None or request.transport.is_closing():
            await self._sessions.close(session, "the client has gone")
        return self._lease(session, status=201)

    async def renew(self, request: web.Request) -> web.StreamResponse:
        session = self._sessions.find(request.match_info["restore"], peer_in(request))
        self._sessions.touch(session)
        return self._lease(session)

    async def close_restore(self, request: web.Request) -> web.StreamResponse:
        session = self._sessions.find(request.match_info["restore"], peer_in(request))
        await self._sessions.close(session, "the client ended it")
        return web.Response(status=204)

    async def snapshots(self, request: web.Request) -> web.StreamResponse:
        return await self._relay(request, "snapshots", "", JSON_TYPE)

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        return await self._relay(request, "snapshot", request.match_info["id"], JSON_TYPE)

    async def tree(self, request: web.Request) -> web.StreamResponse:
        return await self._relay(request, "tree", request.match_info["id"], JSON_TYPE)

    async def sizes(self, request: web.Request) -> web.StreamResponse:
        return await self._relay(request, "sizes", "", HANDLES_TYPE)

    async def trees(self, request: web.Request) -> web.StreamResponse:
        return await self._blobs(request, "trees")

    async def blobs(self, request: web.Request) -> web.StreamResponse:
        return await self._blobs(request, "blobs")

    # ------------------------------------------------------------ helpers
    def _lease(self, session: Session, status: int = 200) -> web.Response:
        return json_answer({"restore": session.id, "lease_seconds": self._sessions.lease}, status)

    async def _relay(self, request: web.Request, op: str, argument: str, content: str) -> web.StreamResponse:
        """Hand an answer of known length on, piece by piece."""
        async with self._exchange(request) as exchange:
            head = await exchange.ask(self._head(request, op, argument), self._body(request))
            left = int(head["length"])
            answer = web.StreamResponse(headers={"Content-Type": content, "Content-Length": str(left)})
            await answer.prepare(request)
            try:
                while left:
                    piece = await exchange.reader.readexactly(min(left, _PIECE))
                    left -= len(piece)
                    async with asyncio.timeout(self._limits.stalled):
                        await answer.write(piece)
                await answer.write_eof()
            except (EOFError, OSError, TimeoutError):
                _abort(request)
            return answer

    async def _blobs(self, request: web.Request, op: str) -> web.StreamResponse:
        """Let the child write the body to the client's connection itself, between the head and the last chunk."""
        if request.version < HttpVersion11:
            raise UsageError("blobs are sent in chunks: that takes HTTP/1.1")
        with _connection(request) as client:
            async with self._exchange(request, client) as exchange:
                await exchange.ask(self._head(request, op, ""), self._body(request))
                answer = web.StreamResponse(headers={"Content-Type": BLOBS_TYPE})
                answer.enable_chunked_encoding()
                await answer.prepare(request)
                await _flushed(request)
                if await _streamed(exchange):
                    await answer.write_eof()
                else:
                    # The child may still hold its copy of the descriptor: this ends the connection for all who do.
                    _shut(client)
                    _abort(request)
                return answer

    @asynccontextmanager
    async def _exchange(
        self, request: web.Request, client: socket.socket | None = None
    ) -> AsyncGenerator[Exchange, None]:
        session = await self._session(request)
        session.busy += 1
        try:
            async with session.readers:
                exchange = await session.exchange(client)
                try:
                    yield exchange
                finally:
                    await session.done(exchange)
        finally:
            session.busy -= 1
            if not session.closing:
                self._sessions.touch(session)

    async def _session(self, request: web.Request) -> Session:
        named = request.query.get("restore")
        if named is None:
            return await self._sessions.shared()
        return self._sessions.find(named, peer_in(request))

    def _head(self, request: web.Request, op: str, argument: str) -> dict[str, object]:
        return {
            "op": op,
            "argument": argument,
            "json": request.content_type == JSON_TYPE,
            "stalled": self._limits.stalled,
        }

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        size = 0
        while True:
            async with asyncio.timeout(self._limits.body):
                piece = await request.content.readany()
            if not piece:
                return
            size += len(piece)
            if size > MAX_HANDLES:
                raise UsageError(f"a list of handles has at most {MAX_HANDLES} bytes")
            yield piece


def _connection(request: web.Request) -> socket.socket:
    if request.transport is None:
        raise ConnectionResetError
    return cast("socket.socket", request.transport.get_extra_info("socket")).dup()


async def _streamed(exchange: Exchange) -> bool:
    """Tell whether the child wrote a whole body."""
    try:
        return (await exchange.go()).get("error") is None
    except (PraError, OSError) as error:
        _log.warning("control_stream_broken", error=str(error))
        return False


async def _flushed(request: web.Request) -> None:
    """Wait until the head is with the kernel, since the child writes behind the transport's back."""
    while request.transport is not None and request.transport.get_write_buffer_size():  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0.005)


def _abort(request: web.Request) -> None:
    """Close without a proper end, so that the client knows that something is missing."""
    if request.transport is not None:
        request.transport.abort()


def _shut(client: socket.socket) -> None:
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        _log.debug("control_client_gone")
