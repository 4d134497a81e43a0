"""What every source promises, whatever it protects. Cassandra and clusters of Elasticsearch keep it in integration."""

import base64
import http.server
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import Interrupted, PraError, SourceError
from pra_agent.model.nodes import NodeType
from pra_agent.model.references import SecretRef
from pra_agent.model.runs import Outcome, RunRecord
from pra_agent.operations.backup import BackupRequest, backup
from pra_agent.repository.repository import Repository
from pra_agent.sources.docker_volume import DockerVolumeSettings
from pra_agent.sources.dump import DumpSettings
from pra_agent.sources.files import FilesSettings
from pra_agent.sources.grafana import GrafanaSettings
from pra_agent.sources.prometheus import PrometheusSettings
from pra_agent.sources.source import CaptureContext, Entry, Missed, Source, flattened
from tests.support.captures import MemoryState, room, take
from tests.support.docker_engine import Dockerd
from tests.support.repositories import make_repository
from tests.support.roundtrip import restored
from tests.support.trees import make_nasty_tree

SECRET = "s3cret-that-nobody-sees"
CLOCK = SystemClock()
DOCKER_MARKS = (pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(300))


@dataclass
class Subject:
    """A source under test: `build` makes it anew; `at_rest` says what it has left behind ("" for nothing).

    `broken` makes it fail, in a way that shows whether secrets get into messages.
    """

    build: Callable[[], Source]
    at_rest: Callable[[], str] = lambda: ""
    broken: Callable[[], Source] | None = None
    scratch: Path | None = None
    state: MemoryState = field(default_factory=MemoryState)

    def context(self, stop: threading.Event | None = None) -> CaptureContext:
        scratch = room(self.scratch) if self.scratch else None
        return CaptureContext("r1", "job", "web-1", self.state, scratch=scratch, stop=stop or threading.Event())

    def run(
        self, repository: Repository, source: Source, run: str = "r1", stop: threading.Event | None = None
    ) -> RunRecord:
        """Back it up, as a run does."""
        scratch = room(self.scratch) if self.scratch else None
        request = BackupRequest(run, "job", "web-1", source, self.state, scratch=scratch)
        return backup(request, repository, stop=stop)


def _secret(_reference: SecretRef) -> str:
    return SECRET


def _database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE t (a INT, b BLOB)")
        db.executemany("INSERT INTO t VALUES (?, randomblob(900))", [(number,) for number in range(500)])
    return path


