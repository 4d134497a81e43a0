"""Trees with everything in them that a backup can meet, and a comparison of trees that misses nothing."""

# Raw names by descriptors are the point, and a seeded generator makes the same bytes again.
# ruff: noqa: PTH101, PTH102, PTH109, PTH123, PTH211

import errno
import os
import random
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

#: 1969, a leap second's eve, the far future: what file systems can hold and programs cannot.
TIMES = (1, 999_999_999, 1_483_228_799_123_456_789, 4_102_444_800_000_000_001, 1_700_000_000_000_000_000)


@dataclass(frozen=True)
class Nasty:
    """What `make_nasty_tree` could make with its caller's rights."""

    root: Path
    devices: bool
    owners: bool
    acls: bool
    xattrs: bool


def make_nasty_tree(root: Path, *, depth: int = 300, many: int = 300, large: int = 3 << 20) -> Nasty:
    """Make every kind of file below `root` (which is made as well); the same bytes each time."""
    root.mkdir(parents=True)
    base = os.fsencode(root)
    rng = random.Random(7)
    _contents(base, rng, large)
    _names(base)
    _kinds(base)
    _modes(base)
    _links(base)
    deep = _deep(base, depth)
    crowd = base + b"/crowd"
    os.mkdir(crowd)
    for number in range(many):
        _write(crowd + b"/f%05d" % number, b"%d\n" % (number % 50))
    xattrs = _xattrs(base)
    acls = _acls(base)
    devices = _devices(base)
    owners = _owners(base)
    _times(base)
    assert deep >= depth
    return Nasty(root, devices, owners, acls, xattrs)


