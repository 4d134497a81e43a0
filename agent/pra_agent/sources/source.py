"""The contract of a source: capture yields entries, reinstate puts restored files back into service.

Sources know no repository. Adding one is one module here and its line in the config union.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Event
from typing import BinaryIO, Protocol, runtime_checkable

from pra_agent.model.events import Reporter, ignore
from pra_agent.model.nodes import Node
from pra_agent.sources.scratch import Room


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to save.

    `path` is the logical path: absolute, raw bytes, components joined by b"/"; parents need not be yielded
    (missing ones are made up), but a directory that is must come before what is in it.
    `node` is its metadata (name, type, mode, times, owner ...) without content and subtree.
    `change_key` decides whether the content is that of the parent snapshot: a kind of key (`KEY_FILE` ...), or a key
    that `change_key()` made from this node or another; b"" means always read.
    `file` is the real path to open for a regular file, relative to `dir_fd` if that is given: the descriptor of a
    directory that has been open since the capture was entered (worker processes inherit it) and stays open until it
    is left. Nothing below `dir_fd` is reached through a symlink. The archiver reads the extended attributes of a
    `file` itself, from the descriptor that it reads the content from.
    `stream` opens anything else that is read to its end (a dump's stdout); leaving it without an error asserts that
    the stream was complete; the size of the node is what was read. Neither: no content.
    """

    path: bytes
    node: Node
    change_key: bytes = b""
    file: bytes | None = None
    dir_fd: int | None = None
    stream: "Opener | None" = None


class Opener(Protocol):
    """Opens a stream; its exit raises `SourceError` when what was read is not the whole."""

    def __call__(self) -> AbstractContextManager[BinaryIO]: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """All that one directory holds but directories, in one item: a way around looking at each unchanged file.

    It comes after the directory's own entry, before anything below it. `digest` stands for names and status of it all:
    equal digests mean that nothing was touched. `files` and `others` are how many regular files and other things
    there are, `size` the bytes of the files. `entries` yields them one by one; it can be called until the next item
    is taken from the capture.
    """

    path: bytes
    digest: bytes
    files: int
    others: int
    size: int
    entries: "Callable[[], Iterator[Entry | Missed]]"


@dataclass(frozen=True, slots=True)
class Missed:
    """Something that could not be captured: its printable path and why. Makes the run partial."""

    path: str
    reason: str


class Capture(Protocol):
    """A consistent view of a source while its context is open.

    `entries` is walked once, to its end. `roots` are the logical paths that the snapshot names as its `paths`.
    `data_instant` is valid once the context is entered. `verify` is called after the last entry was stored and raises
    `SourceError` when what must have been yielded was not.
    """

    @property
    def data_instant(self) -> datetime: ...

    @property
    def roots(self) -> Sequence[bytes]: ...

    def entries(self) -> Iterator[Entry | Missed | Listing]: ...

    def verify(self) -> None: ...


@runtime_checkable
class Telling(Protocol):
    """A capture that has something to say in the run's record: plain JSON, valid once the context is entered."""

    @property
    def detail(self) -> Mapping[str, object]: ...


def flattened(items: Iterable[Entry | Missed | Listing]) -> Iterator[Entry | Missed]:
    """Yield what a capture yields with each listing taken apart."""
    for item in items:
        if isinstance(item, Listing):
            yield from item.entries()
        else:
            yield item


def rekeyed(items: "Iterable[Entry | Missed | Listing]", key: bytes) -> "Iterator[Entry | Missed]":
    """Yield what a walk yields, its files with another kind of change key (`KEY_LINK` ...)."""
    for item in flattened(items):
        yield replace(item, change_key=key) if isinstance(item, Entry) and item.file is not None else item


#: Size, mtime, ctime and inode: files in place.
KEY_FILE = b"f"
#: Size, mtime and inode: hard links, whose ctime changes with the number of links (Cassandra snapshots).
KEY_LINK = b"l"
#: Size and mtime: files that are never changed under their name, copied anew for each capture.
KEY_NAME = b"n"


def change_key(node: Node, kind: bytes = KEY_FILE) -> bytes:
    """Make the change key of a file from its node; `kind` says which of its fields must stay as they are.

    It is made from the node alone, so that the archiver can make the same key from the parent snapshot's node, and
    nothing else has to be kept.
    """
    if kind == KEY_FILE:
        return b"f%d.%d.%d.%d" % (node.size, node.mtime, node.ctime, node.inode)
    if kind == KEY_LINK:
        return b"l%d.%d.%d" % (node.size, node.mtime, node.inode)
    if kind == KEY_NAME:
        return b"n%d.%d" % (node.size, node.mtime)
    raise ValueError(f"no kind of change key: {kind!r}")


def unchanged(entry: Entry, before: Node) -> bool:
    """Tell whether a file's content is that of `before`, by the entry's change key."""
    key, node = entry.change_key, entry.node
    if len(key) > 1:
        return key == change_key(before, key[:1])
    return (
        bool(key)
        and node.mtime == before.mtime
        and node.size == before.size
        and (key == KEY_NAME or node.inode == before.inode)
        and (key != KEY_FILE or node.ctime == before.ctime)
    )


class StateBefore(Protocol):
    """Where a capture journals what it is about to change; durable when `remember` returns."""

    def remember(self, key: str, data: Mapping[str, object]) -> None:
        """Write down the state before, under a key that is unique within the job; replaces what was there."""
        ...

    def forget(self, key: str) -> None:
        """The state before has been put back."""
        ...

    def pending(self) -> Mapping[str, Mapping[str, object]]:
        """All that is remembered for this job."""
        ...


@dataclass(frozen=True, slots=True)
class CaptureContext:
    """What a run gives a source. `run` is the run's id; `stop` is set when the run is to end early.

    `scratch` is room for what must be copied before it is read; None: there is none.
    """

    run: str
    job: str
    node: str
    state: StateBefore
    report: Reporter = ignore
    scratch: Room | None = None
    stop: Event = field(default_factory=Event)
    #: Paths that are never captured: the local repository, the state directory, scratch.
    never: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class ReinstateContext:
    """What a restore gives a source.

    `restored` is a directory that holds the snapshot's files below their logical paths.

    `options` are the source's own choices (another database name, a rename pattern, a plan ...); `force` allows
    overwriting live data (what was there is kept beside).
    """

    run: str
    job: str
    restored: str
    state: StateBefore
    force: bool = False
    dry_run: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    report: Reporter = ignore
    stop: Event = field(default_factory=Event)


class Source(Protocol):
    """A configured source. `capture` may be entered once."""

    def capture(self, context: CaptureContext) -> AbstractContextManager[Capture]:
        """Enter a consistent view; leaving it puts the component back as it was, also after an error."""
        ...

    def undo(self, state: StateBefore) -> None:
        """Put back what a crashed capture left behind (`state.pending()`); harmless when there is nothing."""
        ...

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        """Put restored files into service; returns one line for each thing done. Files: nothing to do."""
        ...
