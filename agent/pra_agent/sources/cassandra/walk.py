"""A Cassandra snapshot as entries: its directories are read, and named as if they were the tables' own.

`<data directory>/<keyspace>/<table>-<id>/snapshots/<tag>/<file>` becomes `/cassandra/data/<number>/<keyspace>/
<table>-<id>/<file>`. A snapshot's files are hard links of SSTables, which never change under their name.
"""

import json
import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from pra_agent.model.printable import printable
from pra_agent.sources.attributes import Names, make_node
from pra_agent.sources.source import KEY_LINK, Entry, Missed

ROOT = b"/cassandra"
DATA = b"/cassandra/data"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MANIFEST = b"manifest.json"
#: Made anew with each snapshot; what they say is stored once, beside the data.
_OWN = frozenset({_MANIFEST, b"schema.cql"})


@dataclass(frozen=True, slots=True)
class Found:
    """A table's directory below a data directory."""

    keyspace: bytes
    directory: bytes

    @property
    def table(self) -> str:
        """The table's name, without its id."""
        return os.fsdecode(self.directory.rpartition(b"-")[0])

    @property
    def key(self) -> tuple[str, str]:
        """Keyspace and id."""
        return os.fsdecode(self.keyspace), os.fsdecode(self.directory.rpartition(b"-")[2])


def table_directories(fd: int) -> Iterator[Found]:
    """Yield all directories of tables below an open data directory, sorted."""
    for keyspace in _directories(fd, b"."):
        for directory in _directories(fd, keyspace):
            if b"-" in directory:
                yield Found(keyspace, directory)


def snapshot_names(fd: int, found: Found) -> list[bytes]:
    """Name the Cassandra snapshots that a table has."""
    return _directories(fd, b"%s/%s/snapshots" % (found.keyspace, found.directory))


def _directories(fd: int, path: bytes) -> list[bytes]:
    try:
        with _deep(fd, path) as here, os.scandir(here) as entries:
            return sorted(os.fsencode(one.name) for one in entries if one.is_dir(follow_symlinks=False))
    except OSError:
        return []


@contextmanager
def _deep(fd: int, path: bytes) -> Generator[int, None, None]:
    """Open a directory below another, component by component: no symlinks."""
    here = os.open(b".", _OPEN, dir_fd=fd)
    try:
        for component in path.split(b"/"):
            deeper = os.open(component, _OPEN, dir_fd=here)
            os.close(here)
            here = deeper
        yield here
    finally:
        os.close(here)


@dataclass(slots=True)
class SnapshotWalk:
    """The walk over one Cassandra snapshot in all data directories; remembers what it met.

    `fds` are the data directories, open until the capture is left. `keeps` is asked for each table.
    """

    fds: Sequence[int]
    tag: bytes
    keeps: Callable[[Found], bool]
    names: Names = field(default_factory=Names)
    #: Tables whose snapshot was met, by keyspace and id.
    met: set[tuple[str, str]] = field(default_factory=lambda: set[tuple[str, str]]())
    #: SSTables that a manifest names, and those that were met: (table, name).
    promised: set[tuple[tuple[str, str], str]] = field(default_factory=lambda: set[tuple[tuple[str, str], str]]())
    given: set[tuple[tuple[str, str], str]] = field(default_factory=lambda: set[tuple[tuple[str, str], str]]())

    def entries(self) -> Iterator[Entry | Missed]:
        """Walk to the end."""
        for number, fd in enumerate(self.fds):
            keyspace = b""
            for found in table_directories(fd):
                if not self.keeps(found):
                    continue
                if found.keyspace != keyspace and self.tag in snapshot_names(fd, found):
                    keyspace = found.keyspace
                    above = os.stat(keyspace, dir_fd=fd, follow_symlinks=False)
                    yield Entry(b"%s/%d/%s" % (DATA, number, keyspace), make_node(keyspace, above, self.names))
                yield from self._table(number, fd, found)

    def _table(self, number: int, fd: int, found: Found) -> Iterator[Entry | Missed]:
        """Yield a table's directory and what its snapshot holds; nothing when it has none."""
        place = b"%s/%s" % (found.keyspace, found.directory)
        path = b"%s/%d/%s" % (DATA, number, place)
        relative = place + b"/snapshots/" + self.tag
        with ExitStack() as stack:
            try:
                here = stack.enter_context(_deep(fd, relative))
            except FileNotFoundError:
                return
            try:
                table = os.stat(place, dir_fd=fd, follow_symlinks=False)
                self.met.add(found.key)
                # Its own node: that of the snapshot's directory is new each time.
                yield Entry(path, make_node(found.directory, table, self.names))
                yield from self._files(found, here, (fd, relative), path)
            except OSError as error:
                yield Missed(printable(path), error.strerror or str(error))

    def _files(self, found: Found, here: int, place: tuple[int, bytes], path: bytes) -> Iterator[Entry | Missed]:
        """Yield what is in an open directory: files first, then directories of indexes."""
        dir_fd, relative = place
        deeper: list[bytes] = []
        for name in sorted(map(os.fsencode, os.listdir(here))):
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
            top = relative.endswith(self.tag)
            if stat.S_ISDIR(status.st_mode):
                deeper.append(name)
            elif not stat.S_ISREG(status.st_mode):
                yield Missed(printable(path + b"/" + name), "it is no regular file")
            elif name in _OWN and top:
                if name == _MANIFEST:
                    self.promised |= {(found.key, file) for file in _manifest(here)}
            else:
                self.given.add((found.key, os.fsdecode(name if top else relative.rpartition(b"/")[2] + b"/" + name)))
                # The live SSTable is the same file; to the snapshot it is a file of its own.
                node = replace(make_node(name, status, self.names), links=1, device_id=0)
                yield Entry(path + b"/" + name, node, KEY_LINK, relative + b"/" + name, dir_fd)
        for name in deeper:
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
            yield Entry(path + b"/" + name, make_node(name, status, self.names))
            with _deep(here, name) as below:
                yield from self._files(found, below, (dir_fd, relative + b"/" + name), path + b"/" + name)

    def missing(self) -> list[str]:
        """SSTables that the manifests name and that were not met, for people."""
        lost = self.promised - self.given
        return sorted(f"{keyspace} {identity}: {name}" for (keyspace, identity), name in lost)


def _manifest(here: int) -> list[str]:
    try:
        with os.fdopen(os.open(_MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here), "rb") as file:
            return [str(name).lstrip("/") for name in json.load(file).get("files", ())]
    except (OSError, ValueError):
        return []


def snapshot_bytes(fds: Sequence[int]) -> int:
    """Bytes that Cassandra snapshots alone hold: of files whose SSTable the node itself has dropped."""
    return sum(
        _lonely(fd, b"%s/%s/snapshots/%s" % (found.keyspace, found.directory, name))
        for fd in fds
        for found in table_directories(fd)
        for name in snapshot_names(fd, found)
    )


def _lonely(fd: int, place: bytes) -> int:
    """Bytes of the files in a directory that have no other link; one that is being cleared counts for what is left."""
    total = 0
    with suppress(OSError), _deep(fd, place) as here, os.scandir(here) as entries:
        for one in entries:
            status = one.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and os.fsencode(one.name) not in _OWN:
                total += status.st_size
    return total
