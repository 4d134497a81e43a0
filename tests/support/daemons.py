"""A daemon for tests of the control socket and the exporter: real sockets and processes, a journal in memory."""

import asyncio
import contextlib
import hashlib
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from socket import socket

from pra_agent.clock import Clock, SystemClock
from pra_agent.control import worker
from pra_agent.control.daemon import OperationRequest, RunListener
from pra_agent.control.gate import Limits
from pra_agent.control.server import ControlServer
from pra_agent.control.settings import ControlSettings
from pra_agent.errors import DamagedError, NotFound, PraError
from pra_agent.model.events import Event
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.jobs import DaemonStatus, JobFact
from pra_agent.model.runs import JobState, Operation, Outcome, RunCount, RunRecord, StageHistogram
from pra_agent.model.snapshots import Snapshot

_CLOCK = SystemClock()
START = datetime(2024, 5, 1, 12, tzinfo=UTC)


def blob(data: bytes, kind: BlobType = BlobType.DATA) -> BlobHandle:
    """The handle of these bytes."""
    return BlobHandle(kind, hashlib.sha256(data).digest())


@dataclass
class MemoryReader:
    """A SnapshotReader over a dictionary."""

    blobs: dict[BlobHandle, bytes] = field(default_factory=dict)
    listed: list[Snapshot] = field(default_factory=list)
    on_read: Callable[[BlobHandle], None] = lambda _handle: None

    def add(self, data: bytes, kind: BlobType = BlobType.DATA) -> BlobHandle:
        handle = blob(data, kind)
        self.blobs[handle] = data
        return handle

    def snapshots(self) -> Sequence[Snapshot]:
        return self.listed

    def sizes(self, handles: Iterable[BlobHandle]) -> Mapping[BlobHandle, int]:
        return {handle: len(self.blobs[handle]) for handle in handles if handle in self.blobs}

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        for handle in dict.fromkeys(handles):
            self.on_read(handle)
            if handle not in self.blobs:
                raise DamagedError(f"{handle} is missing")
            yield handle, self.blobs[handle]


@dataclass
class MemoryJournal:
    """A JournalReader over lists; the newest run is the last."""

    records: list[RunRecord] = field(default_factory=list)
    states: dict[str, JobState] = field(default_factory=dict)
    instants: dict[str, dict[str, datetime]] = field(default_factory=dict)
    numbers: dict[tuple[str, str], float] = field(default_factory=dict)
    counted: list[RunCount] = field(default_factory=list)
    stages: list[StageHistogram] = field(default_factory=list)
    going: dict[str, Mapping[str, object]] = field(default_factory=dict)

    def last_run(self, job: str, operation: Operation) -> RunRecord | None:
        return next((run for run in reversed(self.records) if (run.job, run.operation) == (job, operation)), None)

    def last_with(
        self, job: str, operation: Operation, outcomes: Iterable[Outcome], destination: str = ""
    ) -> RunRecord | None:
        wanted = set(outcomes)
        return next(
            (
                run
                for run in reversed(self.records)
                if (run.job, run.operation, run.destination) == (job, operation, destination) and run.outcome in wanted
            ),
            None,
        )

    def running(self) -> Sequence[RunRecord]:
        return [run for run in self.records if run.finished is None]

    def runs(self, *, job: str | None = None, limit: int = 100) -> Sequence[RunRecord]:
        return [run for run in reversed(self.records) if job in (None, run.job)][:limit]

    def run(self, run_id: str) -> RunRecord | None:
        return next((run for run in self.records if run.id == run_id), None)

    def job_state(self, job: str) -> JobState:
        return self.states.get(job, JobState(job))

    def data_instants(self, job: str) -> Mapping[str, datetime]:
        return self.instants.get(job, {})

    def counts(self) -> Sequence[RunCount]:
        return self.counted

    def histograms(self) -> Sequence[StageHistogram]:
        return self.stages

    def gauge(self, name: str, job: str = "") -> float | None:
        return self.numbers.get((name, job))

    def gauges(self, name: str) -> Mapping[str, float]:
        return {key: value for (named, key), value in self.numbers.items() if named == name}

    def progress(self, run_id: str) -> Mapping[str, object] | None:
        return self.going.get(run_id)


