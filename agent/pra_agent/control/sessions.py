"""Restore sessions, as the daemon's loop holds them: a lease, a channel to the child that reads, requests to it."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterable, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import orjson
import structlog

from pra_agent.control.daemon import Daemon, ReaderProcess
from pra_agent.control.gate import Limits
from pra_agent.control.peers import Peer
from pra_agent.control.protocol import LENGTH, error_of
from pra_agent.errors import NotFound, PraError, RefusedError, RestoreError

#: Seconds that opening the repository may take, and that a child gets to give its lock back.
OPENING: Final = 300.0
CLOSING: Final = 15.0
_LINE: Final = 1024 * 1024
_log = structlog.get_logger(__name__)


class _HasShutdown(Protocol):
    def shutdown(self, how: int, /) -> None: ...


class Exchange:
    """One question to the child: its answer is read here, blobs go past."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def ask(self, head: dict[str, object], body: AsyncIterable[bytes] | None) -> dict[str, Any]:
        """Put the question and read the first line of the answer; raises the error that it is."""
        self._writer.write(orjson.dumps(head) + b"\n")
        if body is not None:
            async for piece in body:
                self._writer.write(LENGTH.pack(len(piece)) + piece)
                await self._writer.drain()
        self._writer.write(LENGTH.pack(0))
        await self._writer.drain()
        return await self.line()

    async def go(self) -> dict[str, Any]:
        """Let the blobs flow, and wait for their end."""
        self._writer.write(b"g")
        await self._writer.drain()
        return await self.line()

    async def line(self) -> dict[str, Any]:
        """Read a line of the answer; raises the error that it is, or `RestoreError` when the child is gone."""
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise RestoreError("the restore session ended")
        fields = cast("dict[str, Any]", orjson.loads(line))
        if "kind" in fields:
            raise error_of(fields)
        return fields

    async def close(self) -> None:
        """Give the question up, if it is not answered yet."""
        # A shutdown reaches the child also where another process has inherited a copy of our end.
        _shut(self._writer.get_extra_info("socket"))
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@dataclass(eq=False, slots=True)
class Session:
    """One lease. `owner` is the user who opened it, None for the one that all single requests share."""

    id: str
    owner: int | None
    channel: socket.socket
    process: ReaderProcess
    readers: asyncio.Semaphore
    busy: int = 0
    timer: asyncio.TimerHandle | None = None
    closing: bool = False
    exchanges: set[Exchange] = field(default_factory=lambda: set[Exchange]())

    async def exchange(self, client: socket.socket | None = None) -> Exchange:
        """Begin a question; `client` goes to the child as well."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                fds = [theirs.fileno()] if client is None else [theirs.fileno(), client.fileno()]
                socket.send_fds(self.channel, [b"r"], fds)
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
        except OSError as error:
            ours.close()
            raise RestoreError("the restore session ended") from error
        exchange = Exchange(reader, writer)
        self.exchanges.add(exchange)
        return exchange

    async def done(self, exchange: Exchange) -> None:
        """End a question."""
        self.exchanges.discard(exchange)
        await exchange.close()


class Sessions:
    """All sessions. Everything here runs on the loop; what may block goes to the executor."""

    def __init__(self, daemon: Daemon, executor: Executor, limits: Limits, lease: float) -> None:
        self._daemon = daemon
        self._executor = executor
        self._limits = limits
        self.lease = lease
        self._sessions: dict[str, Session] = {}
        self._opening = 0
        self._stopping = False
        self._shared: Session | None = None
        self._sharing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, owner: int | None) -> Session:
        """Start a child, and wait until it holds the lock; raises its error, or `RefusedError` for one too many."""
        if len(self._sessions) + self._opening >= self._limits.sessions:
            raise RefusedError(
                f"{self._limits.sessions} restore sessions are open already", advice="End one, or wait a minute."
            )
        if self._stopping:
            raise RefusedError("the daemon stops", advice="Start it again, or use --direct.")
        self._opening += 1
        try:
            session = await self._start(owner)
        finally:
            self._opening -= 1
        if self._stopping:
            await self.close(session, "the daemon stops")
            raise RefusedError("the daemon stops", advice="Start it again, or use --direct.")
        self._sessions[session.id] = session
        asyncio.get_running_loop().add_reader(session.channel.fileno(), self._gone, session)
        self.touch(session)
        return session

    def find(self, session_id: str, peer: Peer) -> Session:
        """Find a session of this user; raises `NotFound` for any other."""
        session = self._sessions.get(session_id)
        if session is None or session.closing or session.owner not in (None, peer.uid):
            raise NotFound(
                "there is no such restore session",
                advice=f"It ends after {self.lease:.0f} seconds without use; open another.",
            )
        return session

    async def shared(self) -> Session:
        """The session behind requests that name none; it is opened at need and ends as all do."""
        async with self._sharing:
            session = self._shared
            if session is None or session.closing:
                session = await self.open(None)
                self._shared = session
            self.touch(session)
            return session

    def touch(self, session: Session) -> None:
        """Let the lease begin anew."""
        if session.timer is not None:
            session.timer.cancel()
        loop = asyncio.get_running_loop()
        session.timer = loop.call_later(self.lease, self._expire, session)

    async def close(self, session: Session, reason: str) -> None:
        """End a session: its requests are given up, its child gives the lock back, or is killed after a while."""
        if session.closing:
            return
        session.closing = True
        if session.timer is not None:
            session.timer.cancel()
        asyncio.get_running_loop().remove_reader(session.channel.fileno())
        _shut(session.channel)
        session.channel.close()
        for exchange in tuple(session.exchanges):
            await session.done(exchange)
        ended = await self._call(session.process.wait, CLOSING)
        if not ended:
            _log.warning("control_session_killed", session=session.id[:8])
            await self._call(session.process.kill)
            await self._call(session.process.wait, CLOSING)
        self._sessions.pop(session.id, None)
        _log.info("control_session_closed", session=session.id[:8], uid=session.owner, reason=reason)

    async def close_all(self) -> None:
        """End all sessions; no other can be opened after this."""
        self._stopping = True
        await asyncio.gather(*(self.close(session, "the daemon stops") for session in tuple(self._sessions.values())))
        if self._tasks:
            await asyncio.gather(*self._tasks)

    async def _start(self, owner: int | None) -> Session:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                process = await self._call(self._daemon.start_reader, theirs)
            ours.setblocking(False)
        except BaseException:
            ours.close()
            raise
        readers = asyncio.Semaphore(self._limits.readers_per_session)
        session = Session(secrets.token_urlsafe(24), owner, ours, process, readers)
        try:
            await _ready(ours)
        except BaseException:
            self._spawn(self.close(session, "it could not be opened"))
            raise
        return session

    def _gone(self, session: Session) -> None:
        self._spawn(self.close(session, "its process ended"))

    def _expire(self, session: Session) -> None:
        if session.busy:
            self.touch(session)
        else:
            self._spawn(self.close(session, "the lease expired"))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as the function's
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _shut(sock: _HasShutdown) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


async def _ready(channel: socket.socket) -> None:
    try:
        async with asyncio.timeout(OPENING):
            data = await asyncio.get_running_loop().sock_recv(channel, _LINE)
    except TimeoutError as error:
        raise PraError(f"the repository was not open after {OPENING:.0f} seconds") from error
    except OSError as error:
        raise PraError("the reading process ended before it was ready") from error
    if not data:
        raise PraError("the reading process ended before it was ready; the daemon's log tells why")
    fields = cast("dict[str, Any]", orjson.loads(data))
    if "kind" in fields:
        raise error_of(fields)
