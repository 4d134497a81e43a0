"""The files source: what it yields of a tree, what it leaves out, and what it says of the rest."""

import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pra_agent.errors import SourceError
from pra_agent.model.events import Event, Notice
from pra_agent.model.nodes import NodeType
from pra_agent.sources.attributes import node_type
from pra_agent.sources.files import FilesSettings
from pra_agent.sources.source import CaptureContext, Entry, Listing, Missed, ReinstateContext, flattened
from tests.support.captures import MemoryState
from tests.support.clock import FakeClock
from tests.support.trees import make_nasty_tree

_STATE = MemoryState()


def capture(
    *paths: Path, never: Sequence[Path] = (), report: list[Event] | None = None, **settings: Any
) -> list[Entry | Missed]:
    """All that a capture of these paths yields, listings taken apart."""
    source = FilesSettings(paths=paths, **settings).build(clock=FakeClock())
    told: list[Event] = [] if report is None else report
    never_raw = [os.fsencode(path) for path in never]
    context = CaptureContext("run", "job", "node", _STATE, report=told.append, never=never_raw)
    with source.capture(context) as captured:
        found = list(flattened(captured.entries()))
        captured.verify()
    return found


def entries(*paths: Path, **options: Any) -> dict[str, Entry]:
    """The entries by path; nothing may be missed."""
    found = capture(*paths, **options)
    assert [each for each in found if isinstance(each, Missed)] == []
    return {os.fsdecode(each.path): each for each in found if isinstance(each, Entry)}


def below(root: Path, *paths: Path, **options: Any) -> set[str]:
    """What is yielded below a directory, by relative path."""
    prefix = f"{root}/"
    return {path.removeprefix(prefix) for path in entries(*(paths or (root,)), **options) if path.startswith(prefix)}


