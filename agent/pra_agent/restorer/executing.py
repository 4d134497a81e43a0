"""Executing a plan: directories, files as their blobs come, links, deletions, directory metadata, one sync."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Event

from pra_agent.errors import DamagedError, Interrupted, RestoreError
from pra_agent.model.events import FileFailed, Notice, Progress, Reporter, ignore
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import NodeType
from pra_agent.model.printable import printable
from pra_agent.model.runs import Failure
from pra_agent.model.snapshots import Divisible, SnapshotReader
from pra_agent.restorer.assembling import Assembler
from pra_agent.restorer.fetching import fetch
from pra_agent.restorer.finishing import finish_directories, link_files, remove_extra, sync
from pra_agent.restorer.metadata import take_away
from pra_agent.restorer.plan import Action, Directory, Plan
from pra_agent.restorer.reusing import Existing, extents
from pra_agent.restorer.sharing import Sharers, Shares
from pra_agent.restorer.target import DIRECTORY_FLAGS, Target, open_root, remove
from pra_agent.restorer.workers import Inline, Maker, Workers
from pra_agent.restorer.writing import FileWriter, stop_when_hopeless

#: Files are planned against blobs in windows of about this many, which bounds the memory for offsets.
_WINDOW_BLOBS = 50_000
#: From this size on a file is written by the process that read it: a pipe would only copy it.
_LARGE = 128 * 1024
_WORTH_FORKING = 2000
_WORKERS = 2
_NEW = frozenset({Action.CREATE, Action.REPLACE})


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `bytes` were written, `bytes_reused` were found in place; `files` excludes directories.

    `linked` are further names of files, `kept` files that were as they should be.
    """

    files: int = 0
    linked: int = 0
    bytes: int = 0
    bytes_reused: int = 0
    kept: int = 0
    deleted: int = 0
    failures: list[Failure] = field(default_factory=lambda: list[Failure]())


def execute(plan: Plan, reader: SnapshotReader, *, report: Reporter = ignore, stop: Event | None = None) -> Restored:
    """Do what the plan says.

    What fails is reported, counted and named in the result, and the rest is restored. Raises RestoreError when
    nothing can be restored (no target, no room), Interrupted when `stop` is set; both leave a state that the same
    restore goes on from.
    """
    root = open_root(os.fsencode(plan.request.target), create=True)
    if root is None:
        raise RestoreError(f"cannot restore to {plan.request.target}")
    execution = _Execution(plan, reader, root, report, stop or Event())
    try:
        return execution.run()
    finally:
        execution.close()
        os.close(root)


@dataclass(slots=True)
class _Needs:
    """What a window of files needs: blob id to files that it is the whole of, or to places in larger files."""

    whole: dict[bytes, list[int]] = field(default_factory=lambda: dict[bytes, list[int]]())
    several: list[int] = field(default_factory=lambda: list[int]())
    parts: dict[bytes, list[tuple[int, int]]] = field(default_factory=lambda: dict[bytes, list[tuple[int, int]]]())


