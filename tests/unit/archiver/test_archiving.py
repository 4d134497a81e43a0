"""From a capture to trees: what is read, what is reused, what is named when it fails."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pra_agent.archiver.archiving import archive
from pra_agent.archiver.values import Archived, Limits, Options
from pra_agent.errors import Interrupted, SourceError
from pra_agent.model.events import Event, FileFailed, Progress
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.snapshots import Snapshot
from pra_agent.model.trees import encode_tree
from pra_agent.repository.repository import Repository
from pra_agent.sources.files import FilesSettings
from pra_agent.sources.source import (
    KEY_FILE,
    KEY_LINK,
    KEY_NAME,
    CaptureContext,
    Entry,
    Listing,
    Missed,
    change_key,
    flattened,
    unchanged,
)
from tests.support.captures import MemoryState
from tests.support.repositories import make_repository, noise

INLINE = Limits(workers=0)
TWO = Limits(workers=2)
Item = Entry | Missed | Listing


@dataclass
class Given:
    """A capture of items."""

    items: Sequence[Item] = ()
    data_instant: datetime = datetime(2024, 5, 1, tzinfo=UTC)
    roots: Sequence[bytes] = (b"/srv",)

    def entries(self) -> Iterator[Item]:
        yield from self.items

    def verify(self) -> None:
        pass


def store(repository: Repository, capture: Any, parent: bytes | None = None, **options: Any) -> Archived:
    """Archive a capture under a lock."""
    options.setdefault("limits", INLINE)
    before = None if parent is None else Snapshot(datetime(2024, 1, 1, tzinfo=UTC), parent, ["/srv"], "web-1")
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            return archive(repository, writer, capture, Options(parent=before, **options))


def store_files(repository: Repository, path: Path, parent: bytes | None = None, **options: Any) -> Archived:
    """Archive a path of this host."""
    context = CaptureContext("run", "job", "web-1", MemoryState())
    with FilesSettings(paths=(path,)).build().capture(context) as capture:
        return store(repository, capture, parent, **options)


def captured(path: Path) -> list[Entry]:
    """The entries of a path of this host."""
    context = CaptureContext("run", "job", "web-1", MemoryState())
    with FilesSettings(paths=(path,)).build().capture(context) as capture:
        return [each for each in flattened(capture.entries()) if isinstance(each, Entry)]


def find(repository: Repository, tree: bytes, path: str | Path) -> Node:
    """The node at a path."""
    *parents, name = os.fsencode(path).strip(b"/").split(b"/")
    for parent in parents:
        tree = next(node.subtree or b"" for node in repository.read_tree(tree) if node.name == parent)
    return next(node for node in repository.read_tree(tree) if node.name == name)


def content(repository: Repository, node: Node) -> bytes:
    """The bytes of a file's node."""
    assert node.content is not None
    return b"".join(repository.read_blob(BlobHandle(BlobType.DATA, blob)) for blob in node.content)


def file_entry(path: bytes, data: bytes = b"", **node: Any) -> Entry:
    """A file whose content comes as a stream."""
    return Entry(path, Node(path.rpartition(b"/")[2], NodeType.FILE, **node), stream=stream_of(data))


def stream_of(data: bytes, fails: Exception | None = None) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        yield BytesIO(data)
        if fails:
            raise fails

    return opened


# ---------------------------------------------------------------- trees


def test_missing_parents_are_made_up():
    repository = make_repository()
    archived = store(repository, Given([file_entry(b"/a/b/c", b"text")]))
    assert content(repository, find(repository, archived.tree, "/a/b/c")) == b"text"
    node = find(repository, archived.tree, "/a/b")
    assert (node.type, node.mode, node.mtime) == (NodeType.DIR, 0o755, 0)


