"""The daemon: everything put together in one event loop, from its start to its end.

`main(config_path)` runs it in the foreground until SIGTERM or SIGINT; SIGHUP reloads the configuration. It returns the
exit status: 0 after a stop, else that of the error, which it has logged.
"""

import asyncio
import gc
import importlib
import os
import secrets
import signal
import sys
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from pra_agent import __version__
from pra_agent.clock import Clock, SystemClock
from pra_agent.config import Config, read
from pra_agent.config.checking import problems, writable_by_others
from pra_agent.config.pings import PingSettings
from pra_agent.control import listen
from pra_agent.control.server import ControlServer
from pra_agent.daemon import log
from pra_agent.daemon.active import ActiveRun
from pra_agent.daemon.desk import Desk, Standing
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.notify import Notifier
from pra_agent.daemon.pings import Pings
from pra_agent.daemon.processes import Processes
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.rules import ConfigRules
from pra_agent.daemon.runner import Runner
from pra_agent.daemon.scheduler import Scheduler
from pra_agent.daemon.statedir import claimed, open_journal
from pra_agent.daemon.timetable import timetable
from pra_agent.daemon.upkeep import DIED, STOPPED, Upkeep
from pra_agent.errors import ConfigError, PraError
from pra_agent.exporter.server import ExporterServer
from pra_agent.model.runs import Operation, Outcome, RunRecord

_RELOADED = "config_last_reload_successful"
_RELOADED_AT = "config_last_reload_timestamp_seconds"
#: Run records that the journal keeps at least.
_KEEP_RUNS = 20_000
#: How often the daemon looks after itself, and looks at the repository, in seconds.
_TICK = 30.0
_SURVEY = 6 * 3600.0

#: Seconds for runs to end before the socket is closed.
_FAREWELL = 5.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """What exists before the event loop does."""

    path: Path
    config: Config
    journal: Journal
    processes: Processes
    notifier: Notifier
    listener: listen.Listener | None
    clock: Clock
    log_json: bool = False


def main(config_path: Path, *, log_json: bool = False, verbose: bool = False) -> int:
    """Run the daemon until it is told to stop."""
    log.configure(json=log_json, verbose=verbose)
    clock = SystemClock()
    notifier = Notifier()
    listener = listen.inherited(os.environ)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    try:
        config = accepted(config_path)
        with claimed(config.state.dir):
            processes = _forked()
            with closing(processes), closing(open_journal(config.state.dir, clock)) as journal:
                parts = Parts(config_path, config, journal, processes, notifier, listener, clock, log_json)
                return asyncio.run(Service.run_all(parts))
    except PraError as error:
        _log.exception("the daemon does not run")
        notifier.status(error.message)
        return error.exit_code


def _forked() -> Processes:
    """Start the spawner, before there is any thread. What a run needs is imported now, and shared by all of them."""
    importlib.import_module("pra_agent.daemon.actions")
    importlib.import_module("pra_agent.daemon.reader")
    gc.collect()
    gc.freeze()
    processes = Processes()
    processes.start()
    return processes


def accepted(path: Path) -> Config:
    """Read the configuration; raises `ConfigError` also when others could change it under a root daemon.

    Everything else that `config check` finds is a warning: a job whose path is missing must not stop the others.
    """
    loaded = read(path)
    for problem in writable_by_others(loaded):
        if not problem.warning:
            raise ConfigError(str(problem))
    for problem in problems(loaded):
        _log.warning("the configuration has a problem", problem=str(problem))
    return loaded.config


