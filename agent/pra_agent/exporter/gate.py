"""A guard before each connection, so that idle strangers cannot use up the daemon's file descriptors.

aiohttp bounds the size of what comes in, not the time that it takes to come, nor the number of connections.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Self, cast


@dataclass(slots=True)
class Doorkeeper:
    """All open connections. A connection that makes no request for so many seconds is closed."""

    connections: int = 64
    header: float = 15.0
    idle: float = 90.0
    gates: "set[Gate]" = field(default_factory=lambda: set["Gate"]())


class Gate(asyncio.Protocol):
    """Stands between the transport and aiohttp's own protocol, and hands everything on."""

    def __init__(self, inner: asyncio.Protocol, keeper: Doorkeeper) -> None:
        self._inner = inner
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._keeper.gates) >= self._keeper.connections:
            self._transport.abort()
            return
        self._keeper.gates.add(self)
        self._inner.connection_made(transport)
        self._arm(self._keeper.header)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self in self._keeper.gates:
            self._keeper.gates.discard(self)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self in self._keeper.gates:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self in self._keeper.gates else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def __enter__(self) -> Self:
        """Begin a request: its whole header has come."""
        self._requests += 1
        self._disarm()
        return self

    def __exit__(self, *_: object) -> None:
        """End a request: the next may take its time."""
        self._requests -= 1
        if self._requests == 0:
            self._arm(self._keeper.idle)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._transport is not None:
            self._transport.abort()