def make(root: Path, *names: str) -> Path:
    """Make files (and directories, by a trailing slash)."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    return root


def walk(root: bytes) -> Iterator[bytes]:
    """All paths of a tree, by the plainest means."""
    yield root
    if stat.S_ISDIR(os.lstat(root).st_mode):
        for name in sorted(os.listdir(root)):  # noqa: PTH208 - raw names
            yield from walk(root + b"/" + name)


# ---------------------------------------------------------------- what is yielded


def test_everything_of_a_nasty_tree_and_nothing_else(tmp_path):
    root = make_nasty_tree(tmp_path / "tree", depth=100).root
    told: list[Event] = []
    found = entries(root, report=told)
    there = {os.fsdecode(path): os.lstat(path) for path in walk(os.fsencode(root))}
    expected = {path for path, st in there.items() if not stat.S_ISSOCK(st.st_mode)}
    assert {path for path in found if path.startswith(str(root))} == expected
    for path in expected:
        st, node = there[path], found[path].node
        assert (node.type, node.mode, node.uid, node.gid) == (
            node_type(st.st_mode),
            stat.S_IMODE(st.st_mode),
            st.st_uid,
            st.st_gid,
        )
        assert (node.mtime, node.atime, node.ctime, node.inode) == (
            st.st_mtime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
            st.st_ino,
        )
        assert node.size == (st.st_size if stat.S_ISREG(st.st_mode) else 0)
        assert node.name == os.fsencode(path).rpartition(b"/")[2]
    # One line for all of them, and no failure: restic's format has no place where a socket would come back.
    (notice,) = [event.message for event in told if isinstance(event, Notice)]
    assert notice.startswith("sockets left out: 1, the first is ")


def test_links_have_a_device_and_a_count_only_where_there_are_several(tmp_path):
    make(tmp_path, "one", "two/")
    os.link(tmp_path / "one", tmp_path / "two/same")
    make(tmp_path, "single")
    found = entries(tmp_path)
    st = (tmp_path / "one").stat()
    for name in ("one", "two/same"):
        node = found[str(tmp_path / name)].node
        assert (node.links, node.device_id, node.inode) == (2, st.st_dev, st.st_ino)
    assert found[str(tmp_path / "single")].node.device_id == 0
    assert found[str(tmp_path / "two")].node.device_id == 0


def test_directories_come_before_what_is_in_them_and_depth_first(tmp_path):
    make(tmp_path, "b/1", "b/c/2", "a/3", "d", "b.x/4")
    seen: set[str] = {str(tmp_path.parent)}
    left: set[str] = set()
    current: list[str] = []
    for path in entries(tmp_path):
        parent = path.rpartition("/")[0]
        if not path.startswith(str(tmp_path)):
            continue
        assert parent in seen
        assert parent not in left
        while current and not parent.startswith(current[-1]):
            left.add(current.pop())
        if parent not in current:
            current.append(parent)
        seen.add(path)


def test_300_levels_with_long_names_pass_the_limit_of_a_path(tmp_path):
    """260 levels of 100 bytes are 26,000 bytes: no system call takes such a path."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for level in range(260):
        name = b"%0100d" % level
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.symlink(b"target", b"link", dir_fd=fd)
    os.close(fd)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = entries(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    deepest = max(found, key=len)
    assert deepest.count("/") - str(tmp_path).count("/") == 261
    assert {entry.node.type for path, entry in found.items() if len(path) > 26_000} == {
        NodeType.FILE,
        NodeType.SYMLINK,
        NodeType.DIR,
    }


def test_a_file_as_path(tmp_path):
    make(tmp_path, "wanted", "other")
    found = entries(tmp_path / "wanted")
    assert list(found)[-1] == str(tmp_path / "wanted")
    assert str(tmp_path / "other") not in found
    assert found[str(tmp_path / "wanted")].node.type is NodeType.FILE


def test_a_symlink_as_path_is_the_link(tmp_path):
    make(tmp_path, "real/inside")
    (tmp_path / "link").symlink_to("real")
    found = entries(tmp_path / "link")
    assert found[str(tmp_path / "link")].node.type is NodeType.SYMLINK
    assert str(tmp_path / "link/inside") not in found


def test_a_path_through_a_symlink_is_followed_to_its_last_component(tmp_path):
    make(tmp_path, "real/app/inside")
    (tmp_path / "link").symlink_to("real")
    found = entries(tmp_path / "link/app")
    assert str(tmp_path / "link/app/inside") in found
    assert found[str(tmp_path / "link")].node.type is NodeType.DIR


def test_symlinks_below_are_never_followed(tmp_path):
    make(tmp_path, "outside/secret", "root/")
    (tmp_path / "root/link").symlink_to("../outside")
    assert below(tmp_path / "root") == {"link"}


def test_parents_have_their_own_metadata(tmp_path):
    make(tmp_path, "up/wanted")
    (tmp_path / "up").chmod(0o711)
    assert entries(tmp_path / "up/wanted")[str(tmp_path / "up")].node.mode == 0o711


def test_nested_paths_are_yielded_once(tmp_path):
    make(tmp_path, "a/b/c", "a/d")
    found = [os.fsdecode(each.path) for each in capture(tmp_path / "a", tmp_path / "a/b") if isinstance(each, Entry)]
    assert len(found) == len(set(found))
    assert {str(tmp_path / name) for name in ("a", "a/b", "a/b/c", "a/d")} <= set(found)


def test_roots_and_instant(tmp_path):
    make(tmp_path, "b", "a")
    clock = FakeClock()
    source = FilesSettings(paths=(tmp_path / "b", tmp_path / "a", tmp_path / "x/../b")).build(clock=clock)
    with source.capture(CaptureContext("run", "job", "node", _STATE)) as captured:
        clock.advance(60)
        assert captured.roots == [os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b")]
        assert captured.data_instant == FakeClock().now()


def test_nothing_is_done_by_undo_and_reinstate(tmp_path):
    source = FilesSettings(paths=(tmp_path,)).build()
    source.undo(_STATE)
    assert source.reinstate(ReinstateContext("run", "job", str(tmp_path), _STATE)) == ()


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), {"a.tmp", "keep.tmp", "src", "src/a.tmp", "src/cache", "src/cache/x", "cache", "cache/x"}),
        (("*.tmp",), {"src", "src/cache", "src/cache/x", "cache", "cache/x"}),
        (("*.tmp", "!keep.tmp"), {"keep.tmp", "src", "src/cache", "src/cache/x", "cache", "cache/x"}),
        (("/cache",), {"a.tmp", "keep.tmp", "src", "src/a.tmp", "src/cache", "src/cache/x"}),
        (("cache/",), {"a.tmp", "keep.tmp", "src", "src/a.tmp"}),
        (("src/**/x", "# comment", ""), {"a.tmp", "keep.tmp", "src", "src/a.tmp", "src/cache", "cache", "cache/x"}),
        (("{root}/src",), {"a.tmp", "keep.tmp", "cache", "cache/x"}),
        (("*", "!{root}/cache"), {"cache"}),
        (("src/**",), {"a.tmp", "keep.tmp", "src", "cache", "cache/x"}),
        (("**",), set()),
        (("**/",), {"a.tmp", "keep.tmp"}),
        (("src/*", "!src/cache"), {"a.tmp", "keep.tmp", "src", "src/cache", "src/cache/x", "cache", "cache/x"}),
        (("!*.tmp",), {"a.tmp", "keep.tmp", "src", "src/a.tmp", "src/cache", "src/cache/x", "cache", "cache/x"}),
    ],
)
def test_patterns(tmp_path, patterns, left):
    root = make(tmp_path / "root", "a.tmp", "keep.tmp", "src/a.tmp", "src/cache/x", "cache/x")
    assert below(root, exclude=tuple(each.replace("{root}", str(root)) for each in patterns)) == left


