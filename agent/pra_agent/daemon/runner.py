"""Runs what is asked for, each run in a child process, in lanes; and writes down how each ended.

Backups go first, the one with the least slack to its RPO before the others; upkeep waits for them (see
`requests.Lane`). A run's record is in the journal before anybody is told that it ended. All methods belong to the event
loop's thread.
"""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

import structlog

from pra_agent.clock import Clock
from pra_agent.daemon.active import ActiveRun, Listener, parse
from pra_agent.daemon.child import Task
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.keeping import keep
from pra_agent.daemon.processes import Processes
from pra_agent.daemon.requests import Lane, RunRequest
from pra_agent.errors import NotFound, PraError, RefusedError
from pra_agent.model.events import FileFailed, Notice, Progress
from pra_agent.model.runs import Operation, Outcome, RunRecord

#: Seconds between asking a run to stop and ending it, and for its pipes to run dry after its end.
GRACE = 20.0
_DRAIN = 5.0
#: An exclusive run is stopped for a backup that has less slack than this, in seconds; but only so many times.
_URGENT = 1800.0
_GIVES_WAY = 3
#: A run that yields starts beside running backups when it has waited so long, in seconds.
_PATIENCE = 6 * 3600.0
_LONGEST_LINE = 16 * 1024 * 1024

_log = structlog.get_logger()


class Rules(Protocol):
    """What the runner asks about the configuration."""

    @property
    def concurrent_backups(self) -> int:
        """How many backups may run at once."""
        ...

    def slack(self, request: RunRequest) -> float:
        """Seconds until the job's RPO is missed; the smaller, the more urgent."""
        ...

    def task(self, run: RunRecord, request: RunRequest) -> Task:
        """The child's work."""
        ...

    def judge(self, record: RunRecord) -> bool:
        """Whether an ended run advances the data instant."""
        ...