class Service:
    """The parts that live in the event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._journal = parts.journal
        self._clock = parts.clock
        now = parts.clock.now()
        rules = self._rules(parts.config)
        self._standing = Standing(parts.config, rules, now, os.getpid(), now, log_json=parts.log_json)
        self._runner = Runner(parts.journal, parts.processes, rules, parts.clock)
        self._upkeep = Upkeep(self._runner, parts.journal, self._standing)
        self._pings = Pings(self._pings_of)
        self._runner.on_started = self._pings.started
        self._runner.on_finished = self._finished
        self._scheduler = Scheduler(parts.journal, parts.clock, self._upkeep.due)
        self._desk = Desk(self._standing, parts.journal, self._runner, parts.processes, parts.clock)
        self._desk.on_accepted = partial(self._errand, "accepting:accept")
        self._control = ControlServer(self._desk, parts.config.control, parts.clock)
        self._exporter: ExporterServer | None = None
        self._reloading = asyncio.Lock()
        self._stop = asyncio.Event()
        self._status = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    async def run_all(parts: Parts) -> int:
        """Start, serve until told to stop, stop; returns the exit status."""
        service = Service(parts)
        try:
            await service._start()
            await service._stop.wait()
        finally:
            await service._end()
        return service._status

    # ------------------------------------------------------------ start and stop
    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._background(self._reload()))
        self._parts.processes.on_loss = partial(loop.call_soon_threadsafe, self._lost)
        for dead in self._journal.fail_unfinished(self._clock.now(), DIED):
            _log.warning("a run ended with the daemon before", run=dead.id, job=dead.job, operation=dead.operation)
        self._journal.set_gauge(_RELOADED, 1)
        self._journal.set_gauge(_RELOADED_AT, self._clock.timestamp())
        if self._journal.jobs_with_state():
            await self._errand("actions:undo")
        await self._control.start(self._parts.listener)
        self._exporter = await self._started_exporter(self._standing.config)
        self._scheduler.start(timetable(self._standing.config))
        self._upkeep.catch_up()
        self._standing.ready = True
        self._parts.notifier.ready(self._words())
        _log.info("the daemon runs", version=__version__, node=self._standing.config.node, pid=os.getpid())
        self._background(self._tick())

    async def _end(self) -> None:
        self._standing.ready = False
        self._parts.notifier.stopping()
        _log.info("the daemon stops")
        self._scheduler.stop()
        # Who waits at the socket for a run hears how it ended, if that does not take long.
        runs = asyncio.create_task(self._runner.close(STOPPED))
        await asyncio.wait([runs], timeout=_FAREWELL)
        await asyncio.gather(runs, self._control.stop())
        await self._pings.close()
        if self._exporter is not None:
            await self._exporter.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _lost(self) -> None:
        """Without the spawner no run can begin; the service manager starts us anew."""
        _log.critical("the spawner has died; the daemon ends")
        self._status = 1
        self._stop.set()

    # ------------------------------------------------------------ reload
    async def _reload(self) -> None:
        """Take the configuration anew; one that is bad changes nothing."""
        async with self._reloading:
            self._parts.notifier.reloading(int(self._clock.monotonic() * 1_000_000))
            try:
                config = await asyncio.to_thread(accepted, self._parts.path)
                self._refuse_what_needs_a_restart(config)
                await self._swap_exporter(config)
                self._control.reconfigure(config.control)
            except ConfigError as error:
                _log.exception("the configuration is not taken; the one before stays")
                self._standing.config_error = error.message
                self._journal.set_gauge(_RELOADED, 0)
            else:
                self._take(config)
                _log.info("the configuration is taken", jobs=len(config.jobs))
            self._parts.notifier.ready(self._words())

    async def _started_exporter(self, config: Config) -> ExporterServer | None:
        if not config.exporter.enabled:
            return None
        exporter = ExporterServer(config.exporter, self._journal, self._desk.jobs, self._desk.status, self._clock)
        await exporter.start()
        return exporter

    async def _swap_exporter(self, config: Config) -> None:
        before = self._standing.config
        if config.exporter == before.exporter:
            return
        if self._exporter is not None:
            await self._exporter.stop()
            self._exporter = None
        try:
            self._exporter = await self._started_exporter(config)
        except ConfigError:
            self._exporter = await self._started_exporter(before)
            raise

    def _refuse_what_needs_a_restart(self, config: Config) -> None:
        now = self._standing.config
        for name, old, new in (
            ("state.dir", now.state.dir, config.state.dir),
            ("control.socket", now.control.socket, config.control.socket),
            ("node", now.node, config.node),
        ):
            if old != new:
                raise ConfigError(f"{self._parts.path}: {name}: was changed, which takes a restart")

    def _take(self, config: Config) -> None:
        rules = self._rules(config)
        self._standing.config = config
        self._standing.rules = rules
        self._standing.config_loaded = self._clock.now()
        self._standing.config_error = ""
        self._runner.rules = rules
        self._scheduler.plan(timetable(config))
        self._journal.set_gauge(_RELOADED, 1)
        self._journal.set_gauge(_RELOADED_AT, self._clock.timestamp())

    def _rules(self, config: Config) -> ConfigRules:
        return ConfigRules(config, self._journal, self._clock, log_json=self._parts.log_json)

    # ------------------------------------------------------------ in the background
    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _finished(self, request: RunRequest, record: RunRecord) -> None:
        self._upkeep.finished(request, record)
        self._pings.ended(record, good=self._standing.rules.judge(record))
        self._parts.notifier.status(self._words())

    def _pings_of(self, job: str) -> PingSettings | None:
        configured = self._standing.config.jobs.get(job)
        return configured.ping if configured is not None else None

    async def _tick(self) -> None:
        """Feed the watchdog, follow the wall clock, keep the journal small, and look at the repository now and then."""
        watchdog = self._parts.notifier.watchdog
        interval = min(_TICK, watchdog.total_seconds() / 3) if watchdog else _TICK
        since_survey = float("inf")
        while True:
            self._parts.notifier.alive()
            self._parts.notifier.status(self._words())
            self._scheduler.wake()
            self._runner.wake()
            if since_survey >= _SURVEY:
                since_survey = 0
                self._background(self._survey())
            await asyncio.sleep(interval)
            since_survey += interval

    async def _survey(self) -> None:
        await asyncio.to_thread(self._journal.prune, keep=_KEEP_RUNS)
        if any(self._journal.accepted_snapshot(job) for job in self._standing.config.jobs):
            await self._errand("accepting:accept")
        record = await self._errand("actions:survey")
        found = record.detail.get("repository_id")
        if isinstance(found, str):
            self._standing.repository_id = found
        # Also what a new journal has just learnt, and copies that failed.
        self._upkeep.catch_up()

    async def _errand(self, action: str) -> RunRecord:
        """Do something (module:function) in a child beside the runs; a failure is logged, and nothing else follows."""
        verb = action.partition(":")[2]
        request = RunRequest(Operation.CHECK)
        now = self._clock.now()
        active = ActiveRun(f"{verb}-{secrets.token_hex(4)}", request, now, asyncio.get_running_loop().create_future())
        record = RunRecord(active.id, Operation.CHECK, "", now)
        task = self._standing.rules.errand(f"pra_agent.daemon.{action}", record, request)
        record = await self._runner.errand(task, active)
        if record.outcome is not Outcome.SUCCESS:
            _log.error(f"{verb} failed", error=record.error, advice=record.detail.get("advice"))
        return record

    def _words(self) -> str:
        running = [f"{a.request.operation} {a.request.job}".strip() for a in self._runner.running]
        doing = f"running {', '.join(running)}" if running else "waiting"
        trouble = "; the newest configuration was refused" if self._standing.config_error else ""
        return f"{len(self._standing.config.jobs)} jobs, {doing}{trouble}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
