"""Walking a directory tree by descriptors: nothing below the start is reached through a symlink.

Any depth: only so many directories stay open, and a directory that was closed is opened again as ".." of its child,
if it is still the same one. Per directory one sorted list of names is held.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pra_agent.model.nodes import NodeType
from pra_agent.model.printable import printable
from pra_agent.sources.attributes import Names, make_node, read_xattrs
from pra_agent.sources.source import KEY_FILE, Entry, Missed, change_key

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LEVELS = 64
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
    """What a walk left out without anybody being told, by reason."""

    sockets: int = 0
    #: Paths that were asked for by name and were met.
    met: set[bytes] = field(default_factory=lambda: set[bytes]())


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
    """A directory that is being walked. `relative` is its path from `Start.parent_fd`, `below` from the start."""

    fd: int
    path: bytes
    relative: bytes
    below: bytes
    identity: tuple[int, int]
    device: int
    #: Only what leads to paths that were asked for.
    narrow: bool = False
    names: Iterator[bytes] = field(default_factory=lambda: iter(()))


class Walker:
    """One walk. Yields the start first, then everything below it, directories before what is in them."""

    def __init__(self, start: Start, rules: Rules, names: Names, tally: Tally) -> None:
        self._start = start
        self._rules = rules
        self._names = names
        self._tally = tally
        self._levels: list[_Level] = []

    def entries(self) -> Iterator[Entry | Missed]:
        """Walk to the end. Descriptors are closed when the iterator is, at the latest."""
        start = self._start
        try:
            try:
                st = os.stat(start.name, dir_fd=start.parent_fd, follow_symlinks=False)
            except OSError as error:
                yield _missed(start.path, error)
                return
            yield from self._one(_Level(start.parent_fd, b"", b"", b"", (0, 0), st.st_dev), start.name, start.path, st)
            while self._levels:
                yield from self._directory()
        finally:
            for level in self._levels:
                _close(level)

    def _directory(self) -> Iterator[Entry | Missed]:
        """Yield what is in the innermost directory, up to the next directory that is to be entered, or its end."""
        level = self._levels[-1]
        path, fd, narrow = level.path, level.fd, level.narrow
        rules = self._rules
        never = rules.never
        for name in level.names:
            here = path + name
            if never and here in never:
                continue
            if narrow and here not in rules.starts and here not in rules.towards:
                continue
            try:
                st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                yield _missed(here, error)
                continue
            yield from self._one(level, name, here, st)
            if self._levels[-1] is not level:
                return
        yield from self._leave()

    def _one(self, level: _Level, name: bytes, path: bytes, st: os.stat_result) -> Iterator[Entry | Missed]:
        """Yield one file or directory, unless a rule leaves it out; a directory becomes the innermost level."""
        mode = st.st_mode
        is_dir = stat.S_ISDIR(mode)
        rules = self._rules
        if stat.S_ISSOCK(mode):
            self._tally.sockets += 1
            return
        asked = path in rules.starts
        towards = path in rules.towards
        # The start itself is level 0, and called by name: it has no path below itself.
        below = level.below + name if self._levels else b""
        narrow = level.narrow and not asked
        if asked:
            self._tally.met.add(path)
        elif below and self._left_out(below, st):
            if not (is_dir and towards):
                return
            narrow = True
        if not is_dir:
            yield from self._file(level, name, path, st)
            return
        relative = level.relative + name
        try:
            xattrs = read_xattrs(_proc_path(level.fd, name))
        except OSError as error:
            yield _missed(path, error)
            return
        yield Entry(path, make_node(path.rpartition(b"/")[2], st, self._names, xattrs))
        if rules.one_file_system and not asked and st.st_dev != level.device:
            if not towards:
                return
            narrow = True
        child = _Level(-1, path.rstrip(b"/") + b"/", relative + b"/", below and below + b"/", (0, 0), st.st_dev, narrow)
        yield from self._enter(level, name, child, st)

    def _left_out(self, below: bytes, st: os.stat_result) -> bool:
        rules = self._rules
        mode = st.st_mode
        if rules.excluded is not None and rules.excluded(below, stat.S_ISDIR(mode)):
            return True
        return rules.larger_than is not None and stat.S_ISREG(mode) and st.st_size > rules.larger_than

    def _file(self, level: _Level, name: bytes, path: bytes, st: os.stat_result) -> Iterator[Entry | Missed]:
        last = path.rpartition(b"/")[2]
        if stat.S_ISREG(st.st_mode):
            node = make_node(last, st, self._names)
            yield Entry(path, node, change_key(node, KEY_FILE), level.relative + name, self._start.parent_fd)
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

    def _enter(self, level: _Level, name: bytes, child: _Level, st: os.stat_result) -> Iterator[Missed]:
        """Open a directory and make it the innermost level."""
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
        child.names = iter(listed)
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
                parent.names = iter(())
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
