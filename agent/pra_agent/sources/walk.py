"""Walking a directory tree by descriptors: nothing below the start is reached through a symlink.

Any depth: only so many directories stay open, and a directory that was closed is opened again as ".." of its child,
if it is still the same one. Per directory one sorted list of names is held.
"""

import contextlib
import errno
import hashlib
import marshal
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pra_agent.model.events import Notice, Reporter
from pra_agent.model.nodes import NodeType
from pra_agent.model.printable import printable
from pra_agent.sources.attributes import Names, make_node, read_xattrs
from pra_agent.sources.source import KEY_FILE, Entry, Listing, Missed

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LEVELS = 64
#: In larger directories the status of each file is not kept, but asked for again when it is needed.
_KEPT = 1000
_CACHEDIR_TAG = b"CACHEDIR.TAG"
_CACHEDIR_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a walk leaves out. Paths are logical ones: absolute and raw.

    `excluded` is asked with the path below the start. `starts` are paths that were asked for by name: no rule is
    applied to them, and `towards` (their parents) are entered even when excluded, but only in their direction.
    """

    excluded: Callable[[bytes, bool], bool] | None = None
    caches: bool = False
    one_file_system: bool = False
    larger_than: int | None = None
    never: frozenset[bytes] = frozenset()
    starts: frozenset[bytes] = frozenset()
    towards: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Tally:
    """What walks met: sockets, which are left out (they mean nothing without a process), and starts by name."""

    sockets: int = 0
    first_socket: bytes = b""
    met: set[bytes] = field(default_factory=lambda: set[bytes]())

    def leave_out(self, path: bytes) -> None:
        self.sockets += 1
        self.first_socket = self.first_socket or path

    def tell(self, report: Reporter) -> None:
        """Say once what was left out; it is no failure."""
        if self.sockets:
            report(Notice(f"sockets left out: {self.sockets}, the first is {printable(self.first_socket)}"))


@dataclass(frozen=True, slots=True)
class Start:
    """Where a walk starts: `name` (one component) in the open directory `parent_fd`, called `path` in the snapshot.

    `name` is b"." to start at the directory `parent_fd` itself.
    """

    parent_fd: int
    name: bytes
    path: bytes


@dataclass(slots=True)
class _Level:
    """A directory that is being walked. `relative` is its path from `Start.parent_fd`, `below` from the start.

    All three paths end with a slash, unless they are empty.
    """

    fd: int
    path: bytes
    relative: bytes
    below: bytes
    identity: tuple[int, int]
    device: int
    #: Only what leads to paths that were asked for.
    narrow: bool = False
    #: What it holds, sorted; then the directories that are left to be entered.
    names: list[bytes] = field(default_factory=lambda: list[bytes]())
    directories: Iterator[bytes] | None = None


class Walker:
    """One walk. Yields the start first, then everything below it, directories before what is in them."""

    def __init__(self, start: Start, rules: Rules, names: Names, tally: Tally) -> None:
        self._start = start
        self._rules = rules
        self._names = names
        self._tally = tally
        self._levels: list[_Level] = []

    def entries(self) -> Iterator[Entry | Missed | Listing]:
        """Walk to the end. Descriptors are closed when the iterator is, at the latest."""
        start = self._start
        try:
            try:
                st = os.stat(start.name, dir_fd=start.parent_fd, follow_symlinks=False)
            except OSError as error:
                yield _missed(start.path, error)
                return
            yield from self._begin(start, st)
            while self._levels:
                yield from self._directory(self._levels[-1])
        finally:
            for level in self._levels:
                _close(level)

    def _begin(self, start: Start, st: os.stat_result) -> Iterator[Entry | Missed]:
        """Yield the start itself: no rule is applied to what was asked for by name."""
        self._tally.met.add(start.path)
        level = _Level(start.parent_fd, b"", b"", b"", (0, 0), st.st_dev)
        if stat.S_ISDIR(st.st_mode):
            child = _Level(-1, start.path.rstrip(b"/") + b"/", start.name + b"/", b"", (0, 0), st.st_dev)
            yield from self._enter(level, start.name, child, st)
        elif stat.S_ISSOCK(st.st_mode):
            self._tally.leave_out(start.path)
        else:
            yield from self._other(level, start.name, start.path, st)

    def _directory(self, level: _Level) -> Iterator[Entry | Missed | Listing]:
        """Yield what is in the innermost directory, up to the next directory that is to be entered, or its end."""
        if level.directories is None:
            yield from self._listing(level)
        for name in level.directories or ():
            path = level.path + name
            try:
                st = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
            except OSError as error:
                yield _missed(path, error)
                continue
            if not stat.S_ISDIR(st.st_mode):
                yield Missed(printable(path), "it was replaced while the tree was walked")
                continue
            yield from self._below(level, name, path, st)
            if self._levels[-1] is not level:
                return
        yield from self._leave()

    def _below(self, level: _Level, name: bytes, path: bytes, st: os.stat_result) -> Iterator[Entry | Missed]:
        """Yield a directory and make it the innermost level, unless a rule forbids to enter it."""
        rules = self._rules
        asked, towards = path in rules.starts, path in rules.towards
        narrow = level.narrow
        if asked:
            self._tally.met.add(path)
            narrow = False
        elif self._left_out(level, name, st):
            narrow = True
        elif rules.one_file_system and st.st_dev != level.device:
            if not towards:
                yield from self._entry(level, name, path, st)
                return
            narrow = True
        child = _Level(
            -1, path + b"/", level.relative + name + b"/", level.below + name + b"/", (0, 0), st.st_dev, narrow
        )
        yield from self._enter(level, name, child, st)

    def _entry(self, level: _Level, name: bytes, path: bytes, st: os.stat_result) -> Iterator[Entry | Missed]:
        """Yield the entry of a directory."""
        try:
            xattrs = read_xattrs(_proc_path(level.fd, name))
        except OSError as error:
            yield _missed(path, error)
            return
        yield Entry(path, make_node(path.rpartition(b"/")[2], st, self._names, xattrs))

    def _listing(self, level: _Level) -> Iterator[Missed | Listing]:
        """Look at all that a directory holds; tell of what is no directory, and keep the directories' names."""
        names, level.names = level.names, []
        looked = _Looked(self._names)
        missed: list[Missed] = []
        self._look(level, names, looked, missed)
        yield from missed
        level.directories = iter(looked.directories)

        def entries() -> Iterator[Entry | Missed]:
            path, relative, dir_fd, owners = level.path, level.relative, self._start.parent_fd, self._names
            for name, known in looked.files:
                try:
                    st = known or os.stat(name, dir_fd=level.fd, follow_symlinks=False)
                except OSError as error:
                    yield _missed(path + name, error)
                    continue
                if stat.S_ISREG(st.st_mode):
                    yield Entry(path + name, make_node(name, st, owners), KEY_FILE, relative + name, dir_fd)
                elif known is None and (stat.S_ISDIR(st.st_mode) or stat.S_ISSOCK(st.st_mode)):
                    yield Missed(printable(path + name), "it was replaced while the tree was walked")
                else:
                    yield from self._other(level, name, path + name, st)

        path = level.path.rstrip(b"/") or b"/"
        yield Listing(path, looked.digest(), looked.regular, looked.others, looked.size, entries)

    def _look(self, level: _Level, names: list[bytes], looked: "_Looked", missed: list[Missed]) -> None:
        """Take the status of each name that no rule leaves out."""
        fd, path = level.fd, level.path
        rules = self._rules
        ruled = rules.excluded is not None or rules.larger_than is not None
        called = {each for each in (*rules.starts, *rules.towards, *rules.never) if each.startswith(path)}
        lean = len(names) > _KEPT
        for name in names:
            if called or level.narrow:
                here = path + name
                if here in rules.never or (level.narrow and here not in called):
                    continue
            try:
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                missed.append(_missed(path + name, error))
                continue
            kind = st.st_mode & 0o170000
            by_name = bool(called) and path + name in called
            if ruled and not by_name and self._left_out(level, name, st):
                continue
            if kind == stat.S_IFDIR:
                looked.directories.append(name)
            elif kind == stat.S_IFSOCK:
                self._tally.leave_out(path + name)
            else:
                if by_name:
                    self._tally.met.add(path + name)
                looked.add(name, st, lean=lean)

    def _left_out(self, level: _Level, name: bytes, st: os.stat_result) -> bool:
        rules = self._rules
        mode = st.st_mode
        if rules.excluded is not None and rules.excluded(level.below + name, stat.S_ISDIR(mode)):
            return True
        return rules.larger_than is not None and stat.S_ISREG(mode) and st.st_size > rules.larger_than

    def _other(self, level: _Level, name: bytes, path: bytes, st: os.stat_result) -> Iterator[Entry | Missed]:
        """Yield something that is no directory."""
        last = path.rpartition(b"/")[2]
        if stat.S_ISREG(st.st_mode):
            node = make_node(last, st, self._names)
            yield Entry(path, node, KEY_FILE, level.relative + name, self._start.parent_fd)
            return
        try:
            target = os.readlink(name, dir_fd=level.fd) if stat.S_ISLNK(st.st_mode) else b""
            xattrs = read_xattrs(_proc_path(level.fd, name))
        except OSError as error:
            yield _missed(path, error)
            return
        node = make_node(last, st, self._names, xattrs, target)
        if node.type is NodeType.IRREGULAR:
            yield Missed(printable(path), "it is of an unknown type")
            return
        yield Entry(path, node)

    def _enter(self, level: _Level, name: bytes, child: _Level, st: os.stat_result) -> Iterator[Entry | Missed]:
        """Yield a directory's entry, open it and make it the innermost level."""
        yield from self._entry(level, name, child.path.rstrip(b"/") or b"/", st)
        try:
            child.fd = os.open(name, _OPEN_DIR, dir_fd=level.fd)
        except OSError as error:
            yield _missed(child.path.rstrip(b"/"), error)
            return
        self._levels.append(child)
        try:
            opened = os.fstat(child.fd)
            child.identity = (opened.st_dev, opened.st_ino)
            listed = sorted(map(os.fsencode, os.listdir(child.fd)))  # noqa: PTH208 - by descriptor
        except OSError as error:
            yield _missed(child.path.rstrip(b"/"), error)
            yield from self._leave()
            return
        if child.identity != (st.st_dev, st.st_ino) and self._rules.one_file_system and opened.st_dev != st.st_dev:
            listed = []
        if self._rules.caches and _CACHEDIR_TAG in listed and _is_cache(child.fd):
            listed = [_CACHEDIR_TAG]
        child.names = listed
        if len(self._levels) > _OPEN_LEVELS:
            _close(self._levels[-1 - _OPEN_LEVELS])

    def _leave(self) -> Iterator[Missed]:
        """Close the innermost directory; its parent is opened again when it had been closed."""
        level = self._levels.pop()
        if self._levels and self._levels[-1].fd < 0:
            parent = self._levels[-1]
            try:
                parent.fd = self._reopen(level, parent)
            except OSError as error:
                yield Missed(printable(parent.path.rstrip(b"/")), f"it was moved while it was read: {error.strerror}")
                parent.directories = iter(())
        _close(level)

    def _reopen(self, level: _Level, parent: _Level) -> int:
        """Open a directory that had been closed: as the parent of its child, else by its path from the start."""
        with contextlib.suppress(OSError):
            return _open_same(b"..", level.fd, parent.identity)
        here = os.dup(self._start.parent_fd)
        try:
            for component in parent.relative.split(b"/"):
                if component:
                    deeper = os.open(component, _OPEN_DIR, dir_fd=here)
                    os.close(here)
                    here = deeper
            return _open_same(b".", here, parent.identity)
        finally:
            os.close(here)