def test_patterns_over_names_that_are_not_utf8(tmp_path):
    for name in (b"a\xff.tmp", b"b\xff", b"c\n.tmp"):
        (tmp_path / os.fsdecode(name)).touch()
    assert below(tmp_path, exclude=("*.tmp",)) == {os.fsdecode(b"b\xff")}


def test_a_bad_pattern_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no exclude pattern"):
        capture(tmp_path, exclude=("!",))


def test_patterns_from_a_file(tmp_path):
    root = make(tmp_path / "root", "a.tmp", "b", "c.bak")
    (tmp_path / "excludes").write_text("# comment\n*.tmp\n\n*.bak\r\n")
    assert below(root, exclude_files=(tmp_path / "excludes",)) == {"b"}


def test_a_file_of_patterns_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match=r"cannot read the exclude file .*nowhere: No such file"):
        capture(tmp_path, exclude_files=(tmp_path / "nowhere",))


def test_a_path_that_was_asked_for_is_kept_whatever_the_patterns_say(tmp_path):
    root = make(tmp_path / "root", "cache/keep/x", "cache/other", "y")
    assert below(root, root, root / "cache/keep", exclude=("cache",)) == {"cache", "cache/keep", "cache/keep/x", "y"}
    assert below(root, root, root / "cache/other", exclude=("cache",)) == {"cache", "cache/other", "y"}


def test_caches(tmp_path):
    root = make(tmp_path / "root", "cache/big", "cache/sub/x", "fake/CACHEDIR.TAG", "fake/x")
    (root / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# made by a test")
    kept = {"cache", "cache/CACHEDIR.TAG", "fake", "fake/CACHEDIR.TAG", "fake/x"}
    assert below(root, exclude_caches=True) == kept
    assert below(root) == kept | {"cache/big", "cache/sub", "cache/sub/x"}


def test_large_files(tmp_path):
    make(tmp_path, "small", "large")
    (tmp_path / "large").write_bytes(bytes(1025))
    assert below(tmp_path, exclude_larger_than="1KiB") == {"small"}
    assert str(tmp_path / "large") in entries(tmp_path / "large", exclude_larger_than="1KiB")


def test_paths_that_are_never_captured(tmp_path):
    root = make(tmp_path / "root", "repository/data/x", "state/y", "state.txt", "z")
    never = (root / "repository", root / "state/y")
    assert below(root, never=never) == {"state", "state.txt", "z"}


def test_other_file_systems(tmp_path):
    """/dev is another file system than /, /dev/shm (or /dev/pts) than /dev."""
    inner = next((path for path in (Path("/dev/shm"), Path("/dev/pts")) if path.is_mount()), None)
    if inner is None:
        pytest.skip("no file system is mounted below /dev")
    found = {os.fsdecode(each.path) for each in capture(Path("/dev"), one_file_system=True) if isinstance(each, Entry)}
    assert str(inner) in found
    assert not [path for path in found if path.startswith(f"{inner}/")]
    with_inner = capture(Path("/dev"), inner, one_file_system=True)
    inside = {os.fsdecode(each.path) for each in with_inner if isinstance(each, Entry)}
    assert str(inner) in inside
    assert {str(path) for path in inner.iterdir() if path.name == "ptmx"} <= inside


# ---------------------------------------------------------------- what is missed


def test_a_path_that_is_not_there_is_missed_when_there_are_others(tmp_path):
    make(tmp_path, "there")
    found = capture(tmp_path / "there", tmp_path / "gone")
    assert [each for each in found if isinstance(each, Missed)] == [
        Missed(str(tmp_path / "gone"), "it is configured, but: No such file or directory")
    ]


def test_no_path_there_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="there is nothing to save"):
        capture(tmp_path / "gone")