def _write(path: bytes, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _contents(base: bytes, rng: random.Random, large: int) -> None:
    where = base + b"/contents"
    os.mkdir(where)
    _write(where + b"/empty", b"")
    _write(where + b"/one", b"x")
    _write(where + b"/random", rng.randbytes(large))
    _write(where + b"/text", b"".join(b"line %d of a text\n" % number for number in range(large // 24)))
    _write(where + b"/zeros", bytes(large))
    block = rng.randbytes(1 << 19)
    _write(where + b"/repeats", block * 4)
    for size in ((1 << 19) - 1, 1 << 19, (1 << 19) + 1):
        _write(where + b"/size%d" % size, block[:1] * size)
    fd = os.open(where + b"/sparse", os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(fd, b"start", 0)
    os.pwrite(fd, b"middle", 40 << 20)
    os.ftruncate(fd, 70 << 20)
    os.close(fd)
    fd = os.open(where + b"/hole", os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(fd, 33 << 20)
    os.close(fd)


def _names(base: bytes) -> None:
    where = base + b"/names"
    os.mkdir(where)
    for name in (
        b"plain",
        b" leading and trailing ",
        b"-rf",
        b"new\nline",
        b"tab\there",
        b"back\\slash",
        b"\\x41",
        b"quote\"s'",
        b"percent%20<&>",
        b"star*?[x]",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"nbsp\xc2\xa0",
        b"zero\xe2\x80\x8bwidth",
        b"line\xe2\x80\xa8sep",
        b"emoji\xf0\x9f\x90\x99",
        b"latin\xe9",
        b"\xff\xfe\xfd",
        b"half\xc3",
        b"surrogate\xed\xa0\x80",
        b"control\x01\x1b[31m\x7f",
        b"...",
        b".hidden",
        b"a.b",
        b"a",
        b"a-",
        b"a0",
        b"A",
        b"n" * 255,
    ):
        _write(where + b"/" + name, name)
    for name in (b"dir\xff", b"dir\n", b"a+", b"a!"):
        os.mkdir(where + b"/" + name)
        _write(where + b"/" + name + b"/inside", name)
    os.mkdir(where + b"/empty directory")


def _kinds(base: bytes) -> None:
    where = base + b"/kinds"
    os.mkdir(where)
    os.symlink(b"../contents/one", where + b"/link")
    os.symlink(b"/nowhere/at all", where + b"/dangling")
    os.symlink(b"..", where + b"/link to directory")
    os.symlink(b"link loop", where + b"/link loop")
    os.symlink(b"target\xff\xfe", where + b"/link to raw name")
    os.symlink(b"t" * 1000, where + b"/long link")
    os.mkfifo(where + b"/fifo", 0o640)
    here = os.getcwd()
    os.chdir(where)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind("socket")
    finally:
        os.chdir(here)


def _modes(base: bytes) -> None:
    where = base + b"/modes"
    os.mkdir(where)
    for mode in (0o000, 0o400, 0o4755, 0o2755, 0o1777, 0o7777, 0o611):
        path = where + b"/file%04o" % mode
        _write(path, b"%o" % mode)
        os.chmod(path, mode)
    for mode in (0o700, 0o1777, 0o2775, 0o7777, 0o555):
        path = where + b"/dir%04o" % mode
        os.mkdir(path)
        _write(path + b"/inside", b"%o" % mode)
        os.chmod(path, mode)


def _links(base: bytes) -> None:
    where = base + b"/links"
    os.mkdir(where)
    os.mkdir(where + b"/other")
    _write(where + b"/first", b"one content, three names")
    os.link(where + b"/first", where + b"/second")
    os.link(where + b"/first", where + b"/other/third")
    _write(where + b"/empty", b"")
    os.link(where + b"/empty", where + b"/other/empty too")
    os.mkfifo(where + b"/fifo")
    os.link(where + b"/fifo", where + b"/fifo too")
    os.symlink(b"first", where + b"/symlink")
    os.link(where + b"/symlink", where + b"/symlink too", follow_symlinks=False)


def _deep(base: bytes, depth: int) -> int:
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for level in range(depth):
            name = b"level%d" % level
            os.mkdir(name, dir_fd=fd)
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = deeper
            if level % 50 == 0 or level == depth - 1:
                with open(os.open(b"file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd), "wb") as file:
                    file.write(name)
    finally:
        os.close(fd)
    return depth


def _xattrs(base: bytes) -> bool:
    where = base + b"/xattrs"
    os.mkdir(where)
    _write(where + b"/file", b"x")
    try:
        os.setxattr(where + b"/file", b"user.plain", b"value")
    except OSError:
        return False
    os.setxattr(where + b"/file", b"user.binary", bytes(range(256)))
    os.setxattr(where + b"/file", b"user.empty", b"")
    os.setxattr(where + b"/file", b"user.caf\xc3\xa9", b"name")
    os.setxattr(where, b"user.on directory", b"value")
    with suppress(OSError):
        os.symlink(b"file", where + b"/link")
        os.setxattr(where + b"/link", b"trusted.on.link", b"value", follow_symlinks=False)
    with suppress(OSError):
        # cap_net_bind_service=ep, revision 2.
        capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
        os.setxattr(where + b"/file", b"security.capability", capability)
    return True


def _acls(base: bytes) -> bool:
    where = base + b"/acls"
    os.mkdir(where)
    _write(where + b"/file", b"x")

    def acl(*entries: tuple[int, int, int]) -> bytes:
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)

    nobody = 0xFFFFFFFF
    text = acl((1, 6, nobody), (2, 4, 65534), (4, 4, nobody), (0x10, 4, nobody), (0x20, 0, nobody))
    try:
        os.setxattr(where + b"/file", b"system.posix_acl_access", text)
        os.setxattr(where, b"system.posix_acl_default", text)
    except OSError:
        return False
    return True


def _devices(base: bytes) -> bool:
    try:
        os.mknod(base + b"/kinds/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(base + b"/kinds/block", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    except PermissionError:
        return False
    return True


def _owners(base: bytes) -> bool:
    where = base + b"/owners"
    os.mkdir(where)
    try:
        for uid, gid in ((1, 1), (65534, 65534), (0, 123_456), (4_000_000_000, 4_000_000_001)):
            path = where + b"/u%d-g%d" % (uid, gid)
            _write(path, b"owned")
            os.chown(path, uid, gid)
        os.chown(base + b"/kinds/dangling", 12, 34, follow_symlinks=False)
    except PermissionError:
        return False
    return True


def _times(base: bytes) -> None:
    where = base + b"/times"
    os.mkdir(where)
    for number, time in enumerate(TIMES):
        path = where + b"/t%d" % number
        _write(path, b"")
        os.utime(path, ns=(time, time))
    os.utime(base + b"/kinds/link", ns=(TIMES[2], TIMES[2]), follow_symlinks=False)
    os.utime(base + b"/kinds/fifo", ns=(TIMES[3], TIMES[3]))
    for name in (b"/names/empty directory", b"/links/other", b"/modes", b"/times", b""):
        os.utime(base + name, ns=(TIMES[4] + 7, TIMES[4] + 7))


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Compared:
    """What a comparison looks at beyond names, types and bytes; `links` are hard-link groups."""

    sockets: bool = True
    modes: bool = True
    owners: bool = True
    times: bool = True
    xattrs: bool = True
    links: bool = True
    #: Types whose hard links count.
    linked: frozenset[int] = frozenset((stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO))
    sparse: bool = False
    raw_link_targets: bool = True
    link_xattrs: bool = True
    #: Extended attributes that do not count.
    lost_xattrs: frozenset[str] = frozenset()
    ignore: frozenset[bytes] = frozenset()


EVERYTHING = Compared()
#: What stock restic 0.14 can bring back.
STOCK = Compared(
    sockets=False,
    linked=frozenset((stat.S_IFREG,)),
    raw_link_targets=False,
    link_xattrs=False,
    lost_xattrs=frozenset(("trusted.on.link",)),  # it gives those of a symlink to what the link leads to
)


def compare_trees(a: Path, b: Path, what: Compared = EVERYTHING) -> list[str]:
    """Compare two trees (or files); a list of differences, each one line, empty when they are equal."""
    left, right = _scan(a), _scan(b)
    if not what.sockets:
        left = {path: st for path, st in left.items() if not stat.S_ISSOCK(st.st_mode)}
        right = {path: st for path, st in right.items() if not stat.S_ISSOCK(st.st_mode)}
    left = {path: st for path, st in left.items() if path not in what.ignore}
    right = {path: st for path, st in right.items() if path not in what.ignore}
    found = [f"only in {a}: {path!r}" for path in sorted(left.keys() - right.keys())]
    found += [f"only in {b}: {path!r}" for path in sorted(right.keys() - left.keys())]
    for path in sorted(left.keys() & right.keys()):
        with _Opened(a, path) as one, _Opened(b, path) as other:
            found += [f"{path!r}: {text}" for text in _differences(one, other, left[path], right[path], what)]
    if what.links:
        groups = _link_groups(left, what) ^ _link_groups(right, what)
        found += [f"hard links differ: {sorted(group)!r}" for group in groups]
    return found


class _Opened:
    """A file by the directory that it is in, so that neither depth nor names matter."""

    def __init__(self, root: Path, path: bytes) -> None:
        self._root = os.fsencode(root)
        self._path = path
        self.fd = -1
        self.name = b""

    def __enter__(self) -> Self:
        if not self._path:
            parent, _, self.name = self._root.rpartition(b"/")
            self.fd = os.open(parent or b"/", os.O_RDONLY | os.O_DIRECTORY)
            return self
        *directories, self.name = self._path.split(b"/")
        self.fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        for name in directories:
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)
            os.close(self.fd)
            self.fd = deeper
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @property
    def proc(self) -> bytes:
        return b"/proc/self/fd/%d/%s" % (self.fd, self.name)


def _scan(root: Path) -> dict[bytes, os.stat_result]:
    found: dict[bytes, os.stat_result] = {b"": os.lstat(root)}
    if not stat.S_ISDIR(found[b""].st_mode):
        return found
    # Depth-first by descriptors; each open directory with the names that are left in it.
    stack: list[tuple[int, bytes, list[bytes]]] = []

    def enter(fd: int, path: bytes) -> None:
        stack.append((fd, path, sorted(map(os.fsencode, os.listdir(fd)))))

    enter(os.open(root, os.O_RDONLY | os.O_DIRECTORY), b"")
    while stack:
        fd, path, names = stack[-1]
        if not names:
            os.close(fd)
            stack.pop()
            continue
        name = names.pop()
        here = path + b"/" + name if path else name
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        found[here] = st
        if stat.S_ISDIR(st.st_mode):
            enter(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd), here)
    return found


def _differences(one: _Opened, other: _Opened, a: os.stat_result, b: os.stat_result, what: Compared) -> Iterable[str]:
    if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
        yield f"type {stat.S_IFMT(a.st_mode):o} != {stat.S_IFMT(b.st_mode):o}"
        return
    checks: list[tuple[bool, str, Callable[[os.stat_result], object]]] = [
        (what.modes, "mode", lambda st: oct(st.st_mode)),
        (what.owners, "owner", lambda st: (st.st_uid, st.st_gid)),
        (what.times, "mtime", lambda st: st.st_mtime_ns),
        (stat.S_ISBLK(a.st_mode) or stat.S_ISCHR(a.st_mode), "device", lambda st: st.st_rdev),
        (stat.S_ISREG(a.st_mode), "size", lambda st: st.st_size),
    ]
    for wanted, name, value in checks:
        if wanted and value(a) != value(b):
            yield f"{name} {value(a)} != {value(b)}"
    if stat.S_ISLNK(a.st_mode):
        targets = [os.readlink(each.name, dir_fd=each.fd) for each in (one, other)]
        if targets[0] != targets[1] and (what.raw_link_targets or _is_text(targets[0])):
            yield f"link target {targets[0]!r} != {targets[1]!r}"
    elif stat.S_ISREG(a.st_mode):
        yield from _content_differences(one, other, a, b, what)
    if what.xattrs and (what.link_xattrs or not stat.S_ISLNK(a.st_mode)):
        left, right = _xattrs_of(one, what.lost_xattrs), _xattrs_of(other, what.lost_xattrs)
        if left != right:
            yield f"xattrs {left} != {right}"


def _content_differences(
    one: _Opened, other: _Opened, a: os.stat_result, b: os.stat_result, what: Compared
) -> Iterable[str]:
    if a.st_size == b.st_size and (place := _first_difference(one, other)) >= 0:
        yield f"bytes differ from {place} on"
    if what.sparse and b.st_blocks > a.st_blocks + 64:
        yield f"takes {b.st_blocks} blocks instead of {a.st_blocks}"


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_difference(one: _Opened, other: _Opened) -> int:
    """Where two files of the same size differ; -1 when they do not. Holes in both are not read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW
    a, b = (os.open(each.name, flags, dir_fd=each.fd) for each in (one, other))
    try:
        position, size = 0, os.fstat(a).st_size
        while position < size:
            start = min(_next_data(a, position, size), _next_data(b, position, size))
            left, right = os.pread(a, 1 << 20, start), os.pread(b, 1 << 20, start)
            if left != right:
                return next((start + i for i, (x, y) in enumerate(zip(left, right, strict=False)) if x != y), start)
            position = start + max(1, len(left))
    finally:
        os.close(a)
        os.close(b)
    return -1


def _next_data(fd: int, position: int, size: int) -> int:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise


def _xattrs_of(file: _Opened, without: frozenset[str]) -> dict[str, bytes]:
    try:
        names = os.listxattr(file.proc, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {name: os.getxattr(file.proc, name, follow_symlinks=False) for name in names if name not in without}


def _link_groups(tree: dict[bytes, os.stat_result], what: Compared) -> set[frozenset[bytes]]:
    groups: dict[tuple[int, int], set[bytes]] = {}
    for path, st in tree.items():
        if st.st_nlink > 1 and stat.S_IFMT(st.st_mode) in what.linked:
            groups.setdefault((st.st_dev, st.st_ino), set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}
