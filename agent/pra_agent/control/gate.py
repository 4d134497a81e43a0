"""A guard before each connection: how many there may be, and how long one may take to say what it wants.

aiohttp limits the size of headers and bodies, but waits for ever for the rest of a header; here a connection that has
said something, or nothing yet, must have made a request within a time.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from pra_agent.control.peers import HasOptions, Peer, peer_of


@dataclass(slots=True)
class Limits:
    """How much one server takes on.

    `header`, `idle` and `body` in seconds; connections are counted over all peers and per user.
    """

    connections: int = 128
    connections_per_user: int = 48
    sessions: int = 16
    readers_per_session: int = 4
    header: float = 15.0
    idle: float = 60.0
    body: float = 30.0
    #: Seconds for which a client may leave a full socket buffer unread.
    stalled: float = 300.0


@dataclass(slots=True)
class Crowd:
    """All connections that are open now, per user."""

    limits: Limits
    users: Counter[int] = field(default_factory=lambda: Counter[int]())
    gates: "set[Gate]" = field(default_factory=lambda: set["Gate"]())

    def enter(self, gate: "Gate", uid: int) -> bool:
        """Count a connection in, unless there are too many."""
        full = len(self.gates) >= self.limits.connections
        if uid != 0 and (full or self.users[uid] >= self.limits.connections_per_user):
            return False
        # Root is let in above the limit, so that nobody can lock the administrator out.
        self.gates.add(gate)
        self.users[uid] += 1
        return True

    def leave(self, gate: "Gate", uid: int) -> None:
        """Count a connection out."""
        if gate in self.gates:
            self.gates.discard(gate)
            self.users[uid] -= 1


class Gate(asyncio.Protocol):
    """Stands between the transport and aiohttp's own protocol, and hands everything on."""

    def __init__(self, inner: asyncio.Protocol, crowd: Crowd) -> None:
        self._inner = inner
        self._crowd = crowd
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0
        self._entered = False
        self._idle = False
        self.peer = Peer(0, -1, frozenset())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        try:
            self.peer = peer_of(cast("HasOptions", transport.get_extra_info("socket")))
        except OSError:
            self._transport.abort()
            return
        if not self._crowd.enter(self, self.peer.uid):
            self._transport.abort()
            return
        self._entered = True
        self._inner.connection_made(transport)
        self._arm(self._crowd.limits.header)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._crowd.leave(self, self.peer.uid)
        if self._entered:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._entered:
            return
        if self._requests == 0 and self._idle:
            self._arm(self._crowd.limits.header)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._entered else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def request_began(self) -> None:
        """Note that a whole header has come, so that its handler minds the time from here on."""
        self._requests += 1
        self._disarm()

    def request_ended(self) -> None:
        """Note that the handler is done with it; the next may take its time to begin."""
        self._requests -= 1
        if self._requests == 0:
            self._arm(self._crowd.limits.idle)
            self._idle = True

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._idle = False

    def _give_up(self) -> None:
        self._timer = None
        if self._transport is not None:
            self._transport.abort()