def test_what_vanishes_while_walking_is_missed(tmp_path):
    make(tmp_path, "a/x", "b/y", "c")
    source = FilesSettings(paths=(tmp_path,)).build()
    found: list[Entry | Missed] = []
    with source.capture(CaptureContext("run", "job", "node", _STATE)) as captured:
        for item in captured.entries():
            if isinstance(item, Listing) and item.path == os.fsencode(tmp_path):
                (tmp_path / "b/y").unlink()
                (tmp_path / "b").rmdir()
            if not isinstance(item, Listing):
                found.append(item)
    assert [each for each in found if isinstance(each, Missed)] == [
        Missed(str(tmp_path / "b"), "it vanished while the tree was walked")
    ]


def test_a_directory_that_becomes_a_symlink_is_not_followed(tmp_path):
    make(tmp_path, "root/a/x", "outside/secret")
    source = FilesSettings(paths=(tmp_path / "root",)).build()
    found: list[Entry | Missed | Listing] = []
    with source.capture(CaptureContext("run", "job", "node", _STATE)) as captured:
        for item in captured.entries():
            found.append(item)
            if isinstance(item, Listing):
                (tmp_path / "root/a").rename(tmp_path / "moved")
                (tmp_path / "root/a").symlink_to(tmp_path / "outside")
                break
        found += list(captured.entries())
    assert not [each for each in found if isinstance(each, Entry) and b"secret" in each.path]


def test_an_unreadable_directory_is_missed(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root can read everything")
    make(tmp_path, "a/x", "b")
    (tmp_path / "a").chmod(0)
    found = capture(tmp_path)
    (tmp_path / "a").chmod(0o700)
    assert [each for each in found if isinstance(each, Missed)] == [Missed(str(tmp_path / "a"), "Permission denied")]


# ---------------------------------------------------------------- listings


def digests(root: Path) -> dict[str, bytes]:
    """The digest of each directory's listing."""
    source = FilesSettings(paths=(root,)).build()
    with source.capture(CaptureContext("run", "job", "node", _STATE)) as captured:
        return {os.fsdecode(item.path): item.digest for item in captured.entries() if isinstance(item, Listing)}


@pytest.mark.parametrize("many", [0, 3000])
def test_a_listing_has_another_digest_when_anything_was_touched(tmp_path, many):
    root = make(tmp_path / "root", "a/x", "a/y", "b/z")
    for number in range(many):
        (root / f"a/f{number}").touch()
    (root / "a/link").symlink_to("x")
    before = digests(root)
    assert digests(root) == before
    changes: list[Callable[[], object]] = [
        lambda: (root / "a/x").chmod(0o600),
        lambda: (root / "a/x").write_text("other"),
        lambda: os.utime(root / "a/x", ns=(1, 1)),
        lambda: (root / "a/y").rename(root / "a/w"),
        lambda: (root / "a/new").touch(),
        lambda: (root / "a/new").unlink(),
        lambda: os.link(root / "a/x", root / "b/x"),
    ]
    for change in changes:
        change()
        after = digests(root)
        assert after[str(root / "a")] != before[str(root / "a")]
        assert after[str(root)] == before[str(root)]
        before = after


def test_a_listing_counts(tmp_path):
    make(tmp_path, "a", "bb", "c/x")
    (tmp_path / "link").symlink_to("a")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(tmp_path / "sock"))
    source = FilesSettings(paths=(tmp_path,)).build()
    with source.capture(CaptureContext("run", "job", "node", _STATE)) as captured:
        listing = next(item for item in captured.entries() if isinstance(item, Listing))
        assert (listing.files, listing.others, listing.size) == (2, 1, 3)


# ---------------------------------------------------------------- settings


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ValidationError, match="no absolute path"):
        FilesSettings(paths=(Path("relative"),))
    with pytest.raises(ValidationError):
        FilesSettings(paths=())
    with pytest.raises(ValidationError):
        FilesSettings.model_validate({"type": "files", "paths": ["/srv"], "unknown": 1})