class Runner:
    """The queue and the running children."""

    def __init__(self, journal: Journal, processes: Processes, rules: Rules, clock: Clock) -> None:
        self._journal = journal
        self._processes = processes
        self._clock = clock
        self._queue: list[ActiveRun] = []
        self._running: list[ActiveRun] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        #: May be replaced while runs go on: a reload.
        self.rules = rules
        #: Called with the record of each run that begins.
        self.on_started: Callable[[RunRecord], None] = _no_matter
        #: Called with each ended run's record and its request.
        self.on_finished: Callable[[RunRequest, RunRecord], None] = _nothing

    # ------------------------------------------------------------ asking
    def submit(self, request: RunRequest) -> ActiveRun:
        """Queue a run, or give the one that is queued or runs already. Raises `RefusedError` when closing."""
        if self._closing:
            raise RefusedError("the daemon is stopping", advice="Ask again when it runs again.")
        known = self.find(request)
        if known is not None:
            if known.record is None and request.full:
                known.request = replace(known.request, full=True)
            return known
        now = self._clock.now()
        run_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        active = ActiveRun(run_id, request, now, asyncio.get_running_loop().create_future())
        self._queue.append(active)
        self._dispatch()
        return active

    def find(self, request: RunRequest) -> ActiveRun | None:
        """The run of the same operation, job and destination that is queued or runs."""
        return next((a for a in (*self._running, *self._queue) if a.request.key == request.key), None)

    def get(self, run_id: str) -> ActiveRun:
        """The queued or running run; raises `NotFound`."""
        for active in (*self._running, *self._queue):
            if active.id == run_id:
                return active
        raise NotFound(f"no run {run_id} is queued or running", advice="See pra-agent status.")

    def subscribe(self, run_id: str, listener: Listener) -> Callable[[], None]:
        """Let the listener hear of the run; one that has ended tells its record at once. Raises `NotFound`."""
        try:
            active = self.get(run_id)
        except NotFound:
            record = self._journal.run(run_id)
            if record is None:
                raise
            listener(record)
            return _no_more
        active.listeners.append(listener)

        def leave() -> None:
            with suppress(ValueError):
                active.listeners.remove(listener)

        return leave

    @property
    def queued(self) -> Sequence[ActiveRun]:
        """What waits."""
        return tuple(self._queue)

    @property
    def running(self) -> Sequence[ActiveRun]:
        """What runs."""
        return tuple(self._running)

    async def errand(self, task: Task, active: ActiveRun) -> RunRecord:
        """Do something in a child that is no run: it is in no lane and leaves no record."""
        active.record = self._begun(active)
        status = await self._child(active, task)
        return active.outcome(self._clock.now(), status)

    # ------------------------------------------------------------ stopping
    def stop(self, run_id: str, reason: str) -> None:
        """Ask a run to stop; after `GRACE` it is ended. One that is queued just leaves. Raises `NotFound`."""
        active = self.get(run_id)
        if active in self._queue:
            self._leave(active, reason)
        else:
            self._ask_to_stop(active, reason)

    async def close(self, reason: str) -> None:
        """Take nothing more, stop what runs, and wait until all of it is in the journal."""
        self._closing = True
        for active in list(self._queue):
            self._leave(active, reason)
        for active in self._running:
            self._ask_to_stop(active, reason)
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def _leave(self, active: ActiveRun, reason: str) -> None:
        self._queue.remove(active)
        now = self._clock.now()
        record = replace(self._begun(active), finished=now, outcome=Outcome.SKIPPED, error=reason)
        active.tell(record)
        active.ended.set_result(record)

    def _ask_to_stop(self, active: ActiveRun, reason: str) -> None:
        if active.stopping:
            return
        active.stopping = reason
        if active.paused:
            active.resume()
        active.signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        # The second one interrupts what does not look whether it is to stop; the last one ends it.
        loop.call_later(GRACE / 2, active.signal, signal.SIGTERM)
        loop.call_later(GRACE, partial(active.signal, signal.SIGKILL, group=True))

    # ------------------------------------------------------------ lanes
    def wake(self) -> None:
        """See whether something that waits may start by now."""
        if not self._closing:
            self._dispatch()

    def _dispatch(self) -> None:
        while (active := self._next()) is not None:
            self._queue.remove(active)
            self._running.append(active)
            task = asyncio.get_running_loop().create_task(self._execute(active))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> ActiveRun | None:
        backups = [a for a in self._running if a.manner.lane is Lane.BACKUP]
        upkeep = [a for a in self._running if a.manner.lane is not Lane.BACKUP]
        exclusive = [a for a in upkeep if a.manner.lane is Lane.EXCLUSIVE]
        waiting = [a for a in self._queue if a.manner.lane is Lane.BACKUP]
        if waiting:
            urgent = min(waiting, key=lambda a: self.rules.slack(a.request))
            if exclusive and self.rules.slack(urgent.request) < _URGENT:
                self._make_room(exclusive[0])
            free = not exclusive and len(backups) < self.rules.concurrent_backups
            return urgent if free else None
        if upkeep:
            return None
        return next((a for a in self._queue if not backups or self._beside_backups(a)), None)

    def _beside_backups(self, active: ActiveRun) -> bool:
        """Whether a run may start while backups run: those that yield do so for a while only."""
        waited = (self._clock.now() - active.queued).total_seconds()
        return active.manner.lane is Lane.SHARED and (not active.manner.yields or waited > _PATIENCE)

    def _make_room(self, active: ActiveRun) -> None:
        """Stop a run that keeps an urgent backup from its turn; it begins again when the backups are done."""
        if not active.stopping and active.times_given_way < _GIVES_WAY:
            active.gives_way = True
            self._ask_to_stop(active, "gave way to a backup; it begins again later")

    # ------------------------------------------------------------ one run
    def _begun(self, active: ActiveRun) -> RunRecord:
        request = active.request
        return RunRecord(
            id=active.id,
            operation=request.operation,
            job=request.job,
            started=self._clock.now(),
            destination=request.destination,
            full=request.full,
        )

    async def _execute(self, active: ActiveRun) -> None:
        active.record = self._begun(active)
        log = _log.bind(run=active.id, operation=active.request.operation.value)
        if active.request.job:
            log = log.bind(job=active.request.job)
        try:
            await asyncio.to_thread(self._journal.start, active.record)
            self.on_started(active.record)
            status = await self._child(active, self.rules.task(active.record, active.request))
        except Exception as error:
            # Whatever it was: a run that cannot be followed must not stay in its lane for ever.
            log.exception("the run could not be started, or not be followed")
            active.signal(signal.SIGKILL, group=True)
            active.error = {"kind": type(error).__name__, "message": str(error)}
            status = 1
        record = await self._write_down(active.outcome(self._clock.now(), status))
        self._running.remove(active)
        _tell(log, record)
        active.tell(record)
        active.ended.set_result(record)
        if active.gives_way and record.outcome is Outcome.SKIPPED and not self._closing:
            again = self.submit(active.request)
            again.times_given_way = active.times_given_way + 1
        self.on_finished(active.request, record)
        self._dispatch()

    async def _write_down(self, record: RunRecord) -> RunRecord:
        """Put the record into the journal; when that fails, the run has failed, whatever it reported."""
        try:
            await asyncio.to_thread(self._journal.finish, record, advances=self.rules.judge(record))
        except PraError as error:
            _log.exception("the journal does not take the run", run=record.id)
            return replace(record, outcome=Outcome.FAILED, error=f"the journal did not take it: {error.message}")
        return record

    async def _child(self, active: ActiveRun, task: Task) -> int:
        """Start the child, follow its lines, and give its wait status when it has ended and all is read."""
        loop = asyncio.get_running_loop()
        events, events_end = os.pipe2(os.O_CLOEXEC)
        stderr, stderr_end = os.pipe2(os.O_CLOEXEC)
        try:
            child = await asyncio.to_thread(self._processes.spawn, task, (events_end,), stderr=stderr_end)
        except BaseException:
            os.close(events)
            os.close(stderr)
            raise
        finally:
            os.close(events_end)
            os.close(stderr_end)
        active.child = child
        if active.stopping:
            active.signal(signal.SIGTERM)
        limit = active.manner.limit
        timer = loop.call_later(limit.total_seconds(), self._ask_to_stop, active, f"stopped at its time limit, {limit}")
        readers = [
            loop.create_task(_lines(events, lambda line: self._hear(active, line))),
            loop.create_task(_lines(stderr, lambda line: _overhear(active, line))),
        ]
        try:
            status = await asyncio.wrap_future(child.exited)
            _, late = await asyncio.wait(readers, timeout=_DRAIN)
            for reader in late:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        finally:
            timer.cancel()
        return status

    async def _hear(self, active: ActiveRun, line: bytes) -> None:
        message = parse(line)
        if message is None:
            _log.warning("a run sent a line that is not JSON", run=active.id)
            return
        if message.get("type") == "derived":
            self._processes.remember(cast("Mapping[str, str]", message["entries"]))
            return
        event = active.hear(message)
        if isinstance(event, Progress):
            self._journal.set_progress(active.id, {key: value for key, value in message.items() if key != "type"})
        elif isinstance(event, FileFailed):
            _log.warning("a file is missing from the run", run=active.id, path=event.path, reason=event.reason)
        elif isinstance(event, Notice):
            (_log.warning if event.level == "warning" else _log.info)(event.message, run=active.id)
        else:
            await asyncio.to_thread(keep, self._journal, message)