def files(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    tree = tmp_path / "tree"
    make_nasty_tree(tree)
    return Subject(lambda: FilesSettings(paths=(tree,)).build())


def sqlite_dump(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    path, scratch = _database(tmp_path / "a; rm -rf.db"), tmp_path / "scratch"
    settings = DumpSettings(preset="sqlite", paths=(path,))
    return Subject(
        settings.build,
        lambda: ", ".join(each.name for each in scratch.glob("*")),
        DumpSettings(preset="sqlite", paths=(tmp_path / "no.db",)).build,
        scratch,
    )


def command_dump(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    def made(script: str) -> Source:
        settings = DumpSettings.model_validate(
            {"preset": "command", "command": ["sh", "-c", script], "trailer": "END", "password": {"file": "/secret"}}
        )
        return settings.build(_secret)

    return Subject(
        lambda: made("seq 100000; echo END"),
        lambda: "",
        lambda: made('echo "cannot log in with $PRA_PASSWORD" >&2; echo half; exit 3'),
    )


def grafana(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    path, scratch = _database(tmp_path / "grafana.db"), tmp_path / "scratch"
    provisioning = tmp_path / "provisioning"
    make_nasty_tree(provisioning)
    settings = GrafanaSettings(database=path, directories=(provisioning,))
    return Subject(
        settings.build,
        lambda: ", ".join(each.name for each in scratch.glob("*")),
        GrafanaSettings(database=tmp_path / "no.db").build,
        scratch,
    )


def prometheus(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Its snapshot API in miniature: hard links of the blocks, in a directory of another name each time."""
    data = tmp_path / "data"
    for block in ("01BLOCK", "02BLOCK"):
        (data / block / "chunks").mkdir(parents=True)
        (data / block / "meta.json").write_text("{}")
        (data / block / "chunks" / "000001").write_bytes(os.urandom(300_000))
    made = iter(range(100))

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.headers.get("Authorization") != f"Basic {base64.b64encode(f'operator:{SECRET}'.encode()).decode()}":
                self.send_error(401)
                return
            name = f"2026-{next(made)}"
            for block in data.glob("0*"):
                for file in [path for path in block.rglob("*") if path.is_file()]:
                    link = data / "snapshots" / name / file.relative_to(data)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.hardlink_to(file)
            body = json.dumps({"status": "success", "data": {"name": name}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for end in (server.server_close, thread.join, server.shutdown):
        request.addfinalizer(end)
    base = {"url": f"http://127.0.0.1:{server.server_port}", "data_dir": data}
    login = {"user": "operator", "password": {"file": "/secret"}}
    return Subject(
        lambda: PrometheusSettings.model_validate(base | login).build(_secret),
        lambda: ", ".join(each.name for each in (data / "snapshots").glob("*")),
        lambda: PrometheusSettings.model_validate(base | login | {"user": "nobody"}).build(_secret),
    )


def docker_volume(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    dockerd: Dockerd = request.getfixturevalue("dockerd")
    image: str = request.getfixturevalue("base_image")
    volume = dockerd.docker("volume", "create")
    where = Path(dockerd.docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume))
    make_nasty_tree(where / "tree")
    name = dockerd.run(image, "sleep", "infinity", options=("-v", f"{volume}:/data", "-e", f"DB_PASSWORD={SECRET}"))
    request.addfinalizer(lambda: dockerd.docker("volume", "rm", "-f", volume))
    request.addfinalizer(lambda: dockerd.remove(name))

    def at_rest() -> str:
        state = dockerd.docker("inspect", "-f", "{{.State.Status}}", name)
        return "" if state == "running" else f"the container is {state}"

    def made(**more: object) -> Source:
        return DockerVolumeSettings.model_validate(
            {"volume": volume, "quiesce": "pause", "docker": dockerd.url, **more}
        ).build()

    return Subject(made, at_rest, lambda: made(volume="no-such-volume"))


SOURCES = [
    pytest.param(files, id="files"),
    pytest.param(sqlite_dump, id="dump-sqlite"),
    pytest.param(command_dump, id="dump-command"),
    pytest.param(grafana, id="grafana"),
    pytest.param(prometheus, id="prometheus"),
    pytest.param(docker_volume, id="docker_volume", marks=DOCKER_MARKS),
]


@pytest.fixture(params=SOURCES)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    made: Subject = request.param(request, tmp_path)
    yield made
    assert made.at_rest() == ""
    assert not made.state.pending()


@contextmanager
def captured(subject: Subject) -> Iterator[tuple[Any, list[Entry]]]:
    """An entered capture, and all that it yields, listings taken apart."""
    with subject.build().capture(subject.context()) as capture:
        found = list(flattened(capture.entries()))
        assert [each for each in found if isinstance(each, Missed)] == []
        yield capture, [each for each in found if isinstance(each, Entry)]


# ---------------------------------------------------------------- what is yielded
def test_the_data_instant_is_aware_and_of_this_capture(subject: Subject):
    before = CLOCK.now()
    with subject.build().capture(subject.context()) as capture:
        assert capture.data_instant.utcoffset() == timedelta(0)
        assert before <= capture.data_instant <= CLOCK.now()
        instant = capture.data_instant
        list(flattened(capture.entries()))
        assert capture.data_instant == instant


def test_paths_are_absolute_and_plain_and_below_the_roots(subject: Subject):
    with captured(subject) as (capture, entries):
        roots = list(capture.roots)
        assert roots
        for path in [*roots, *(entry.path for entry in entries)]:
            parts = path.split(b"/")
            assert parts[0] == b""
            assert all(part not in (b"", b".", b"..") and b"\0" not in part for part in parts[1:]), path
        for entry in entries:
            covered = any(entry.path == root or entry.path.startswith(root + b"/") for root in roots)
            above = entry.node.type is NodeType.DIR and any(root.startswith(entry.path + b"/") for root in roots)
            assert covered or above, entry.path


def test_each_path_comes_once_and_directories_before_what_is_in_them(subject: Subject):
    with captured(subject) as (_, entries):
        seen: set[bytes] = set()
        directories = {entry.path for entry in entries if entry.node.type is NodeType.DIR}
        for entry in entries:
            assert entry.path not in seen
            seen.add(entry.path)
            up = entry.path.rpartition(b"/")[0]
            assert up not in directories or up in seen, entry.path


def test_content_is_a_file_or_a_stream_and_only_of_regular_files(subject: Subject):
    with captured(subject) as (_, entries):
        contents = [entry for entry in entries if entry.file is not None or entry.stream is not None]
        assert contents
        for entry in contents:
            assert entry.node.type is NodeType.FILE
            assert (entry.file is None) != (entry.stream is None)
            if entry.file is not None:
                assert entry.dir_fd is not None or entry.file.startswith(b"/")


def test_verify_fails_when_the_entries_were_not_read(subject: Subject):
    with subject.build().capture(subject.context()) as capture, pytest.raises(SourceError):
        capture.verify()


# ---------------------------------------------------------------- how it ends
def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_left_after_an_error_it_is_as_it_was(subject: Subject):
    with subject.build().capture(subject.context()) as capture:
        next(iter(capture.entries()))  # whatever is made once stays made: connections, imports
    before = _descriptors()
    with pytest.raises(ZeroDivisionError), subject.build().capture(subject.context()) as capture:
        entries = capture.entries()
        next(entries)
        raise ZeroDivisionError
    del entries
    assert subject.at_rest() == ""
    assert not subject.state.pending()
    assert _descriptors() <= before


def test_to_undo_nothing_is_harmless(subject: Subject):
    source = subject.build()
    for _ in range(2):
        source.undo(subject.state)
        source.undo(MemoryState())


def test_a_run_that_is_asked_to_stop_ends_and_leaves_no_snapshot(subject: Subject):
    stop = threading.Event()
    stop.set()
    repository = make_repository()
    with pytest.raises((Interrupted, SourceError)):
        subject.run(repository, subject.build(), stop=stop)
    assert repository.snapshots() == []


def test_an_error_tells_no_secret(subject: Subject):
    if subject.broken is None:
        pytest.skip("it has none")
    with pytest.raises(PraError) as caught:
        subject.run(make_repository(), subject.broken())
    error: BaseException | None = caught.value
    assert "\n" not in caught.value.message
    while error is not None:
        assert SECRET not in f"{error} {getattr(error, 'advice', '')} {error!r}"
        error = error.__cause__ or error.__context__


# ---------------------------------------------------------------- there and back
def _contents(root: Path, roots: Sequence[bytes]) -> Mapping[str, bytes]:
    """All regular files below the logical roots, by path."""
    found: dict[str, bytes] = {}
    for logical in roots:
        top = root / os.fsdecode(logical.lstrip(b"/"))
        for path in [top, *top.rglob("*")] if top.is_dir() else [top]:
            if not path.is_symlink() and path.is_file():
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


def test_what_comes_back_is_what_was_captured(subject: Subject, tmp_path: Path):
    repository = make_repository()
    record = subject.run(repository, subject.build())
    assert (record.outcome, record.failures) == (Outcome.SUCCESS, [])
    with subject.build().capture(subject.context()) as capture:
        roots = list(capture.roots)
    take(subject.build(), tmp_path / "expected", scratch=str(subject.scratch or ""), state=subject.state)
    (snapshot,) = repository.snapshots()
    assert list(snapshot.paths) == [root.decode("utf-8", "replace") for root in roots]
    assert snapshot.time == record.data_instant
    restored(repository, snapshot, tmp_path / "back")
    expected = _contents(tmp_path / "expected", roots)
    assert expected
    assert _contents(tmp_path / "back", roots) == expected


def test_an_unchanged_second_run_reads_streams_only(subject: Subject):
    repository = make_repository()
    first = subject.run(repository, subject.build())
    second = subject.run(repository, subject.build(), run="r2")
    with captured(subject) as (_, entries):
        streams = {entry.path for entry in entries if entry.stream is not None}
        keyed = sum(entry.node.size for entry in entries if entry.file is not None and entry.change_key)
    assert second.outcome is Outcome.SUCCESS
    assert second.files == first.files
    read, whole = second.detail["bytes_read"], first.detail["bytes_read"]
    assert isinstance(read, int)
    assert isinstance(whole, int)
    # What is left to be read is what has no change key: the streams.
    assert read == second.bytes - keyed
    assert (read == 0) == (not streams)
