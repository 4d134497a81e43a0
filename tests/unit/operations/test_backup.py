"""The backup operation: outcome, tags, instants, numbers, and the order of things."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from threading import Event
from typing import Any, BinaryIO

import pytest

from pra_agent.archiver.values import Limits
from pra_agent.errors import DamagedError, Locked, SourceError
from pra_agent.model.events import Event as Told
from pra_agent.model.events import Progress
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.runs import Outcome, RunRecord
from pra_agent.operations.backup import BackupRequest, backup, find_parent
from pra_agent.repository.repository import Repository
from pra_agent.sources.files import FilesSettings
from pra_agent.sources.source import CaptureContext, Entry, Missed
from pra_agent.storage.backend import Handle, Kind
from tests.support.captures import MemoryState, room
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend
from tests.support.repositories import make_repository, noise, reopen

INSTANT = datetime(2024, 5, 1, 11, 59, tzinfo=UTC)


@dataclass
class Scripted:
    """A source that yields what it is told, and notes what is done with it."""

    files: Mapping[bytes, bytes] = field(default_factory=lambda: {b"/srv/a": b"text"})
    missed: int = 0
    verify_fails: bool = False
    notes: list[str] = field(default_factory=list)
    context: CaptureContext | None = None
    data_instant: datetime = INSTANT
    roots: Sequence[bytes] = (b"/srv",)

    @contextmanager
    def capture(self, context: CaptureContext) -> Iterator[Any]:
        self.context = context
        self.notes.append("entered")
        try:
            yield self
        finally:
            self.notes.append("left")

    def entries(self) -> Iterator[Entry | Missed]:
        for path, data in self.files.items():

            @contextmanager
            def opened(data: bytes = data) -> Iterator[BinaryIO]:
                yield BytesIO(data)

            yield Entry(path, Node(path.rpartition(b"/")[2], NodeType.FILE, 0o600), stream=opened)
        for number in range(self.missed):
            yield Missed(f"/srv/missed{number}", "a test")

    def verify(self) -> None:
        self.notes.append("verified")
        if self.verify_fails:
            raise SourceError("a keyspace is missing")

    def undo(self, state: Any) -> None: ...

    def reinstate(self, context: Any) -> Sequence[str]:  # noqa: ARG002 - the contract
        return ()


def run(repository: Repository, source: Any, **options: Any) -> RunRecord:
    """Back up; in this process, which is quicker for little data."""
    settings = {"run": "r1", "job": "app", "node": "web-1", "limits": Limits(workers=0), "state": MemoryState()}
    told: list[Told] = options.pop("report", [])
    stop = options.pop("stop", None)
    request = BackupRequest(source=source, **{**settings, **options})
    return backup(request, repository, report=told.append, stop=stop, clock=repository.clock)


def test_a_success():
    clock = FakeClock()
    repository = make_repository(clock=clock)
    source = Scripted()
    told: list[Told] = []
    record = run(repository, source, tags=("mine",), excludes=("*.tmp",), report=told)
    assert (record.outcome, record.files, record.files_new, record.bytes) == (Outcome.SUCCESS, 1, 1, 4)
    assert record.data_instant == INSTANT
    assert record.detail["advances"] is True
    assert record.bytes_added > 4
    assert record.bytes_stored > 0
    assert set(record.stages) == {"lock", "index", "capture", "archive", "upload", "verify", "save"}
    assert record.finished
    assert record.error == ""
    (snapshot,) = repository.snapshots()
    assert snapshot.id == record.snapshot
    assert snapshot.time == INSTANT
    assert list(snapshot.tags) == ["pra-agent", "job=app", "run=r1", "mine"]
    assert (snapshot.job, snapshot.run, snapshot.partial) == ("app", "r1", False)
    assert (snapshot.hostname, list(snapshot.paths), list(snapshot.excludes)) == ("web-1", ["/srv"], ["*.tmp"])
    assert snapshot.parent == ""
    assert snapshot.program_version.startswith("pra-agent ")
    assert snapshot.summary["total_files_processed"] == 1
    assert source.notes == ["entered", "verified", "left"]
    assert any(isinstance(event, Progress) for event in told)


def test_the_context_of_the_source():
    source = Scripted()
    state, stop = MemoryState(), Event()
    scratch = room("/scratch")
    run(make_repository(), source, state=state, stop=stop, never=(b"/state",), scratch=scratch)
    context = source.context
    assert context
    assert (context.run, context.job, context.node, context.scratch) == ("r1", "app", "web-1", scratch)
    assert context.state is state
    assert context.stop is stop
    assert context.never == (b"/state",)


@pytest.mark.parametrize(
    ("missed", "budget", "outcome", "advances"),
    [
        (0, 0, Outcome.SUCCESS, True),
        (1, 0, Outcome.PARTIAL, False),
        (3, 3, Outcome.PARTIAL, True),
        (4, 3, Outcome.PARTIAL, False),
    ],
)
def test_partial(missed, budget, outcome, advances):
    repository = make_repository()
    record = run(repository, Scripted(missed=missed), partial_ok=budget)
    assert (record.outcome, record.detail["advances"], record.files_failed) == (outcome, advances, missed)
    assert len(record.failures) == missed
    (snapshot,) = repository.snapshots()
    assert snapshot.partial is bool(missed)


@pytest.mark.parametrize(
    ("files", "usual", "outcome"),
    [
        ({}, None, Outcome.SUSPECT),
        ({b"/a": b""}, None, Outcome.SUCCESS),
        ({b"/a": b""}, 1, Outcome.SUSPECT),
        ({b"/a": b"12345"}, 10, Outcome.SUCCESS),
        ({b"/a": b"1234"}, 10, Outcome.SUSPECT),
        ({b"/a": b"12345"}, 0, Outcome.SUCCESS),
    ],
)
def test_suspect(files, usual, outcome):
    repository = make_repository()
    record = run(repository, Scripted(files), usual_bytes=usual)
    assert record.outcome is outcome
    assert record.detail["advances"] is (outcome is Outcome.SUCCESS)
    (snapshot,) = repository.snapshots()
    assert ("suspect" in snapshot.tags) is (outcome is Outcome.SUSPECT)


def test_what_the_source_disowns_is_not_saved():
    repository = make_repository()
    source = Scripted(verify_fails=True)
    stop = Event()
    with pytest.raises(SourceError, match="a keyspace is missing"):
        run(repository, source, stop=stop)
    assert repository.snapshots() == []
    assert source.notes == ["entered", "verified", "left"]
    assert list(repository.backend.list(Kind.LOCK)) == []


def test_the_source_is_left_before_the_last_upload(monkeypatch):
    """A container that is paused waits for no network."""
    backend = MemoryBackend()
    repository = make_repository(backend)
    source = Scripted()
    put = backend.put

    def noted(handle: Handle, data: bytes | memoryview) -> None:
        source.notes.append(str(handle.kind))
        put(handle, data)

    monkeypatch.setattr(backend, "put", noted)
    run(repository, source)
    assert source.notes.index("left") < source.notes.index("data")
    assert source.notes[-1] == "snapshots"
    assert source.notes.index("index") < source.notes.index("snapshots")


def test_a_lock_of_somebody_else():
    repository = make_repository()
    with reopen(repository).lock(exclusive=True), pytest.raises(Locked):
        run(repository, Scripted())


def test_a_pack_that_is_lost_after_it_was_stored_is_noticed(monkeypatch):
    backend = MemoryBackend()
    repository = make_repository(backend)
    put = backend.put

    def lossy(handle: Handle, data: bytes | memoryview) -> None:
        put(handle, bytes(data)[:-1] + b"x" if handle.kind is Kind.DATA else data)
        if handle.kind is Kind.DATA:
            backend.objects[handle] = bytes(len(data))

    monkeypatch.setattr(backend, "put", lossy)
    with pytest.raises(DamagedError):
        run(repository, Scripted({b"/a": noise(100_000)}))
    assert repository.snapshots() == []


def test_the_parent_is_the_newest_of_the_same_job_and_node(tmp_path):
    (tmp_path / "a").write_text("text")
    repository = make_repository(state=tmp_path / "state")
    source = FilesSettings(paths=(tmp_path / "a",)).build()
    run(repository, source, job="other")
    first = run(repository, source, run="r1")
    second = run(repository, source, run="r2")
    assert second.detail["parent"] == first.snapshot
    assert second.files_unmodified == 1
    assert second.bytes_added < 2000
    third = run(repository, source, run="r3", full=True)
    assert third.full
    assert third.detail["bytes_read"] == 4


def test_find_parent():
    repository = make_repository()
    run(repository, Scripted())
    (base,) = repository.snapshots()

    def at(hours: int, *tags: str, host: str = "web-1") -> Any:
        return replace(base, id=f"{hours}", time=INSTANT + timedelta(hours=hours), hostname=host, tags=tags)

    snapshots = [
        at(3, "job=app"),
        at(1, "job=app"),
        at(4, "job=app", "partial"),
        at(5, "job=app", "suspect"),
        at(6, "job=b"),
        at(7, "job=app", host="web-2"),
    ]
    found = find_parent(snapshots, "web-1", "app")
    assert found
    assert found.id == "4"
    assert find_parent([], "web-1", "app") is None


def test_a_run_after_a_run_takes_the_short_cut_and_finds_every_change(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for number in range(30):
        (root / f"d{number % 3}").mkdir(parents=True, exist_ok=True)
        (root / f"d{number % 3}/f{number}").write_text(f"{number}")
    repository = make_repository(state=tmp_path / "state")
    source = FilesSettings(paths=(root,)).build()
    first = run(repository, source, run="r1")
    decoded: list[bytes] = []
    original = Repository.read_tree

    def noted(self: Repository, tree: bytes) -> list[Node]:
        decoded.append(tree)
        return original(self, tree)

    monkeypatch.setattr(Repository, "read_tree", noted)
    second = run(repository, source, run="r2")
    assert (second.files_unmodified, second.files, second.bytes) == (30, 30, first.bytes)
    tree = next(each.tree for each in repository.snapshots() if each.id == second.snapshot)
    depth = len(root.parts) - 1
    assert len(decoded) <= depth
    (root / "d1/f1").write_text("changed")
    third = run(repository, source, run="r3")
    assert (third.files_changed, third.files_unmodified) == (1, 29)
    assert next(each.tree for each in repository.snapshots() if each.id == third.snapshot) != tree


def test_a_snapshot_in_between_by_another_makes_the_short_cut_void(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("f")
    repository = make_repository(state=tmp_path / "state")
    source = FilesSettings(paths=(root,)).build()
    run(repository, source, run="r1")
    # Another state directory: what is kept in the first is not about the newest snapshot then.
    other = reopen(repository, state=tmp_path / "other")
    (root / "g").write_text("g")
    run(other, source, run="r2")
    third = run(repository, source, run="r3")
    assert (third.files, third.files_unmodified) == (2, 2)


def test_blobs_are_sampled(tmp_path):
    for number in range(40):
        (tmp_path / f"f{number}").write_bytes(noise(1000))
    repository = make_repository()
    record = run(repository, FilesSettings(paths=(tmp_path,)).build(), limits=Limits(workers=1, sample=5))
    assert record.detail["blobs_read_back"] == 6


def test_the_run_before_says_how_much_there_will_be():
    repository = make_repository(clock=FakeClock())
    source = Scripted()
    first: list[Told] = []
    run(repository, source, report=first)
    assert {each.bytes_total for each in first if isinstance(each, Progress)} == {0}
    again: list[Told] = []
    run(repository, source, report=again)
    totals = [(each.files_total, each.bytes_total) for each in again if isinstance(each, Progress)]
    assert totals[-1] == (1, 4)
    source.files = {**source.files, b"/srv/more": bytes(100)}
    more: list[Told] = []
    run(repository, source, report=more)
    assert [each.bytes_total for each in more if isinstance(each, Progress)][-1] == 0