class _Looked:
    """What is in a directory: names and status of what is no directory, and a digest of it all."""

    def __init__(self, names: Names) -> None:
        self.directories: list[bytes] = []
        self.files: list[tuple[bytes, os.stat_result | None]] = []
        self.regular = self.others = self.size = 0
        self._names = names
        self._owners: set[tuple[int, int]] = set()
        self._rows: list[tuple[object, ...]] = []
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, name: bytes, st: os.stat_result, *, lean: bool) -> None:
        """Take something that is no directory; when `lean`, its status is not kept but asked for again."""
        self.files.append((name, None if lean else st))
        mode, size = st.st_mode, st.st_size
        if mode & 0o170000 == stat.S_IFREG:
            self.regular += 1
            self.size += size
        else:
            self.others += 1
        owner = (st.st_uid, st.st_gid)
        self._owners.add(owner)
        self._rows.append(
            (name, mode, size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino, st.st_dev, st.st_nlink, owner, st.st_rdev)
        )
        if len(self._rows) >= _KEPT:
            self._flush()

    def _flush(self) -> None:
        # Version 2 has no references to objects seen before, so equal rows are equal bytes.
        self._hash.update(marshal.dumps(self._rows, 2))
        self._rows.clear()

    def digest(self) -> bytes:
        """Give the digest; names of users and groups are in it, since nodes have them."""
        self._flush()
        owners = [(uid, gid, self._names.user(uid), self._names.group(gid)) for uid, gid in sorted(self._owners)]
        self._hash.update(marshal.dumps(owners, 2))
        return self._hash.digest()


def _open_same(name: bytes, dir_fd: int, identity: tuple[int, int]) -> int:
    """Open a directory that must be the one of that device and inode."""
    fd = os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    st = os.fstat(fd)
    if (st.st_dev, st.st_ino) == identity:
        return fd
    os.close(fd)
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _close(level: _Level) -> None:
    if level.fd >= 0:
        os.close(level.fd)
        level.fd = -1


def _proc_path(dir_fd: int, name: bytes) -> bytes:
    """A path for calls that take no directory descriptor; the last component is not followed by those we make."""
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


def _is_cache(fd: int) -> bool:
    try:
        tag = os.open(_CACHEDIR_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return False
    try:
        return os.read(tag, len(_CACHEDIR_SIGNATURE)) == _CACHEDIR_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(tag)


def _missed(path: bytes, error: OSError) -> Missed:
    """Say why something was not captured."""
    if error.errno in (errno.ENOENT, errno.ESTALE):
        return Missed(printable(path) or "/", "it vanished while the tree was walked")
    return Missed(printable(path) or "/", error.strerror or str(error))
