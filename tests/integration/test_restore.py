"""Restoring: over what is there already, in part, after an interruption, and against a target that fights back."""

import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from pra_agent.errors import DamagedError, Interrupted, RestoreError, UsageError
from pra_agent.model.events import Event as AnyEvent
from pra_agent.model.events import FileFailed, Notice, Progress
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.runs import Outcome
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.model.trees import encode_tree
from pra_agent.operations.restore import RestoreRun, raise_for, restore
from pra_agent.repository.repository import Repository
from pra_agent.restorer import Action, RestoreRequest, execute, executing, plan
from pra_agent.storage.backend import Handle, Kind
from tests.support.memory import MemoryBackend
from tests.support.repositories import make_repository, reopen, snapshot
from tests.support.roundtrip import back_up, below, restore_snapshot, restored
from tests.support.trees import EVERYTHING, compare_trees

MIB = 1 << 20
SIZE = 10 * MIB
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Counting:
    """A reader that remembers which data blobs were asked for, and breaks what it is told to."""

    def __init__(self, reader: SnapshotReader, broken: Iterable[bytes] = (), *, named: bool = True) -> None:
        self._reader = reader
        self._broken = set(broken)
        self._named = named
        self.data: list[bytes] = []
        self.bytes = 0

    def snapshots(self) -> Sequence[Snapshot]:
        return self._reader.snapshots()

    def sizes(self, handles: Iterable[BlobHandle]) -> Mapping[BlobHandle, int]:
        return self._reader.sizes(handles)

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        for handle, data in self._reader.read(handles):
            if handle.id in self._broken:
                raise DamagedError(f"blob {handle} is broken" if self._named else "a blob is broken")
            if handle.type is BlobType.DATA:
                self.data.append(handle.id)
                self.bytes += len(data)
            yield handle, data


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree with one large file."""
    path = tmp_path / "source"
    (path / "etc/deep").mkdir(parents=True)
    (path / "etc/one").write_bytes(b"one")
    (path / "etc/deep/two").write_bytes(b"two" * 1000)
    (path / "big").write_bytes(os.urandom(SIZE))
    (path / "empty").write_bytes(b"")
    (path / "link").symlink_to("etc/one")
    os.link(path / "etc/one", path / "one too")
    (path / "etc").chmod(0o750)
    return path


@pytest.fixture
def repository(source: Path) -> Repository:
    made = make_repository()
    assert back_up(made, source).outcome is Outcome.SUCCESS
    return reopen(made)


@pytest.fixture
def saved(repository: Repository) -> Snapshot:
    return repository.find_snapshot("latest")


def _same(source: Path, target: Path) -> None:
    assert compare_trees(source, target, replace(EVERYTHING, sockets=False)) == []


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)


# ---------------------------------------------------------------- over what is there


def test_only_what_differs_is_fetched(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    with (target / "big").open("r+b") as file:
        file.seek(4 * MIB)
        file.write(b"changed")
    (target / "etc/deep/two").write_bytes(b"other")
    counting = Counting(repository)
    done = restored(counting, saved, tmp_path / "target")
    _same(source, target)
    assert counting.bytes < SIZE * 4 // 5 + 3000
    assert done.bytes_reused > SIZE // 5
    assert done.bytes + done.bytes_reused == SIZE + 3000


def test_the_right_content_with_another_time_is_not_fetched(
    source: Path, repository: Repository, saved: Snapshot, tmp_path: Path
):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    os.utime(target / "big", (1, 1))
    inode = (target / "big").stat().st_ino
    counting = Counting(repository)
    restored(counting, saved, tmp_path / "target")
    assert counting.data == []
    assert (target / "big").stat().st_ino == inode
    _same(source, target)


def test_content_that_only_looks_right_is_found_when_asked(
    source: Path, repository: Repository, saved: Snapshot, tmp_path: Path
):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    status = (source / "etc/deep/two").stat()
    (target / "etc/deep/two").write_bytes(b"TWO" * 1000)
    os.utime(target / "etc/deep/two", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert restored(repository, saved, tmp_path / "target").files == 0
    assert restored(repository, saved, tmp_path / "target", verify=True).bytes == 3000
    _same(source, target)


def test_in_place(source: Path, repository: Repository, saved: Snapshot):
    original = source.with_name("kept")
    _copy(source, original)
    (source / "etc/one").unlink()
    (source / "big").write_bytes(b"overwritten")
    (source / "link").unlink()
    (source / "link").write_bytes(b"a file where a link was")
    (source / "new").write_bytes(b"not in the snapshot")
    parent = source.parent.stat()
    done = restored(repository, saved, Path("/"), in_place=True)
    assert done.deleted == 0
    assert (source / "new").exists()
    restored(repository, saved, Path("/"), in_place=True, delete=True)
    _same(original, source)
    # What lies above belongs to somebody else.
    assert source.parent.stat().st_mode == parent.st_mode


def test_in_place_makes_what_is_missing_above(source: Path, repository: Repository, saved: Snapshot):
    original = source.parent.parent / "kept elsewhere"
    _copy(source, original)
    subprocess.run(["rm", "-r", source], check=True)
    restored(repository, saved, Path("/"), in_place=True)
    _same(original, source)


def test_metadata_alone(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    (target / "etc/deep/two").chmod(0o600)
    os.setxattr(target / "etc/deep/two", "user.more", b"1")
    (target / "etc").chmod(0o700)
    counting = Counting(repository)
    made = plan(counting, saved, RestoreRequest(tmp_path / "target"))
    assert {each.action for each in made.items} == {Action.UPDATE}
    assert made.size == 0
    execute(made, counting)
    assert counting.data == []
    _same(source, target)


def test_hard_links_are_joined_again(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    (target / "one too").unlink()
    (target / "one too").write_bytes(b"one")
    done = restored(repository, saved, tmp_path / "target")
    assert done.linked == 1
    _same(source, target)


def test_a_directory_is_removed_only_when_asked(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    (target / "big/inside").mkdir(parents=True)
    (target / "etc").write_bytes(b"a file where a directory was")
    events: list[AnyEvent] = []
    done = execute(plan(repository, saved, RestoreRequest(tmp_path / "target")), repository, report=events.append)
    assert [each.path for each in done.failures] == [str(source / "big")]
    assert FileFailed(done.failures[0].path, done.failures[0].reason) in events
    assert (target / "etc/deep/two").exists()
    restored(repository, saved, tmp_path / "target", delete=True)
    _same(source, target)


def test_delete_stays_inside_what_is_restored(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = tmp_path / "target"
    inside = below(target, source)
    _copy(source, inside)
    for path in (target / "outside", inside.parent / "beside", inside / "etc/extra", inside / "keep.log"):
        path.write_bytes(b"x")
    (inside / "etc/more/and/more").mkdir(parents=True)
    (inside / "etc/more/and/link").symlink_to(target / "outside")
    done = restored(repository, saved, target, delete=True, exclude=["*.log"])
    assert done.deleted == 2
    assert (target / "outside").exists()
    assert (inside.parent / "beside").exists()
    assert (inside / "keep.log").exists()
    assert not (inside / "etc/extra").exists()
    assert not (inside / "etc/more").exists()


def test_inherited_access_lists_do_not_stay(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    target.mkdir(parents=True)
    if subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", target], check=False).returncode:
        pytest.skip("no access lists here")
    restored(repository, saved, tmp_path / "target")
    _same(source, target)


# ---------------------------------------------------------------- in part


def _files(target: Path) -> list[str]:
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir())


@pytest.mark.parametrize(
    ("request_", "files"),
    [
        ({"include": ["two"]}, ["etc/deep/two"]),
        ({"include": ["etc/"], "exclude": ["deep/"]}, ["etc/one"]),
        ({"exclude": ["big", "/**/etc/deep"]}, ["empty", "etc/one", "link", "one too"]),
        ({"paths": ["etc/deep", "empty"]}, ["empty", "etc/deep/two"]),
        ({"paths": ["etc"], "include": ["o*"]}, ["etc/one"]),
        ({"paths": ["one too"]}, ["one too"]),
    ],
)
def test_a_selection(
    source: Path,
    repository: Repository,
    saved: Snapshot,
    tmp_path: Path,
    request_: dict[str, list[str]],
    files: list[str],
):
    paths = [os.fsencode(source / path) for path in request_.get("paths", [])]
    restored(
        repository,
        saved,
        tmp_path / "target",
        paths=paths,
        include=request_.get("include", ()),
        exclude=request_.get("exclude", ()),
    )
    assert _files(below(tmp_path / "target", source)) == files
    if (target := below(tmp_path / "target", source) / "etc").exists():
        assert stat.S_IMODE(target.stat().st_mode) == 0o750


def test_paths_and_patterns_that_are_none(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    with pytest.raises(UsageError, match=r"not in the snapshot: .*/nowhere"):
        plan(repository, saved, RestoreRequest(tmp_path, paths=[os.fsencode(source / "nowhere")]))
    with pytest.raises(UsageError, match="pattern"):
        plan(repository, saved, RestoreRequest(tmp_path, include=["!"]))


def _statuses(target: Path) -> list[tuple[int, int, int, int]]:
    statuses = [path.lstat() for path in sorted(target.rglob("*"))]
    return [(each.st_ino, each.st_mode, each.st_mtime_ns, each.st_ctime_ns) for each in statuses]


def test_the_plan_says_what_happens(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    (target / "big").unlink()
    (target / "etc/one").write_bytes(b"1")
    (target / "etc/extra").write_bytes(b"x")
    before = _statuses(target)
    made = plan(repository, saved, RestoreRequest(tmp_path / "target", delete=True))
    assert _statuses(target) == before
    lines = {(str(action), text): size for action, text, size in made.lines()}
    assert lines["create", str(source / "big")] == SIZE
    assert lines["delete", str(source / "etc/extra")] == 0
    # Two names of one file: the second becomes a link to the first.
    assert lines["replace", str(source / "one too")] == 3
    assert lines["replace", f"{source / 'etc/one'} = {source / 'one too'}"] == 0
    assert (made.counts()["create"], made.counts()["delete"], made.kept) == (1, 1, 3)


# ---------------------------------------------------------------- interrupted


@pytest.mark.parametrize("in_place", [False, True])
def test_stopped_and_run_again(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path, in_place: bool):
    target = below(tmp_path / "target", source)
    old = b""
    if in_place:
        _copy(source, target)
        old = os.urandom(SIZE)
        (target / "big").write_bytes(old)
    stop = Event()
    counting = Counting(repository)

    def report(event: AnyEvent) -> None:
        if isinstance(event, Progress) and event.bytes_done > 3 * MIB:
            stop.set()

    request = RestoreRequest(tmp_path / "target", in_place=in_place)
    with pytest.raises(Interrupted):
        execute(plan(counting, saved, request), counting, report=report, stop=stop)
    assert not list(target.glob(".pra-agent-restore-*"))
    if in_place:
        assert (target / "big").read_bytes() == old
    again = Counting(repository)
    restored(again, saved, tmp_path / "target", in_place=in_place)
    _same(source, target)
    if not in_place:  # what was written under its final name is found there
        assert again.bytes < SIZE * 4 // 5


def test_what_a_killed_restore_left_is_cleared(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    (target / "etc/.pra-agent-restore-0123456789abcdef").write_bytes(b"half")
    (target / "etc/.pra-agent-restore-mine").write_bytes(b"not ours")
    restored(repository, saved, tmp_path / "target")
    assert sorted(path.name for path in (target / "etc").glob(".*")) == [".pra-agent-restore-mine"]


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("named", [True, False])
def test_a_lost_blob_costs_only_its_files(
    source: Path, repository: Repository, saved: Snapshot, tmp_path: Path, named: bool
):
    files = {each.node.name: each.node for each in plan(repository, saved, RestoreRequest(tmp_path / "x")).items}
    content = files[b"big"].content
    two = files[b"two"].content
    assert content is not None
    assert two is not None
    broken = Counting(repository, [content[3], two[0]], named=named)
    done = restore_snapshot(broken, saved, tmp_path / "target")
    assert sorted(each.path for each in done.failures) == [str(source / "big"), str(source / "etc/deep/two")]
    assert all("broken" in each.reason for each in done.failures)
    target = below(tmp_path / "target", source)
    assert _files(target) == ["empty", "etc/one", "link", "one too"]
    restored(repository, saved, tmp_path / "target")
    _same(source, target)


def test_a_lost_tree_costs_only_its_directory(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    made = plan(repository, saved, RestoreRequest(tmp_path / "x"))
    tree = next(each.node.subtree for each in made.directories if each.node is not None and each.name == b"deep")
    assert tree is not None
    done = restore_snapshot(Counting(repository, [tree]), saved, tmp_path / "target")
    assert [each.path for each in done.failures] == [str(source / "etc/deep")]
    assert (below(tmp_path / "target", source) / "etc/one").read_bytes() == b"one"
    with pytest.raises(DamagedError):
        plan(Counting(repository, [saved.tree]), saved, RestoreRequest(tmp_path / "x"))


def test_the_record_names_what_failed(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    (target / "big").mkdir(parents=True)
    (target / "big/inside").write_bytes(b"")
    made = plan(repository, saved, RestoreRequest(tmp_path / "target"))
    record = restore(RestoreRun("r9", saved), made, repository)
    assert (record.outcome, record.job, record.files_failed) == (Outcome.FAILED, "files", 1)
    with pytest.raises(RestoreError, match=r"1 files could not be restored, the first: .*/big: a directory"):
        raise_for(record)
    made = plan(repository, saved, RestoreRequest(tmp_path / "target", delete=True))
    record = restore(RestoreRun("r10", saved), made, repository)
    assert record.outcome is Outcome.SUCCESS
    raise_for(record)


# ---------------------------------------------------------------- a target that fights back


def test_planted_links_are_replaced_not_followed(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"untouched")
    (outside / "one").write_bytes(b"untouched")
    target = below(tmp_path / "target", source)
    target.mkdir(parents=True)
    (target / "etc").symlink_to(outside)
    (target / "big").symlink_to(outside / "victim")
    (target / "empty").symlink_to("/dev/full")
    restored(repository, saved, tmp_path / "target", delete=True)
    _same(source, target)
    assert (outside / "victim").read_bytes() == b"untouched"
    assert sorted(path.name for path in outside.iterdir()) == ["one", "victim"]


def test_a_planted_hard_link_is_cut_not_changed(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = below(tmp_path / "target", source)
    _copy(source, target)
    victim = tmp_path / "victim"
    os.link(target / "etc/deep/two", victim)
    os.utime(victim, (1, 1))
    victim.chmod(0o600)
    before = (victim.stat().st_mode, victim.stat().st_mtime_ns)
    done = restored(repository, saved, tmp_path / "target")
    assert done.bytes_reused == 3000
    _same(source, target)
    assert (victim.stat().st_mode, victim.stat().st_mtime_ns) == before


def test_links_that_are_planted_after_the_plan(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = below(tmp_path / "target", source)
    made = plan(repository, saved, RestoreRequest(tmp_path / "target"))
    target.mkdir(parents=True)
    (target / "etc").symlink_to(outside)
    (target / "big").symlink_to(outside / "victim")
    done = execute(made, repository)
    assert {Path(each.path).name for each in done.failures} >= {"etc", "big", "one", "two"}
    assert list(outside.iterdir()) == []


def test_above_the_restored_a_link_is_refused(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    target = tmp_path / "target"
    outside = tmp_path / "outside"
    outside.mkdir()
    target.mkdir()
    (target / source.parts[1]).symlink_to(outside)
    done = restore_snapshot(repository, saved, target)
    assert [each.path for each in done.failures] == [f"/{source.parts[1]}"]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"/etc/passwd", b"nul\0"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: bytes):
    repository = make_repository()
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            content = [writer.add(BlobType.DATA, b"evil")]
            good = encode_tree([Node(b"good", NodeType.FILE, 0o644, content=content, size=4)])
            quoted = "".join(f"\\\\x{byte:02x}" for byte in name).encode()
            tree = writer.add(BlobType.TREE, good[:-3] + b"," + good[10:-3].replace(b"good", quoted) + good[-3:])
    root = tmp_path / "target/inner"
    before = sorted(tmp_path.rglob("*"))
    done = restore_snapshot(reopen(repository), snapshot(repository, tree), root)
    assert [each.reason for each in done.failures] == ["the name leads out of its directory"]
    assert (root / "good").read_bytes() == b"evil"
    assert set(tmp_path.rglob("*")) - set(before) == {tmp_path / "target", root, root / "good"}


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path):
    repository = make_repository()
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            tree = encode_tree(
                [Node(b"a", NodeType.SYMLINK, 0o777, linktarget=b"/etc"), Node(b"b", NodeType.FILE, content=[])]
            )
            tree_id = writer.add(BlobType.TREE, tree.replace(b'"b"', b'"a"'))
    done = restore_snapshot(reopen(repository), snapshot(repository, tree_id), tmp_path / "target")
    assert [each.reason for each in done.failures] == ["the name occurs twice"]


# ---------------------------------------------------------------- room, and many files


@root_only
def test_no_room_is_told_before_anything_is_written(
    source: Path, repository: Repository, saved: Snapshot, small_disk: Path
):
    with pytest.raises(RestoreError, match="bytes of room"):
        restore_snapshot(repository, saved, small_disk)
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", path], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    path = tmp_path / "many"
    for number in range(30):
        (path / f"d{number}").mkdir(parents=True)
        for each in range(100):
            (path / f"d{number}/f{each}").write_bytes(b"%d " % (number * each) * (each * 5))
    (path / "large").write_bytes(os.urandom(300_000))
    (path / "larger").write_bytes(os.urandom(9 * MIB))
    return path


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("off_host", [False, True], ids=["children read", "children write"])
def test_many_files_by_forked_writers(many: Path, tmp_path: Path, off_host: bool):
    repository = make_repository(MemoryBackend(off_host=off_host))
    back_up(repository, many)
    reader = reopen(repository)
    before = _children()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    done = restored(reader, reader.find_snapshot("latest"), tmp_path / "target")
    assert done.files == 3002
    _same(many, below(tmp_path / "target", many))
    assert _children() == before
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_failures_in_writers_are_named(many: Path, tmp_path: Path):
    repository = make_repository()
    back_up(repository, many)
    reader = reopen(repository)
    made = plan(reader, reader.find_snapshot("latest"), RestoreRequest(tmp_path / "target"))
    planted = below(tmp_path / "target", many) / "d7/f70"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"planted")
    done = execute(made, reader)
    assert {each.path for each in done.failures} == {str(many / "d7/f70")}
    assert planted.read_bytes() == b"planted"


def test_a_broken_pack_costs_forked_readers_only_its_files(many: Path, tmp_path: Path):
    backend = MemoryBackend()
    repository = make_repository(backend)
    back_up(repository, many)
    whole = [path for path in sorted(many.rglob("*")) if path.is_file() and 0 < path.stat().st_size < 4096]
    victim = BlobHandle(BlobType.DATA, hashlib.sha256(whole[1500].read_bytes()).digest())
    location = repository.index.find(victim)
    assert location is not None
    handle = Handle(Kind.DATA, location.pack)
    pack = bytearray(backend.objects[handle])
    pack[location.entry.offset + 20] ^= 1
    backend.objects[handle] = bytes(pack)
    reader = reopen(repository)
    made = plan(reader, reader.find_snapshot("latest"), RestoreRequest(tmp_path / "target"))
    done = execute(made, reader)
    same = {str(path) for path in whole if path.read_bytes() == whole[1500].read_bytes()}
    assert {each.path for each in done.failures} == same
    assert victim.id.hex() in done.failures[0].reason
    for path in whole:
        restored_path = below(tmp_path / "target", many) / path.relative_to(many)
        assert restored_path.exists() == (str(path) not in same)


@root_only
def test_a_disk_that_fills_up_in_writers(many: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(executing, "_WORTH_FORKING", 10)
    repository = make_repository()
    back_up(repository, many)
    reader = reopen(repository)
    made = replace(plan(reader, reader.find_snapshot("latest"), RestoreRequest(small_disk)), room={})
    before = _children()
    with pytest.raises(RestoreError, match="No space left"):
        execute(made, reader)
    assert _children() == before


def test_stopped_with_writers(many: Path, tmp_path: Path):
    repository = make_repository()
    back_up(repository, many)
    reader = reopen(repository)
    stop = Event()
    made = plan(reader, reader.find_snapshot("latest"), RestoreRequest(tmp_path / "target"))
    before = _children()
    with pytest.raises(Interrupted):
        execute(made, reader, report=lambda event: stop.set() if isinstance(event, Progress) else None, stop=stop)
    assert _children() == before
    restored(reader, reader.find_snapshot("latest"), tmp_path / "target")
    _same(many, below(tmp_path / "target", many))


def test_writers_die_with_their_parent(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repository = make_repository()
    back_up(repository, many)
    reader = reopen(repository)
    made = plan(reader, reader.find_snapshot("latest"), RestoreRequest(tmp_path / "target"))
    told, tell = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.close(told)
            execute(made, Stuck(reader, tell))
        finally:
            os._exit(1)
    os.close(tell)
    with os.fdopen(told) as stream:
        writers = stream.readline().split()
        assert len(writers) == 2
        os.kill(middle, 9)
        os.waitpid(middle, 0)
        deadline = time.monotonic() + 30
        while any(_alive(pid) for pid in writers):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Stuck(Counting):
    """A reader that tells which children there are when data is asked for, and then hangs."""

    def __init__(self, reader: SnapshotReader, tell: int) -> None:
        super().__init__(reader)
        self._tell = tell

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        os.write(self._tell, " ".join(sorted(_children())).encode() + b"\n")
        time.sleep(60)
        yield from super().read(handles)


def test_notices_without_rights(source: Path, repository: Repository, saved: Snapshot, tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o777)
    for parent in target.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o011)
    events: list[AnyEvent] = []
    os.seteuid(65534)
    try:
        made = plan(repository, saved, RestoreRequest(target))
        done = execute(made, repository, report=events.append)
    finally:
        os.seteuid(0)
    assert done.failures == []
    notices = [each.message for each in events if isinstance(each, Notice)]
    assert len(notices) == 1
    assert "takes root" in notices[0]
    _same_but_owners(source, below(target, source))


def _same_but_owners(source: Path, target: Path) -> None:
    assert compare_trees(source, target, replace(EVERYTHING, sockets=False, owners=False)) == []