class _Execution:
    def __init__(self, plan: Plan, reader: SnapshotReader, root: int, report: Reporter, stop: Event) -> None:
        self._plan = plan
        self._reader = reader
        self._root = root
        self._report = report
        self._stop = stop
        self._target = Target(root, plan.directories)
        self._writer = FileWriter(plan, self._target)
        self._assembler = Assembler(self._writer)
        self._maker: Maker = Inline(self._writer)
        self._divisible = reader if isinstance(reader, Divisible) else None
        self._sharers: Sharers | None = None
        self._failures: list[Failure] = []
        self._failed = set[int]()
        self._files = self._bytes = self._reused = 0
        self._bytes_total = plan.size

    def close(self) -> None:
        """Close what is open and end the children; harmless after a whole run."""
        if self._sharers is not None:
            self._sharers.abandon()
        self._maker.abandon()
        self._assembler.abandon()
        self._target.close()

    def run(self) -> Restored:
        plan = self._plan
        for conflict in plan.conflicts:
            self._fail(conflict.path, conflict.reason)
        self._check_room()
        self._make_directories()
        if len(plan.items) >= _WORTH_FORKING and not self._shared():
            self._target.close()
            self._maker = Workers(_WORKERS, self._writer, self._root, lambda index: plan.items[index].directory)
        self._make_files()
        self._settle()
        touched = {item.directory for item in plan.items} | {each.directory for each in plan.deletions}
        unlinked = self._failures_of(link_files(plan, self._target, self._writer))
        undeleted = self._failures_of(remove_extra(plan, self._target))
        self._failures_of(finish_directories(plan, self._target, self._writer.metadata, touched))
        sync(plan, self._target)
        self._notices()
        self._progress(plan.files)
        links = sum(item.link is not None for item in plan.items)
        return Restored(
            files=len(plan.items) - links - len(self._failed),
            linked=links - unlinked,
            bytes=self._bytes,
            bytes_reused=self._reused,
            kept=plan.kept,
            deleted=len(plan.deletions) - undeleted,
            failures=self._failures,
        )

    def _check_room(self) -> None:
        for index, needed in self._plan.room.items():
            try:
                status = os.fstatvfs(self._target.fd(index))
            except OSError:  # not made yet: on the file system of what is above it
                status = os.fstatvfs(self._root)
            free = status.f_bavail * status.f_frsize
            if free < needed:
                raise RestoreError(
                    f"{self._plan.request.target} needs {needed} bytes of room and has {free}",
                    advice="Make room there, or restore to another place; nothing was changed.",
                )

    def _make_directories(self) -> None:
        for index, directory in enumerate(self._plan.directories):
            if index and directory.action in _NEW:
                self._stop_if_asked()
                try:
                    self._make_directory(directory)
                except OSError as error:
                    stop_when_hopeless(error, self._plan.request.target)
                    self._fail(directory.path, error.strerror or str(error))

    def _make_directory(self, directory: Directory) -> None:
        parent = self._target.fd(directory.parent)
        if directory.action is Action.REPLACE:
            remove(parent, directory.name)
        with suppress(FileExistsError):  # if it is no directory, opening it fails
            os.mkdir(directory.name, 0o700, dir_fd=parent)
        made = os.open(directory.name, DIRECTORY_FLAGS, dir_fd=parent)
        try:
            if self._plan.directories[directory.parent].action not in _NEW:
                take_away(made)  # default access lists that are inherited from above
        finally:
            os.close(made)

    def _make_files(self) -> None:
        for window in self._windows():
            needs = _Needs()
            for index in window:
                self._stop_if_asked()
                self._enter(index, needs)
            self._fetch_sizes(needs)
            self._share_out(needs)
            self._fetch(needs)

    def _windows(self) -> Iterator[list[int]]:
        """Split the items that are no links into runs of a bounded number of blobs."""
        window: list[int] = []
        blobs = 0
        for index, item in enumerate(self._plan.items):
            if item.link is None:
                window.append(index)
                blobs += 1 + len(item.node.content or ())
                if blobs >= _WINDOW_BLOBS:
                    yield window
                    window, blobs = [], 0
        if window:
            yield window

    def _enter(self, index: int, needs: _Needs) -> None:
        item = self._plan.items[index]
        content = item.node.content or ()
        if item.action is Action.UPDATE or item.node.type is not NodeType.FILE or not content:
            self._make(index, b"")
        elif len(content) == 1 and item.action is Action.CREATE:
            needs.whole.setdefault(content[0], []).append(index)
        else:
            needs.several.append(index)

    def _fetch_sizes(self, needs: _Needs) -> None:
        """Find out where the blobs of larger files go, and which of them are there already."""
        items = self._plan.items
        handles = {
            BlobHandle(BlobType.DATA, blob) for index in needs.several for blob in items[index].node.content or ()
        }
        sizes: Mapping[BlobHandle, int] = self._reader.sizes(handles) if handles else {}
        for index in needs.several:
            self._stop_if_asked()
            self._begin(index, sizes, needs)

    def _begin(self, index: int, sizes: Mapping[BlobHandle, int], needs: _Needs) -> None:
        item = self._plan.items[index]
        content = item.node.content or ()
        lengths: list[int] = []
        for blob in content:
            size = sizes.get(BlobHandle(BlobType.DATA, blob))
            if size is None:
                self._fail_item(index, f"blob {blob.hex()} is missing from the repository")
                return
            lengths.append(size)
        places = extents(content, lengths)
        total = sum(lengths)
        if item.action is Action.CREATE:
            self._assembler.begin(index, item, total, len(places))
        else:
            existing = Existing(self._target, item)
            try:
                found = {extent for extent, _ in existing.matching(places)}
                if len(found) == len(places) and existing.size == total and not existing.shared:
                    self._reuse(index, total)
                    return
                self._assembler.begin(index, item, total, len(places))
                for extent, data in existing.matching(sorted(found)):
                    places.remove(extent)
                    self._reused += len(data)
                    self._assembler.write(index, extent[1], data)
            finally:
                existing.close()
        for position, offset, _ in places:
            needs.parts.setdefault(content[position], []).append((index, offset))

    def _reuse(self, index: int, total: int) -> None:
        """Leave the content, which is the snapshot's already, and set the metadata."""
        try:
            self._writer.update(self._plan.items[index])
        except OSError as error:
            self._writer.failed(index, error)
        self._reused += total

    def _shared(self) -> bool:
        """Whether forked processes can read for themselves."""
        if self._divisible is None:
            return False
        first = next((item.node.content[0] for item in self._plan.items if item.node.content), None)
        with suppress(DamagedError):
            return first is not None and bool(self._divisible.shares([BlobHandle(BlobType.DATA, first)]))
        return False

    def _share_out(self, needs: _Needs) -> None:
        """Have children read and write the files of one blob, where there are many and the reader can be forked."""
        if self._divisible is None or len(needs.whole) < _WORTH_FORKING:
            return
        try:
            shares = self._divisible.shares([BlobHandle(BlobType.DATA, blob) for blob in needs.whole])
        except DamagedError:  # one by one, then: the others are restored
            return
        if not shares:
            return
        self._target.close()
        work = Shares(self._reader, shares, needs.whole)
        self._sharers = Sharers(_WORKERS, self._writer, self._root, work)
        tally = self._sharers.run(self._made, self._stop_if_asked)
        self._sharers = None
        self._writer.take_over(tally)
        needs.whole = {}

    def _made(self, files: int, size: int) -> None:
        self._files += files
        self._bytes += size
        self._progress(self._files)

    def _fetch(self, needs: _Needs) -> None:
        handles = {BlobHandle(BlobType.DATA, blob) for blob in needs.whole.keys() | needs.parts.keys()}
        with closing(fetch(self._reader, handles)) as blobs:
            for handle, data in blobs:
                self._stop_if_asked()
                if isinstance(data, DamagedError):
                    self._lost(needs, handle.id, data)
                else:
                    self._deliver(needs, handle.id, data)

    def _deliver(self, needs: _Needs, blob: bytes, data: bytes) -> None:
        for index in needs.whole.get(blob, ()):
            self._make(index, data)
        for index, offset in needs.parts.get(blob, ()):
            self._assembler.write(index, offset, data)
            self._bytes += len(data)
        if len(data) >= _LARGE:
            self._progress(self._files + self._assembler.finished)

    def _lost(self, needs: _Needs, blob: bytes, error: DamagedError) -> None:
        for index in needs.whole.get(blob, ()):
            self._fail_item(index, error.message)
        for index, _ in needs.parts.get(blob, ()):
            self._assembler.fail(index, OSError(0, error.message))

    def _make(self, index: int, data: bytes) -> None:
        if len(data) >= _LARGE:
            self._writer.make(index, data)
        else:
            self._maker.make(index, data)
        self._bytes += len(data)
        self._files += 1
        if self._files % 256 == 0:
            self._progress(self._files)

    def _settle(self) -> None:
        """Wait for the children, and take over what failed."""
        tally = self._maker.finish()
        self._maker = Inline(self._writer)
        self._writer.take_over(tally)
        for index, reason in self._writer.failures:
            self._fail_item(index, reason)
        self._writer.failures.clear()

    def _failures_of(self, failures: Iterable[Failure]) -> int:
        count = 0
        for failure in failures:
            self._stop_if_asked()
            self._failures.append(failure)
            self._report(FileFailed(failure.path, failure.reason))
            count += 1
        return count

    def _fail_item(self, index: int, reason: str) -> None:
        self._failed.add(index)
        self._fail(self._plan.path(self._plan.items[index]), reason)

    def _fail(self, path: bytes, reason: str) -> None:
        failure = Failure(printable(path) or "/", reason)
        self._failures.append(failure)
        self._report(FileFailed(failure.path, failure.reason))

    def _stop_if_asked(self) -> None:
        if self._stop.is_set():
            raise Interrupted("the restore was stopped")

    def _progress(self, files: int) -> None:
        self._report(
            Progress(
                "restore",
                files_done=files,
                files_total=self._plan.files,
                bytes_done=self._bytes + self._reused,
                bytes_total=self._bytes_total,
            )
        )

    def _notices(self) -> None:
        metadata = self._writer.metadata
        if metadata.owners_refused:
            self._report(Notice(f"owners of {metadata.owners_refused} files were not set: that takes root", "warning"))
        if metadata.attributes_refused:
            count = metadata.attributes_refused
            self._report(Notice(f"some extended attributes of {count} files could not be set", "warning"))