async def _lines(descriptor: int, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Read a pipe line by line to its end; closes it."""
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while line := await reader.readline():
            try:
                await take(line)
            except (PraError, ValueError, TypeError, KeyError):
                _log.exception("what a run told could not be taken")
    finally:
        transport.close()


async def _overhear(active: ActiveRun, line: bytes) -> None:
    """Pass a child's log line on, and remember it: the last ones explain a crash."""
    text = line.decode(errors="replace")
    active.stderr.append(text.rstrip("\n"))
    sys.stderr.write(text)


def _tell(log: structlog.BoundLogger, record: RunRecord) -> None:
    say = {Outcome.SUCCESS: log.info, Outcome.SKIPPED: log.info, Outcome.FAILED: log.error}
    more = {"error": record.error} if record.error else {}
    if record.operation is Operation.BACKUP and record.outcome is not Outcome.FAILED:
        more |= {"snapshot": record.snapshot[:8], "files": str(record.files), "added": str(record.bytes_added)}
    finished = record.finished or record.started
    seconds = round((finished - record.started).total_seconds(), 3)
    say.get(record.outcome or Outcome.FAILED, log.warning)(
        "the run has ended", outcome=str(record.outcome), seconds=seconds, failed_files=record.files_failed, **more
    )


def _nothing(_request: RunRequest, _record: RunRecord) -> None:
    return


def _no_matter(_record: RunRecord) -> None:
    return


def _no_more() -> None:
    return
