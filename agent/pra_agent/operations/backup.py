"""Backup: a capture becomes a snapshot.

The order is that of the contract: lock, indexes, parent, capture, blobs durable, snapshot. The snapshot's time is the
data instant. Nothing is saved when the source says that it did not give the whole.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from urllib.parse import quote

from pra_agent import __version__
from pra_agent.archiver.archiving import archive
from pra_agent.archiver.memory import Memory
from pra_agent.archiver.values import Archived, Limits, Options
from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import DamagedError, SkippedError
from pra_agent.model.events import Event as RunEvent
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import AGENT_TAG, PARTIAL_TAG, SUSPECT_TAG, Snapshot
from pra_agent.model.times import format_ns
from pra_agent.repository.repository import Repository, WriterStats
from pra_agent.sources.scratch import Room
from pra_agent.sources.source import Capture, CaptureContext, Source, StateBefore, Telling
from pra_agent.storage.backend import Kind


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, and by which rules.

    `partial_ok` is how many files may be missing from a run that still advances the data instant. `usual_bytes` is
    the size that the job's snapshots usually have (None while that is not known): less than half of it, or nothing
    at all, is suspect. `never` are raw paths that are not captured (state, scratch, the repository itself).
    """

    run: str
    job: str
    node: str
    source: Source
    state: StateBefore
    full: bool = False
    partial_ok: int = 0
    usual_bytes: int | None = None
    tags: Sequence[str] = ()
    excludes: Sequence[str] = ()
    scratch: Room | None = None
    never: Sequence[bytes] = ()
    limits: Limits = field(default_factory=Limits)


def backup(
    request: BackupRequest,
    repository: Repository,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> RunRecord:
    """Run a backup; the record of the run, with outcome success, partial or suspect.

    `detail["advances"]` tells whether the data instant counts: always for success, for partial within `partial_ok`,
    never for suspect. A source that another agent saves is skipped, with the instant of that agent's newest success.
    Raises `PraError` when the run fails, and then there is no snapshot.
    """
    clock = clock or SystemClock()
    started = clock.now()
    try:
        return _Backup(request, repository, clock, report, stop or Event()).run()
    except SkippedError as skipped:
        return RunRecord(
            id=request.run,
            operation=Operation.BACKUP,
            job=request.job,
            started=started,
            finished=clock.now(),
            outcome=Outcome.SKIPPED,
            data_instant=skipped.instant,
            off_host=repository.backend.off_host,
            detail={"advances": skipped.instant is not None, "skipped": skipped.message},
        )


class _Stages:
    """Seconds by stage."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time what is done in this context."""
        start = self._clock.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock.monotonic() - start


class _Backup:
    """One run."""

    def __init__(
        self, request: BackupRequest, repository: Repository, clock: Clock, report: Reporter, stop: Event
    ) -> None:
        self._request = request
        self._repository = repository
        self._clock = clock
        self._report = report
        self._stop = stop
        self._stages = _Stages(clock)
        self._memory = Memory()

    def run(self) -> RunRecord:
        """Run it under a lock."""
        started = self._clock.now()
        stage = self._stages.stage
        with ExitStack() as held:
            with stage("lock"):
                held.enter_context(self._repository.lock())
            with stage("index"):
                self._repository.load_index()
                parent = find_parent(self._repository.snapshots(), self._request.node, self._request.job)
            self._memory = self._remembered(parent)
            try:
                captured = self._capture(parent)
            except DamagedError:
                # A tree that the short cut leads to may be the damaged one: the next run goes the long way.
                self._forget()
                raise
            with stage("verify"):
                self._read_back(captured.archived)
            outcome = self._judge(captured.archived)
            with stage("save"):
                snapshot = self._repository.save_snapshot(self._snapshot(captured, parent, outcome, started))
                self._remember(snapshot)
        return self._record(captured, snapshot, outcome, started)

    def _memory_path(self) -> Path | None:
        state = self._repository.state
        return None if state is None else state / "seen" / quote(f"{self._request.node}:{self._request.job}", safe="")

    def _remembered(self, parent: Snapshot | None) -> Memory:
        path = self._memory_path()
        if path is None or parent is None or self._request.full:
            return Memory()
        return Memory.load(path, parent.id, self._repository.index.files)

    def _remember(self, snapshot: Snapshot) -> None:
        """Keep what the next run can use; a run that does not keep it must not leave an older one either."""
        path = self._memory_path()
        if path is not None:
            indexes = [info.handle.name for info in self._repository.backend.list(Kind.INDEX)]
            self._memory.save(path, snapshot.id, indexes)

    def _forget(self) -> None:
        if (path := self._memory_path()) is not None:
            Memory.forget(path)

    def _capture(self, parent: Snapshot | None) -> "_Captured":
        """Capture and store; all blobs are durable and indexed when this returns."""
        request = self._request
        stage = self._stages.stage
        context = CaptureContext(
            request.run,
            request.job,
            request.node,
            request.state,
            report=self._report,
            scratch=request.scratch,
            stop=self._stop,
            never=request.never,
        )
        report = _expecting(self._report, parent)
        options = Options(parent, request.full, report, self._stop, request.limits, self._clock, self._memory)
        # The component is put back (a container goes on, a snapshot is cleared) before the rest is uploaded.
        with ExitStack() as writing:
            writer = writing.enter_context(self._repository.writer())
            with ExitStack() as capturing:
                with stage("capture"):
                    capture = capturing.enter_context(request.source.capture(context))
                with stage("archive"):
                    archived = archive(self._repository, writer, capture, options)
                    capture.verify()
                advances = bool(getattr(capture, "advances", True))
                roots = tuple(capture.roots)
                captured = _Captured(archived, writer.stats, capture.data_instant, roots, advances, _told(capture))
                with stage("capture"):
                    capturing.close()
            with stage("upload"):
                writing.close()
        return captured

    def _read_back(self, archived: Archived) -> None:
        """Read the root tree and some of the new blobs as a restore would. Raises DamagedError."""
        handles = [BlobHandle(BlobType.TREE, archived.tree), *archived.sample]
        found = sum(1 for _ in self._repository.read(handles))
        if found != len(set(handles)):
            raise DamagedError(f"{len(set(handles)) - found} blobs that were just stored cannot be read back")

    def _judge(self, archived: Archived) -> Outcome:
        stats, usual = archived.stats, self._request.usual_bytes
        if stats.files == 0 or (usual and stats.bytes * 2 < usual):
            return Outcome.SUSPECT
        return Outcome.PARTIAL if stats.files_failed else Outcome.SUCCESS

    def _snapshot(
        self, captured: "_Captured", parent: Snapshot | None, outcome: Outcome, started: datetime
    ) -> Snapshot:
        request, host = self._request, self._repository.host
        tags = [AGENT_TAG, f"job={request.job}", f"run={request.run}", *request.tags]
        if captured.archived.stats.files_failed:
            tags.append(PARTIAL_TAG)
        if outcome is Outcome.SUSPECT:
            tags.append(SUSPECT_TAG)
        return Snapshot(
            time=captured.instant,
            tree=captured.archived.tree,
            paths=[root.decode("utf-8", "replace") for root in captured.roots],
            hostname=request.node,
            username=host.username,
            uid=host.uid,
            gid=host.gid,
            excludes=request.excludes,
            tags=tags,
            parent=parent.id if parent else "",
            program_version=f"pra-agent {__version__}",
            summary=_summary(captured, started, self._clock.now()),
        )

    def _record(self, captured: "_Captured", snapshot: Snapshot, outcome: Outcome, started: datetime) -> RunRecord:
        stats, written, request = captured.archived.stats, captured.written, self._request
        within = outcome is Outcome.PARTIAL and stats.files_failed <= request.partial_ok
        backend = self._repository.backend
        return RunRecord(
            id=request.run,
            operation=Operation.BACKUP,
            job=request.job,
            started=started,
            finished=self._clock.now(),
            outcome=outcome,
            snapshot=snapshot.id,
            data_instant=captured.instant,
            off_host=backend.off_host,
            files=stats.files,
            files_new=stats.files_new,
            files_changed=stats.files_changed,
            files_unmodified=stats.files_unmodified,
            files_failed=stats.files_failed,
            bytes=stats.bytes,
            bytes_added=written.bytes_added,
            bytes_stored=written.bytes_stored,
            failures=captured.archived.failures,
            stages=dict(self._stages.seconds),
            full=request.full,
            detail={
                **captured.detail,
                "advances": captured.advances and (outcome is Outcome.SUCCESS or within),
                "parent": snapshot.parent,
                "bytes_read": stats.bytes_read,
                "usual_bytes": request.usual_bytes,
                "blobs_read_back": len(captured.archived.sample) + 1,
            },
        )


@dataclass(frozen=True, slots=True)
class _Captured:
    """What a capture became."""

    archived: Archived
    written: WriterStats
    instant: datetime
    roots: Sequence[bytes]
    #: A source may say that what it gave never lets the data instant advance (shards that are missing).
    advances: bool = True
    detail: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())


