"""The exporter's server: /metrics, /-/healthy, /-/ready and the status page; GET and HEAD only.

server = ExporterServer(settings, journal, facts, status, clock)
await server.start()   # on the loop that serves it; raises ConfigError
server.address         # (host, port) that it listens at
await server.stop()
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import structlog
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from pra_agent.clock import Clock
from pra_agent.errors import ConfigError
from pra_agent.exporter.auth import Users
from pra_agent.exporter.collector import JournalCollector
from pra_agent.exporter.gate import Doorkeeper, Gate
from pra_agent.exporter.page import STYLE_HASH, render
from pra_agent.exporter.settings import ExporterSettings, TlsSettings
from pra_agent.exporter.view import look
from pra_agent.model.jobs import DaemonStatus, JobFact
from pra_agent.model.runs import JournalReader

_T = TypeVar("_T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "pra-agent",
}
_OPEN: Final = ("/-/healthy", "/-/ready")
_log = structlog.get_logger(__name__)


class ExporterServer:
    """Serves what the journal tells."""

    def __init__(
        self,
        settings: ExporterSettings,
        journal: JournalReader,
        facts: Callable[[], Sequence[JobFact]],
        status: Callable[[], DaemonStatus],
        clock: Clock,
        *,
        keeper: Doorkeeper | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._facts = facts
        self._status = status
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(JournalCollector(journal, facts, status))
        ProcessCollector(registry=self._registry)
        self._users: Users | None = None
        self._keeper = keeper or Doorkeeper()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        # Two scrapes at once: more would only wait for the journal together.
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="exporter")
        self.address: tuple[str, int] = ("", 0)

    async def start(self) -> None:
        """Listen; raises `ConfigError` when the address, the certificate or the file of users cannot be used."""
        context = _context(self._settings.tls) if self._settings.tls is not None else None
        self._users = Users.load(self._settings.users) if self._settings.users is not None else None
        app = web.Application(middlewares=[self._middleware], client_max_size=1024)
        routes = {"/metrics": self._metrics, "/-/healthy": self._healthy, "/-/ready": self._ready, "/": self._page}
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._keeper.idle + 15.0,
            lingering_time=1.0,
            shutdown_timeout=3.0,
            max_line_size=4096,
            max_field_size=8190,
            auto_decompress=False,
        )
        await self._runner.setup()
        try:
            self._server = await self._listen(context)
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(f"exporter.listen: {self._settings.listen}: {error.strerror}") from error
        bound = self._server.sockets[0].getsockname()
        self.address = (str(bound[0]), int(bound[1]))
        _log.info("exporter_listening", address=self.address[0], port=self.address[1], tls=context is not None)

    async def stop(self) -> None:
        """Close all. Harmless when it was not started."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.to_thread(self._executor.shutdown)

    async def _listen(self, context: ssl.SSLContext | None) -> asyncio.Server:
        host, port = self._settings.address
        handshake = 10.0 if context is not None else None
        return await asyncio.get_running_loop().create_server(
            self._gate, host or None, port, ssl=context, ssl_handshake_timeout=handshake, reuse_address=True
        )

    def _gate(self) -> Gate:
        server = self._runner.server if self._runner is not None else None
        if server is None:
            raise RuntimeError
        return Gate(server(), self._keeper)

    # ------------------------------------------------------------ handlers
    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        body = await self._call(lambda: encode(self._registry))
        answer = web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
        answer.enable_compression()
        return answer

    async def _healthy(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="pra-agent is alive.\n")

    async def _ready(self, _request: web.Request) -> web.StreamResponse:
        status = await self._call(self._status)
        if not status.ready:
            return web.Response(status=503, text="pra-agent is not ready.\n")
        return web.Response(text="pra-agent is ready.\n")

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        text = await self._call(lambda: render(look(self._journal, self._facts(), self._status(), self._clock.now())))
        answer = web.Response(text=text, content_type="text/html", charset="utf-8")
        answer.enable_compression()
        return answer

    # ------------------------------------------------------------ helpers
    @web.middleware
    async def _middleware(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        gate = request.transport.get_protocol() if request.transport is not None else None
        if not isinstance(gate, Gate):
            raise web.HTTPServiceUnavailable
        with gate:
            answer = await self._answered(request, handler)
        for name, value in _HEADERS.items():
            answer.headers[name] = value
        return answer

    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            return web.Response(status=405, headers={hdrs.ALLOW: "GET, HEAD"}, text="Only GET and HEAD.\n")
        if not await self._admitted(request):
            challenge = {hdrs.WWW_AUTHENTICATE: 'Basic realm="pra-agent", charset="UTF-8"'}
            return web.Response(status=401, headers=challenge, text="A name and a password are needed.\n")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.Response(status=error.status, text=f"{error.reason}\n")
        except (asyncio.CancelledError, OSError):
            raise
        except Exception:  # noqa: BLE001 - a bug in the page must not take the metrics along
            _log.exception("exporter_request_failed", path=request.path[:200])
            return web.Response(status=500, text="The exporter failed; its log tells why.\n")

    async def _admitted(self, request: web.Request) -> bool:
        users = self._users
        if users is None or request.path in _OPEN:
            return True
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        return await self._call(lambda: users.admits(authorization))

    async def _call(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise ConfigError(f"exporter.tls: the certificate or its key cannot be used: {error}") from error
    return context
