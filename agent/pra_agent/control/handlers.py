"""What each route does. A handler gets the request, whose peer has the role already, and answers or raises."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, cast

import structlog
from aiohttp import web
from pydantic import ValidationError

from pra_agent.clock import Clock
from pra_agent.control.daemon import Daemon, OperationRequest
from pra_agent.control.events import EventStream
from pra_agent.control.gate import Limits
from pra_agent.control.peers import Peer
from pra_agent.control.protocol import EVENTS_TYPE, JSON_TYPE, error_json
from pra_agent.control.routes import HoldOptions, OperationOptions, Options, ProofOptions, RunOptions
from pra_agent.control.wire import dumps, error_line, job_json, run_json, status_json
from pra_agent.errors import NotFound, PraError, UsageError
from pra_agent.model.jobs import JobStatus, assess
from pra_agent.model.runs import Operation

_T = TypeVar("_T")
_O = TypeVar("_O", bound=Options)
#: Where the middleware leaves the peer.
PEER = web.RequestKey("peer", Peer) if hasattr(web, "RequestKey") else "peer"
_log = structlog.get_logger(__name__)


def peer_in(request: web.Request) -> Peer:
    """Tell who asks."""
    return cast("Peer", request[cast("str", PEER)])


async def options(request: web.Request, kind: type[_O], limits: Limits) -> _O:
    """Read the body as these options; an empty body stands for the defaults. Raises `UsageError`."""
    async with asyncio.timeout(limits.body):
        body = await request.read()
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise UsageError(f"{where}: {first['msg']}") from error


def json_answer(value: Any, status: int = 200) -> web.Response:  # noqa: ANN401 - whatever JSON can say
    """Answer with JSON."""
    return web.Response(body=dumps(value), status=status, content_type=JSON_TYPE)


class JobHandlers:
    """Status, jobs, runs and operations."""

    def __init__(self, daemon: Daemon, clock: Clock, executor: Executor, limits: Limits) -> None:
        self._daemon = daemon
        self._clock = clock
        self._executor = executor
        self._limits = limits

    async def status(self, _request: web.Request) -> web.StreamResponse:
        return json_answer(status_json(await self._call(self._daemon.status)))

    async def jobs(self, _request: web.Request) -> web.StreamResponse:
        return json_answer([job_json(status) for status in await self._call(self._assess)])

    async def runs(self, request: web.Request) -> web.StreamResponse:
        job = request.query.get("job")
        limit = min(int(request.query.get("limit", "100")), 10_000)
        records = await self._call(lambda: self._daemon.journal.runs(job=job, limit=limit))
        return json_answer([run_json(record) for record in records])

    async def run(self, request: web.Request) -> web.StreamResponse:
        run_id = request.match_info["run"]
        record = await self._call(lambda: self._daemon.journal.run(run_id))
        if record is None:
            raise NotFound(f"there is no run {run_id}", advice="pra-agent status lists the newest.")
        return json_answer(run_json(record))

    async def run_job(self, request: web.Request) -> web.StreamResponse:
        job = await self._known(request.match_info["job"])
        chosen = await options(request, RunOptions, self._limits)
        run_id = await self._call(lambda: self._daemon.run_job(job, full=chosen.full))
        _audit(request, "control_run", job=job, run=run_id, full=chosen.full)
        return await self._started(request, run_id)

    async def operate(self, request: web.Request) -> web.StreamResponse:
        chosen = await options(request, OperationOptions, self._limits)
        job = await self._known(chosen.job) if chosen.job else ""
        asked = OperationRequest(
            Operation(request.match_info["operation"]), job, chosen.dry_run, chosen.read_data_subset
        )
        run_id = await self._call(lambda: self._daemon.start(asked))
        _audit(request, "control_operation", operation=asked.operation.value, job=job, run=run_id)
        return await self._started(request, run_id)

    async def events(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, request.match_info["run"])

    async def pause(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, self._daemon.pause_run)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, self._daemon.resume_run)

    async def stop(self, request: web.Request) -> web.StreamResponse:
        return await self._steer(request, self._daemon.stop_run)

    async def escrow_proven(self, request: web.Request) -> web.StreamResponse:
        chosen = await options(request, ProofOptions, self._limits)
        await self._call(lambda: self._daemon.escrow_proven(chosen.slot))
        _audit(request, "control_escrow_proven", slot=chosen.slot)
        return web.Response(status=204)

    async def accept(self, request: web.Request) -> web.StreamResponse:
        job = await self._known(request.match_info["job"])
        await self._call(lambda: self._daemon.accept(job))
        _audit(request, "control_accept", job=job)
        return web.Response(status=204)

    async def hold(self, request: web.Request) -> web.StreamResponse:
        chosen = await self._held(request)
        await self._call(lambda: self._daemon.hold(chosen.jobs, chosen.reason))
        _audit(request, "control_hold", jobs=chosen.jobs, reason=chosen.reason)
        return web.Response(status=204)

    async def release(self, request: web.Request) -> web.StreamResponse:
        chosen = await self._held(request)
        await self._call(lambda: self._daemon.release(chosen.jobs))
        _audit(request, "control_release", jobs=chosen.jobs)
        return web.Response(status=204)

    # ------------------------------------------------------------ helpers
    async def _steer(self, request: web.Request, steer: Callable[[str], None]) -> web.StreamResponse:
        run_id = request.match_info["run"]
        await self._call(lambda: steer(run_id))
        _audit(request, f"control_{request.path.rpartition('/')[2]}", run=run_id)
        return web.Response(status=204)

    def _assess(self) -> list[JobStatus]:
        now = self._clock.now()
        return [assess(fact, self._daemon.journal, now) for fact in self._daemon.jobs()]

    async def _held(self, request: web.Request) -> HoldOptions:
        chosen = await options(request, HoldOptions, self._limits)
        for job in chosen.jobs:
            await self._known(job)
        return chosen

    async def _known(self, job: str) -> str:
        names = [fact.name for fact in await self._call(self._daemon.jobs)]
        if job not in names:
            raise UsageError(f"no job is called {job}", advice=f"The configuration has: {', '.join(names) or 'none'}.")
        return job

    async def _started(self, request: web.Request, run_id: str) -> web.StreamResponse:
        if "wait" in request.query:
            return await self._stream(request, run_id)
        return json_answer({"run": run_id}, status=202)

    async def _stream(self, request: web.Request, run_id: str) -> web.StreamResponse:
        stream = EventStream()
        leave = await self._call(lambda: self._daemon.subscribe(run_id, stream))
        try:
            return await self._write(request, stream.lines(run_id, self._daemon.journal))
        finally:
            await self._call(leave)

    async def _write(self, request: web.Request, lines: AsyncIterator[bytes]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": EVENTS_TYPE})
        await answer.prepare(request)
        try:
            async for line in lines:
                async with asyncio.timeout(self._limits.stalled):
                    await answer.write(line)
        except PraError as error:
            await answer.write(error_line(error_json(error)))
        except (OSError, TimeoutError):
            # The client has gone or reads no more; the run goes on without it.
            _log.info("control_listener_gone", uid=peer_in(request).uid)
            if request.transport is not None:
                request.transport.abort()
        else:
            await answer.write_eof()
        return answer

    async def _call(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _audit(request: web.Request, event: str, **fields: object) -> None:
    peer = peer_in(request)
    _log.info(event, uid=peer.uid, pid=peer.pid, **fields)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