class ForkedReader:
    """A ReaderProcess: a forked child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None
        self._guard = threading.Lock()

    def alive(self) -> bool:
        return not self.wait(0)

    def wait(self, timeout: float) -> bool:
        end = _CLOCK.monotonic() + timeout
        while True:
            with self._guard:
                if self._status is None:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                    if pid:
                        self._status = status
                if self._status is not None:
                    return True
            if _CLOCK.monotonic() >= end:
                return False
            _CLOCK.sleep(0.01)

    def kill(self) -> None:
        with self._guard:
            if self._status is None:
                os.kill(self.pid, signal.SIGKILL)


@dataclass
class FakeDaemon:
    """Does what it is told, and remembers it. `opened` are the children of sessions."""

    journal: MemoryJournal = field(default_factory=MemoryJournal)
    facts: list[JobFact] = field(default_factory=lambda: [JobFact("app", "files", "0 * * * *", 14400.0, 7200.0)])
    reader: MemoryReader = field(default_factory=MemoryReader)
    refuses: PraError | None = None
    told: list[tuple[object, ...]] = field(default_factory=list)
    listeners: dict[str, list[RunListener]] = field(default_factory=dict)
    opened: list[ForkedReader] = field(default_factory=list)
    state: DaemonStatus = field(default_factory=lambda: DaemonStatus("web-1", "1.0", START, pid=1))

    def status(self) -> DaemonStatus:
        return self.state

    def jobs(self) -> Sequence[JobFact]:
        return self.facts

    def run_job(self, job: str, *, full: bool = False) -> str:
        self._refuse()
        self.told.append(("run", job, full))
        self.journal.records.append(RunRecord("run-1", Operation.BACKUP, job, START))
        return "run-1"

    def start(self, request: OperationRequest) -> str:
        self._refuse()
        self.told.append(("start", request))
        self.journal.records.append(RunRecord("run-2", request.operation, request.job, START))
        return "run-2"

    def subscribe(self, run_id: str, listener: RunListener) -> Callable[[], None]:
        if self.journal.run(run_id) is None:
            raise NotFound(f"there is no run {run_id}")
        self.listeners.setdefault(run_id, []).append(listener)
        return lambda: self.listeners[run_id].remove(listener)

    def emit(self, run_id: str, event: Event | RunRecord) -> None:
        """Tell all listeners."""
        for listener in self.listeners.get(run_id, []):
            listener(event)

    def pause_run(self, run_id: str) -> None:
        self._steer("pause", run_id)

    def resume_run(self, run_id: str) -> None:
        self._steer("resume", run_id)

    def stop_run(self, run_id: str) -> None:
        self._steer("stop", run_id)

    def _steer(self, verb: str, run_id: str) -> None:
        if self.journal.run(run_id) is None:
            raise NotFound(f"there is no run {run_id}")
        self.told.append((verb, run_id))

    def escrow_proven(self, slot: str) -> None:
        self.told.append(("escrow_proven", slot))

    def hold(self, jobs: Sequence[str], reason: str) -> None:
        self.told.append(("hold", tuple(jobs), reason))

    def release(self, jobs: Sequence[str]) -> None:
        self.told.append(("release", tuple(jobs)))

    def accept(self, job: str) -> None:
        self.told.append(("accept", job))

    def start_reader(self, channel: socket) -> ForkedReader:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads; the child uses nothing that they could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            try:
                os.closerange(3, channel.fileno())
                os.closerange(channel.fileno() + 1, 1024)
                worker.serve(channel, self._open)
            finally:
                os._exit(0)
        self.opened.append(ForkedReader(pid))
        return self.opened[-1]

    @contextmanager
    def _open(self) -> Iterator[MemoryReader]:
        self._refuse()
        yield self.reader

    def _refuse(self) -> None:
        if self.refuses is not None:
            raise self.refuses


class LoopThread:
    """An event loop in a thread, for synchronous tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: "asyncio._CoroutineLike[object]", timeout: float = 60) -> object:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)  # type: ignore[arg-type]

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()


@contextmanager
def serving(
    daemon: FakeDaemon,
    path: Path,
    *,
    settings: ControlSettings | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    lease: float = 60.0,
) -> Iterator[ControlServer]:
    """Serve the daemon at the path, until the block ends."""
    loop = LoopThread()
    server = ControlServer(
        daemon, settings or ControlSettings(socket=path), clock or SystemClock(), limits=limits, lease=lease
    )
    try:
        loop.run(server.start())
        yield server
    finally:
        with contextlib.suppress(Exception):
            loop.run(server.stop())
        loop.close()


def eventually(condition: Callable[[], object], what: str, limit: float = 60.0) -> None:
    """Poll until it holds."""
    end = _CLOCK.monotonic() + limit
    while not condition():
        if _CLOCK.monotonic() > end:
            raise AssertionError(f"not within {limit:.0f} s: {what}")
        _CLOCK.sleep(0.02)


def as_user(uid: int, gids: Sequence[int], work: Callable[[], object]) -> object:
    """Do the work in a forked child with these rights; gives its result, or raises its error. Takes root."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(gids))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                told: tuple[bool, object] = (True, work())
            except Exception as error:  # noqa: BLE001 - it is raised again by the parent
                told = (False, error)
            with os.fdopen(writable, "wb") as out:
                pickle.dump(told, out)
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as result:
        data = result.read()
    os.waitpid(pid, 0)
    good, value = pickle.loads(data)
    if not good:
        raise value
    return value
