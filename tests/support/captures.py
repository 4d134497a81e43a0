"""Takes a source's capture to a directory and back, as the archiver and the restorer would."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from threading import Event

from pra_agent.model.nodes import NodeType
from pra_agent.sources.scratch import Room
from pra_agent.sources.source import CaptureContext, Entry, Listing, Missed, ReinstateContext, Source


class MemoryState:
    """The state before, in memory; `history` tells all that was ever remembered."""

    def __init__(self) -> None:
        self.now: dict[str, Mapping[str, object]] = {}
        self.history: list[str] = []

    def remember(self, key: str, data: Mapping[str, object]) -> None:
        self.now[key] = dict(data)
        self.history.append(key)

    def forget(self, key: str) -> None:
        self.now.pop(key, None)

    def pending(self) -> Mapping[str, Mapping[str, object]]:
        return dict(self.now)


def room(directory: str | Path, *, quota: int = 1 << 40, min_free: int = 0) -> Room:
    """Scratch that is as good as without limits."""
    return Room(Path(directory), quota, lambda _total: min_free)


def take(
    source: Source,
    target: Path,
    *,
    run: str = "run1",
    state: MemoryState | None = None,
    scratch: str = "",
    stop: Event | None = None,
) -> list[Missed]:
    """Capture everything below `target`, whole streams included; what was missed is returned."""
    missed: list[Missed] = []
    context = CaptureContext(
        run=run,
        job="job",
        node="node",
        state=state or MemoryState(),
        scratch=room(scratch) if scratch else None,
        stop=stop or Event(),
    )
    with source.capture(context) as capture:
        for entry in capture.entries():
            if isinstance(entry, Missed):
                missed.append(entry)
            elif isinstance(entry, Listing):
                for one in entry.entries():
                    if isinstance(one, Missed):
                        missed.append(one)
                    else:
                        write(one, target)
            else:
                write(entry, target)
        capture.verify()
    return missed


def write(entry: Entry, target: Path) -> None:
    """Write one entry below `target`."""
    path = target / os.fsdecode(entry.path.lstrip(b"/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.node.type is NodeType.DIR:
        path.mkdir(exist_ok=True)
    elif entry.node.type is NodeType.SYMLINK:
        path.symlink_to(os.fsdecode(entry.node.linktarget))
    elif entry.stream is not None:
        with entry.stream() as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file)
    elif entry.file is not None:
        opened = os.open(entry.file, os.O_RDONLY, dir_fd=entry.dir_fd)
        with os.fdopen(opened, "rb") as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file)
    elif entry.node.type is NodeType.FILE:
        path.write_bytes(b"")


def put_back(
    source: Source,
    restored: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    run: str = "restore1",
    state: MemoryState | None = None,
    options: Mapping[str, str] | None = None,
) -> list[str]:
    """Reinstate what `take` wrote."""
    context = ReinstateContext(
        run=run,
        job="job",
        restored=str(restored),
        state=state or MemoryState(),
        force=force,
        dry_run=dry_run,
        options=options or {},
    )
    return list(source.reinstate(context))
