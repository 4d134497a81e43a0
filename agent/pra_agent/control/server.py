"""The server: aiohttp on the Unix socket, with the table of routes, the roles, and errors as JSON.

server = ControlServer(daemon, settings, clock)
await server.start()          # on the loop that serves it; raises ConfigError, RefusedError
server.reconfigure(settings)  # after a reload: the groups (the path stays)
await server.stop()           # ends sessions; runs go on
"""

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import structlog
from aiohttp import web

from pra_agent.clock import Clock
from pra_agent.control import listen
from pra_agent.control.daemon import Daemon
from pra_agent.control.gate import Crowd, Gate, Limits
from pra_agent.control.handlers import PEER, Handler, JobHandlers, json_answer, peer_in
from pra_agent.control.peers import Access
from pra_agent.control.protocol import LEASE, MAX_BODY, error_json
from pra_agent.control.restores import RestoreHandlers
from pra_agent.control.routes import ROUTES, Route
from pra_agent.control.sessions import Sessions
from pra_agent.control.settings import ControlSettings
from pra_agent.errors import (
    AccessDenied,
    DamagedError,
    Locked,
    NoRepository,
    NotFound,
    PraError,
    RefusedError,
    StorageError,
    UsageError,
)

_STATUS: Mapping[type[PraError], int] = {
    NotFound: 404,
    NoRepository: 404,
    UsageError: 400,
    RefusedError: 409,
    Locked: 423,
    DamagedError: 500,
    AccessDenied: 502,
    StorageError: 502,
}
_log = structlog.get_logger(__name__)


class Forbidden(RefusedError):
    """The peer has not the role."""

    advice = "Ask root, or have the group of your user added to control.run or control.read."


class ControlServer:
    """Serves a daemon at its socket."""

    def __init__(
        self,
        daemon: Daemon,
        settings: ControlSettings,
        clock: Clock,
        *,
        limits: Limits | None = None,
        lease: float = LEASE,
    ) -> None:
        self._daemon = daemon
        self._settings = settings
        self._clock = clock
        self._limits = limits or Limits()
        self._lease = lease
        self._access = Access(settings)
        self._crowd = Crowd(self._limits)
        self._listener: listen.Listener | None = None
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._sessions: Sessions | None = None
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="control")

    @property
    def sessions(self) -> int:
        """How many restore sessions are open."""
        return len(self._sessions) if self._sessions is not None else 0

    async def start(self, inherited: listen.Listener | None = None) -> None:
        """Listen at the path of the settings, or at what systemd handed over (`listen.inherited`)."""
        self._listener = inherited or listen.bind(self._settings.socket, self._access.groups)
        self._sessions = Sessions(self._daemon, self._executor, self._limits, self._lease)
        self._runner = web.AppRunner(
            self._application(self._sessions),
            access_log=None,
            keepalive_timeout=self._limits.idle + 15.0,
            shutdown_timeout=5.0,
            max_line_size=4096,
            max_field_size=8190,
            auto_decompress=False,
            lingering_time=2.0,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._gate, sock=self._listener.sock, backlog=128)
        _log.info("control_listening", socket=str(self._settings.socket), systemd=self._listener.path is None)

    def reconfigure(self, settings: ControlSettings) -> None:
        """Take the groups of new settings, for all connections from now on and those that are open."""
        self._access = Access(settings)

    async def stop(self) -> None:
        """Close the socket and end all sessions and connections. Harmless when it was not started."""
        if self._server is not None:
            self._server.close()
        if self._sessions is not None:
            await self._sessions.close_all()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._listener is not None:
            self._listener.remove()
        # Its threads may wait for this loop, so the loop must not wait for them.
        await asyncio.to_thread(self._executor.shutdown)

    def _gate(self) -> Gate:
        server = self._runner.server if self._runner is not None else None
        if server is None:
            raise RuntimeError
        return Gate(server(), self._crowd)

    def _application(self, sessions: Sessions) -> web.Application:
        jobs = JobHandlers(self._daemon, self._clock, self._executor, self._limits)
        restores = RestoreHandlers(sessions, self._limits)
        app = web.Application(middlewares=[self._middleware], client_max_size=MAX_BODY)
        for route in ROUTES:
            handler = cast("Handler", getattr(jobs, route.name, None) or getattr(restores, route.name))
            app.router.add_route(route.method, route.path, self._guarded(route, handler))
        return app

    def _guarded(self, route: Route, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            peer = peer_in(request)
            if not (self._access.roles(peer) & route.roles if route.roles else self._access.owns(peer)):
                _log.warning("control_refused", uid=peer.uid, pid=peer.pid, method=route.method, path=route.path)
                needed = f" or a group in control.{' or '.join(sorted(route.roles))}" if route.roles else ""
                raise Forbidden(f"user {peer.uid} may not do that: it takes root{needed}")
            check_parameters(route, request)
            return await handler(request)

        return guarded

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        gate = request.transport.get_protocol() if request.transport is not None else None
        if not isinstance(gate, Gate):
            raise web.HTTPServiceUnavailable
        request[cast("str", PEER)] = gate.peer
        gate.request_began()
        try:
            answer = await self._answered(request, handler)
        finally:
            gate.request_ended()
        if not answer.prepared:
            answer.headers["Server"] = "pra-agent"
            answer.headers["Cache-Control"] = "no-store"
        return answer

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except PraError as error:
            return json_answer(error_json(error), _status(error))
        except web.HTTPException as error:
            told = UsageError(f"{request.method} {request.path[:200]}: {error.reason}", advice="See docs/socket.md.")
            answer = json_answer(error_json(told), error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except TimeoutError:
            return json_answer(error_json(UsageError("the request's body did not come in time")), 408)
        except (asyncio.CancelledError, OSError):
            raise
        except Exception:  # noqa: BLE001 - a bug in one handler must not take the others along
            _log.exception("control_request_failed", method=request.method)
            return json_answer(error_json(PraError("the daemon failed; its log tells why")), 500)


def check_parameters(route: Route, request: web.Request) -> None:
    """Refuse what the table does not know: parameters without a place, values that do not match."""
    known = {(parameter.place, parameter.name): parameter for parameter in route.parameters}
    given = [("path", *item) for item in request.match_info.items()]
    given += [("query", *item) for item in request.query.items()]
    for place, name, value in given:
        parameter = next((found for key, found in known.items() if key == (place, name)), None)
        if parameter is None:
            raise UsageError(f"unknown parameter: {name[:100]}")
        if not parameter.flag and not re.fullmatch(parameter.pattern, value):
            raise UsageError(f"{name}: not of the form {parameter.pattern}")


def _status(error: PraError) -> int:
    if isinstance(error, Forbidden):
        return 403
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def socket_of(environment: Mapping[str, str] | None = None) -> listen.Listener | None:
    """Take the socket that systemd handed over, None without one."""
    return listen.inherited(os.environ if environment is None else environment)
