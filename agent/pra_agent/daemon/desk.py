"""The daemon as the control socket sees it: `control.daemon.Daemon`, from any thread, over the event loop's objects."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from socket import socket
from typing import TypeVar

import structlog

from pra_agent import __version__
from pra_agent.clock import Clock
from pra_agent.config import Config
from pra_agent.config.loading import closest_job
from pra_agent.control.daemon import OperationRequest, RunListener
from pra_agent.daemon.child import Task
from pra_agent.daemon.facts import job_facts
from pra_agent.daemon.journal import HOST, Journal
from pra_agent.daemon.processes import Child, Processes
from pra_agent.daemon.requests import ReaderTask, RunRequest
from pra_agent.daemon.rules import ConfigRules
from pra_agent.daemon.runner import Runner
from pra_agent.errors import PraError, RefusedError, UsageError
from pra_agent.model.jobs import DaemonStatus, JobFact
from pra_agent.model.runs import Operation, Outcome

_T = TypeVar("_T")
#: Seconds for the event loop to answer a thread.
_PATIENCE = 30.0
#: Under this name the journal keeps why the host, or a job, is on hold.
HOLD_REASON = "hold reason"
#: The gauge that says when an escrow slot was last proven.
ESCROW_PROVEN = "escrow_proven_timestamp_seconds"
_READER = "pra_agent.daemon.reader:run"

_log = structlog.get_logger()


@dataclass(slots=True)
class Standing:
    """How the daemon itself is; the service changes it."""

    config: Config
    rules: ConfigRules
    started: datetime
    pid: int
    config_loaded: datetime
    config_error: str = ""
    repository_id: str = ""
    ready: bool = False
    log_json: bool = False


async def _nothing() -> None:
    """Nobody waits for it."""


class Desk:
    """Implements `control.daemon.Daemon`. `loop` is the one that the runner belongs to."""

    def __init__(
        self, standing: Standing, journal: Journal, runner: Runner, processes: Processes, clock: Clock
    ) -> None:
        self._standing = standing
        self._journal = journal
        self._runner = runner
        self._processes = processes
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        #: Takes the mark from what was accepted, in the repository; the service sets it.
        self.on_accepted: Callable[[], Coroutine[None, None, object]] = _nothing

    @property
    def journal(self) -> Journal:
        return self._journal

    def status(self) -> DaemonStatus:
        now = self._standing
        return DaemonStatus(
            node=now.config.node,
            version=__version__,
            started=now.started,
            pid=now.pid,
            repository=now.config.repository.url,
            repository_id=now.repository_id,
            config_loaded=now.config_loaded,
            config_error=now.config_error,
            on_hold=self._journal.job_state(HOST).on_hold,
            ready=now.ready,
        )

    def jobs(self) -> Sequence[JobFact]:
        return job_facts(self._standing.config)

    def run_job(self, job: str, *, full: bool = False) -> str:
        self._known(job)
        full = full or self._standing.rules.full_due(job)
        return self._submit(RunRequest(Operation.BACKUP, job, full=full))

    def start(self, request: OperationRequest) -> str:
        if request.job:
            self._known(request.job)
        if request.operation is Operation.BACKUP:
            raise UsageError("a backup is asked for by its job")
        if not self._standing.rules.can(request.operation):
            raise UsageError(
                f"this daemon does no {request.operation.value}", advice="It may be the pruning host's to do."
            )
        options: dict[str, object] = {"dry_run": request.dry_run, "read_data_subset": request.read_data_subset}
        wanted = RunRequest(request.operation, request.job, options=options)
        if request.operation is Operation.COPY:
            return self._copy(wanted)
        return self._submit(wanted)

    def subscribe(self, run_id: str, listener: RunListener) -> Callable[[], None]:
        leave = self._on_loop(lambda: self._runner.subscribe(run_id, listener))

        def left() -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(leave)

        return left

    def stop_run(self, run_id: str) -> None:
        self._on_loop(lambda: self._runner.stop(run_id, "it was asked to stop"))

    def pause_run(self, run_id: str) -> None:
        """As in `control.daemon.Daemon`. Its lock goes stale in some twenty minutes; later it fails when it goes on."""

        def pause() -> None:
            active = self._runner.get(run_id)
            if active.child is None:
                raise RefusedError(f"run {run_id} has not begun", advice="Hold its job instead: pra-agent hold.")
            active.pause()

        self._on_loop(pause)
        self._journal.set_progress(run_id, {**(self._journal.progress(run_id) or {}), "stage": "paused"})
        _log.warning("the run is paused", run=run_id)

    def resume_run(self, run_id: str) -> None:
        self._on_loop(lambda: self._runner.get(run_id).resume())
        _log.info("the run goes on", run=run_id)

    def escrow_proven(self, slot: str) -> None:
        self._journal.set_gauge(ESCROW_PROVEN, self._clock.timestamp())
        _log.info("an escrow slot was proven to open the repository", slot=slot[:10])

    def hold(self, jobs: Sequence[str], reason: str) -> None:
        for job in jobs:
            self._known(job)
        for job in jobs or [HOST]:
            self._journal.set_hold(True, job)
            self._journal.set_note(f"{HOLD_REASON} {job}", reason)
        _log.warning("on hold", jobs=", ".join(jobs) or "all", reason=reason)

    def release(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            self._known(job)
        for job in jobs or [HOST]:
            self._journal.set_hold(False, job)
        _log.info("released", jobs=", ".join(jobs) or "all")

    def accept(self, job: str) -> None:
        self._known(job)
        suspect = self._journal.last_with(job, Operation.BACKUP, [Outcome.SUSPECT])
        if not self._journal.job_state(job).suspect or suspect is None:
            raise RefusedError(f"no backup of {job} is suspect", advice="There is nothing to accept.")
        self._journal.accept(suspect)
        _log.info("the suspect backup is accepted", job=job, run=suspect.id)
        # The journal counts; when the repository cannot be had now, its snapshot is marked good by the next survey.
        with suppress(TimeoutError, RuntimeError):
            asyncio.run_coroutine_threadsafe(self.on_accepted(), self._loop).result(_PATIENCE)

    def start_reader(self, channel: socket) -> Child:
        task = ReaderTask(self._standing.config, self._standing.log_json)
        return self._processes.spawn(Task(_READER, task), (channel.fileno(),), stderr=2)

    # ------------------------------------------------------------ helpers
    def _copy(self, wanted: RunRequest) -> str:
        places = self._standing.config.copies
        if not places:
            raise UsageError("no copies are configured")
        return [self._submit(replace(wanted, job="", destination=place.url)) for place in places][-1]

    def _submit(self, request: RunRequest) -> str:
        return self._on_loop(lambda: self._runner.submit(request).id)

    def _known(self, job: str) -> None:
        config = self._standing.config
        if job not in config.jobs:
            raise UsageError(f"no job is called {job}", advice=closest_job(job, config))

    def _on_loop(self, do: Callable[[], _T]) -> _T:
        """Call something on the event loop from another thread, and wait for what it gives or raises."""

        async def call() -> _T:
            return do()

        try:
            return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_PATIENCE)
        except (TimeoutError, RuntimeError) as error:
            raise PraError("the daemon does not answer; it may be stopping") from error