def test_the_order_of_entries_does_not_matter_where_directories_are_made_up():
    names = [b"/x/2", b"/a/1", b"/x/1", b"/a/b/3", b"/a/0", b"/x/y/z"]
    trees = {
        store(make_repository(), Given([file_entry(name, name) for name in order])).tree
        for order in (names, sorted(names), sorted(names, reverse=True))
    }
    assert len(trees) == 1


def test_names_are_in_the_order_of_their_bytes():
    names = [b"a", b"a-", b"a.b", b"a0", b"A", b"\xff", b"\xc3\xa9", b"z", b"a/x"]
    repository = make_repository()
    archived = store(repository, Given([file_entry(b"/" + name.replace(b"/", b"_")) for name in reversed(names)]))
    stored = [node.name for node in repository.read_tree(archived.tree)]
    assert stored == sorted(stored)
    assert len(stored) == len(names)


def test_a_directory_that_is_yielded_after_its_made_up_self_gives_it_its_node():
    repository = make_repository()
    late = Entry(b"/a", Node(b"a", NodeType.DIR, mode=0o700))
    archived = store(repository, Given([file_entry(b"/a/b"), late, file_entry(b"/c")]))
    assert find(repository, archived.tree, "/a").mode == 0o700


def test_a_name_that_comes_twice_is_an_error_of_the_source():
    with pytest.raises(SourceError, match="gave a name twice in /a"):
        store(make_repository(), Given([file_entry(b"/a/b"), file_entry(b"/a/b")]))


def test_coming_back_to_a_directory_that_was_left_is_an_error():
    folder = Entry(b"/a", Node(b"a", NodeType.DIR))
    with pytest.raises(SourceError, match="gave a name twice in /"):
        store(make_repository(), Given([folder, file_entry(b"/a/1"), file_entry(b"/b/1"), file_entry(b"/a/2")]))


def test_an_empty_capture_has_an_empty_tree():
    repository = make_repository()
    archived = store(repository, Given())
    assert repository.read_tree(archived.tree) == []
    assert archived.stats.files == 0


def test_the_root_has_no_node():
    repository = make_repository()
    archived = store(repository, Given([Entry(b"/", Node(b"", NodeType.DIR)), file_entry(b"/a")]))
    assert [node.name for node in repository.read_tree(archived.tree)] == [b"a"]


# ---------------------------------------------------------------- content


@pytest.mark.parametrize("limits", [INLINE, TWO])
def test_files_of_all_sizes(tmp_path, limits):
    sizes = [0, 1, 1000, (512 << 10) - 1, 512 << 10, (512 << 10) + 1, 3 << 20, 20 << 20]
    files = {f"f{size}": noise(size) for size in sizes}
    files["zeros"] = bytes(9 << 20)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    repository = make_repository()
    archived = store_files(repository, tmp_path, limits=limits)
    for name, data in files.items():
        node = find(repository, archived.tree, tmp_path / name)
        assert node.size == len(data)
        assert content(repository, node) == data
    assert archived.failures == []
    assert archived.stats.bytes == archived.stats.bytes_read == sum(map(len, files.values()))


@pytest.mark.parametrize("limits", [INLINE, TWO])
def test_a_large_file_is_read_in_segments(tmp_path, limits, monkeypatch):
    monkeypatch.setattr("pra_agent.archiver.contents.SEGMENT", 1 << 20)
    data = noise((5 << 20) + 17)
    (tmp_path / "large").write_bytes(data)
    repository = make_repository()
    archived = store_files(repository, tmp_path, limits=limits)
    assert content(repository, find(repository, archived.tree, tmp_path / "large")) == data