def _told(capture: Capture) -> Mapping[str, object]:
    """What a capture has to say in the run's record."""
    return dict(capture.detail) if isinstance(capture, Telling) else {}


def find_parent(snapshots: Sequence[Snapshot], node: str, job: str) -> Snapshot | None:
    """Find the newest snapshot of the job on this node that is not suspect.

    A partial one will do: files that it lacks are read, and a file that changed while it was read was stored with the
    status from before, which it never has again.
    """
    own = [each for each in snapshots if each.hostname == node and each.job == job and SUSPECT_TAG not in each.tags]
    return max(own, key=lambda each: each.time, default=None)


def _expecting(report: Reporter, parent: Snapshot | None) -> Reporter:
    """Add the parent's totals to what the archiver tells, as the best guess that there is; none when it is exceeded."""
    known: Mapping[str, object] = parent.summary if parent is not None else {}
    files, size = known.get("total_files_processed"), known.get("total_bytes_processed")
    if not isinstance(files, int) or not isinstance(size, int):
        return report

    def tell(event: RunEvent) -> None:
        if isinstance(event, Progress) and event.files_done <= files and event.bytes_done <= size:
            report(replace(event, files_total=files, bytes_total=size))
        else:
            report(event)

    return tell


def _summary(captured: _Captured, started: datetime, finished: datetime) -> Mapping[str, object]:
    """Make restic's summary of a snapshot."""
    stats, written = captured.archived.stats, captured.written
    return {
        "backup_start": _rfc3339(started),
        "backup_end": _rfc3339(finished),
        "files_new": stats.files_new,
        "files_changed": stats.files_changed,
        "files_unmodified": stats.files_unmodified,
        "dirs_new": stats.dirs_new,
        "dirs_changed": stats.dirs_changed,
        "dirs_unmodified": stats.dirs_unmodified,
        "data_blobs": written.data_blobs,
        "tree_blobs": written.tree_blobs,
        "data_added": written.bytes_added,
        "data_added_packed": written.bytes_stored,
        "total_files_processed": stats.files,
        "total_bytes_processed": stats.bytes,
    }


def _rfc3339(moment: datetime) -> str:
    return format_ns(int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000)