def test_holes_are_not_read_and_share_their_blobs(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(5 << 30)
        file.write(b"end")
        file.truncate(6 << 30)
    repository = make_repository()
    archived = store_files(repository, tmp_path)
    node = find(repository, archived.tree, tmp_path / "sparse")
    sizes = repository.sizes(BlobHandle(BlobType.DATA, blob) for blob in node.content or ())
    assert node.size == 6 << 30
    assert sum(sizes[BlobHandle(BlobType.DATA, blob)] for blob in node.content or ()) == 6 << 30
    assert len(sizes) < 10
    assert content(repository, replace(node, content=(node.content or ())[:1])).startswith(b"start")


def test_the_same_content_is_stored_once_whichever_worker_reads_it(tmp_path):
    block = noise(600 << 10)
    for number in range(40):
        (tmp_path / f"f{number}").write_bytes(block)
    repository = make_repository()
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            context = CaptureContext("run", "job", "web-1", MemoryState())
            with FilesSettings(paths=(tmp_path,)).build().capture(context) as capture:
                archive(repository, writer, capture, Options(limits=TWO))
            assert writer.stats.bytes_added < 2 * len(block) + 100_000


@pytest.mark.parametrize("limits", [INLINE, TWO])
def test_streams(limits):
    data = noise(12 << 20)
    repository = make_repository()
    archived = store(repository, Given([file_entry(b"/dump", data, mode=0o600), file_entry(b"/empty")]), limits=limits)
    node = find(repository, archived.tree, "/dump")
    assert (node.size, node.mode) == (len(data), 0o600)
    assert content(repository, node) == data
    assert find(repository, archived.tree, "/empty").content == []


def test_a_file_with_neither_is_empty():
    repository = make_repository()
    archived = store(repository, Given([Entry(b"/a", Node(b"a", NodeType.FILE, 0o600))]))
    assert (find(repository, archived.tree, "/a").content, archived.stats.files) == ([], 1)


def test_a_stream_and_a_file_of_the_same_content_share_blobs(tmp_path):
    data = noise(5 << 20)
    (tmp_path / "file").write_bytes(data)
    repository = make_repository()
    one = find(repository, store_files(repository, tmp_path).tree, tmp_path / "file")
    other = find(repository, store(repository, Given([file_entry(b"/stream", data)])).tree, "/stream")
    assert one.content == other.content


def test_extended_attributes_come_with_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").touch()
    try:
        for name in ("file", "empty"):
            os.setxattr(tmp_path / name, b"user.test", b"value")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    repository = make_repository()
    first = store_files(repository, tmp_path)
    second = store_files(repository, tmp_path, first.tree)
    for archived in (first, second):
        for name in ("file", "empty"):
            assert find(repository, archived.tree, tmp_path / name).xattrs == {b"user.test": b"value"}
    assert second.stats.files_unmodified == 2


# ---------------------------------------------------------------- reuse


def test_unchanged_files_are_not_read(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    repository = make_repository()
    first = store_files(repository, tmp_path)
    (tmp_path / "b").write_text("changed")
    (tmp_path / "d").write_text("new")
    second = store_files(repository, tmp_path, first.tree)
    stats = second.stats
    assert (stats.files_new, stats.files_changed, stats.files_unmodified) == (1, 1, 2)
    assert stats.bytes_read == len("changed") + len("new")
    assert content(repository, find(repository, second.tree, tmp_path / "b")) == b"changed"
    assert content(repository, find(repository, second.tree, tmp_path / "a")) == b"a"


def test_full_reads_all(tmp_path):
    (tmp_path / "a").write_text("a")
    repository = make_repository()
    first = store_files(repository, tmp_path)
    second = store_files(repository, tmp_path, first.tree, full=True)
    assert second.stats.bytes_read == 1
    assert second.stats.files_unmodified == 1
    assert find(repository, second.tree, tmp_path).subtree == find(repository, first.tree, tmp_path).subtree


def test_a_file_whose_blobs_are_gone_is_read_again(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    (node,) = [each.node for each in captured(tmp_path) if each.path == os.fsencode(path)]
    repository = make_repository()
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            # A tree whose data is not there: its pack was lost, and a repair took it out of the index.
            lost = encode_tree([replace(node, content=[bytes(32)])])
            parent = writer.add(BlobType.TREE, lost)
    again = store(repository, Given([Entry(b"/a", node, KEY_FILE, os.fsencode(path))]), parent)
    assert again.stats.bytes_read == len(b"content")
    assert content(repository, find(repository, again.tree, "/a")) == b"content"


def test_metadata_of_an_unchanged_file_is_that_of_now():
    repository = make_repository()
    node = Node(b"a", NodeType.FILE, 0o600, mtime=5, size=4, inode=7)
    first = store(repository, Given([replace(file_entry(b"/a", b"text"), node=node)]))
    moved = replace(node, inode=8, mode=0o640, user="somebody")
    second = store(repository, Given([Entry(b"/a", moved, change_key(moved, KEY_NAME), file=b"/nowhere")]), first.tree)
    stored = find(repository, second.tree, "/a")
    assert (stored.mode, stored.user, stored.inode) == (0o640, "somebody", 8)
    assert content(repository, stored) == b"text"
    assert second.stats.bytes_read == 0


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("kind", "change", "same"),
    [
        (KEY_FILE, {}, True),
        (KEY_FILE, {"ctime": 9}, False),
        (KEY_FILE, {"mtime": 9}, False),
        (KEY_FILE, {"size": 9}, False),
        (KEY_FILE, {"inode": 9}, False),
        (KEY_FILE, {"mode": 9, "uid": 9}, True),
        (KEY_LINK, {"ctime": 9}, True),
        (KEY_LINK, {"inode": 9}, False),
        (KEY_NAME, {"ctime": 9, "inode": 9}, True),
        (KEY_NAME, {"mtime": 9}, False),
        (KEY_NAME, {"size": 9}, False),
    ],
)
def test_change_keys(kind, change, same, whole):
    before = Node(b"a", NodeType.FILE, mtime=1, ctime=2, size=3, inode=4)
    now: Node = replace(before, **change)
    assert unchanged(Entry(b"/a", now, change_key(now, kind) if whole else kind), before) is same


def test_no_key_is_always_read():
    node = Node(b"a", NodeType.FILE)
    assert not unchanged(Entry(b"/a", node), node)
    with pytest.raises(ValueError, match="no kind of change key"):
        change_key(node, b"?")


# ---------------------------------------------------------------- failures


def test_missed_and_unreadable_files_are_named_and_the_rest_is_stored(tmp_path):
    (tmp_path / "good").write_text("good")
    repository = make_repository()
    told: list[Event] = []
    node = Node(b"gone", NodeType.FILE, size=3)
    items: list[Item] = [
        Missed("/srv/missed", "it is a test"),
        Entry(b"/srv/gone", node, file=os.fsencode(tmp_path / "gone")),
        Entry(b"/srv/good", replace(node, name=b"good"), file=os.fsencode(tmp_path / "good")),
    ]
    archived = store(repository, Given(items), report=told.append)
    assert [(failure.path, failure.reason) for failure in archived.failures] == [
        ("/srv/missed", "it is a test"),
        ("/srv/gone", "cannot be opened: No such file or directory"),
    ]
    assert archived.stats.files_failed == 2
    assert [node.name for node in repository.read_tree(find(repository, archived.tree, "/srv").subtree or b"")] == [
        b"good"
    ]
    assert [event.path for event in told if isinstance(event, FileFailed)] == ["/srv/missed", "/srv/gone"]
    assert isinstance(told[-1], Progress)


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_a_file_that_became_something_else_is_not_read(tmp_path, kind):
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "file"
    path.write_text("text")
    st = path.stat()
    path.unlink()
    if kind == "symlink":
        path.symlink_to("secret")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    node = Node(b"file", NodeType.FILE, size=4, mtime=st.st_mtime_ns, inode=st.st_ino)
    archived = store(make_repository(), Given([Entry(b"/file", node, file=os.fsencode(path))]))
    assert archived.stats.files == 0
    assert archived.stats.files_failed == 1


def test_a_directory_that_became_a_symlink_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("secret")
    (tmp_path / "dir").symlink_to("outside")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    node = Node(b"file", NodeType.FILE, size=6)
    archived = store(make_repository(), Given([Entry(b"/file", node, file=b"dir/file", dir_fd=fd)]))
    os.close(fd)
    assert archived.stats.files == 0
    assert "Not a directory" in archived.failures[0].reason or "symbolic" in archived.failures[0].reason


@pytest.mark.parametrize("limits", [INLINE, TWO])
def test_a_file_that_was_replaced_since_the_walk_is_stored_as_it_is(tmp_path, limits):
    path = tmp_path / "file"
    path.write_text("what the walk saw")
    st = path.stat()
    node = Node(b"file", NodeType.FILE, size=st.st_size, mtime=st.st_mtime_ns, ctime=st.st_ctime_ns, inode=st.st_ino)
    (tmp_path / "new").write_text("what is there now, and longer")
    (tmp_path / "new").chmod(0o604)
    (tmp_path / "new").rename(path)
    repository = make_repository()
    archived = store(repository, Given([Entry(b"/file", node, file=os.fsencode(path))]), limits=limits)
    stored = find(repository, archived.tree, "/file")
    now = path.stat()
    assert content(repository, stored) == b"what is there now, and longer"
    assert (stored.size, stored.mtime, stored.inode, stored.mode) == (now.st_size, now.st_mtime_ns, now.st_ino, 0o604)
    assert archived.failures == []


def test_a_file_that_changes_while_it_is_read_is_stored_named_and_read_again_next_time(tmp_path, monkeypatch):
    path = tmp_path / "log"
    path.write_bytes(noise(3 << 20))
    original, once = os.pread, threading.Event()

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = original(fd, size, offset)
        if offset and not once.is_set():
            once.set()
            with path.open("ab") as file:
                file.write(b"one more line")
        return data

    monkeypatch.setattr(os, "pread", pread)
    repository = make_repository()
    first = store_files(repository, tmp_path)
    assert once.is_set()
    assert [failure.path for failure in first.failures] == [str(path)]
    assert "changed while it was read" in first.failures[0].reason
    assert first.stats.files == 1
    node = find(repository, first.tree, path)
    assert node.size == len(content(repository, node))
    second = store_files(repository, tmp_path, first.tree)
    assert second.failures == []
    assert content(repository, find(repository, second.tree, path)) == path.read_bytes()


def test_many_failures_are_counted_and_some_are_named():
    items = [Missed(f"/srv/{number}", "x") for number in range(1500)]
    archived = store(make_repository(), Given(items))
    assert archived.stats.files_failed == 1500
    assert len(archived.failures) == 1000


def test_a_stream_that_was_not_the_whole_fails_the_run_and_stops_the_others():
    stop = threading.Event()
    entry = replace(file_entry(b"/dump"), stream=stream_of(b"half", SourceError("the dump ended early")))
    with pytest.raises(SourceError, match="the dump ended early"):
        store(make_repository(), Given([entry]), stop=stop)
    assert stop.is_set()


def test_an_error_of_the_source_fails_the_run_and_stops_the_others():
    @dataclass
    class Broken(Given):
        items: Sequence[Item] = field(default_factory=list)

        def entries(self) -> Iterator[Item]:
            yield file_entry(b"/a")
            raise SourceError("gone")

    stop = threading.Event()
    with pytest.raises(SourceError, match="gone"):
        store(make_repository(), Broken(), stop=stop)
    assert stop.is_set()


def test_asked_to_stop():
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        store(make_repository(), Given([file_entry(b"/a")]), stop=stop)


def test_asked_to_stop_in_the_middle_of_a_stream():
    stop = threading.Event()

    class Endless:
        def read(self, size: int) -> bytes:
            stop.set()
            return bytes(size)

    @contextmanager
    def opened() -> Iterator[Any]:
        yield Endless()

    with pytest.raises(Interrupted):
        store(make_repository(), Given([replace(file_entry(b"/a"), stream=opened)]), stop=stop)
