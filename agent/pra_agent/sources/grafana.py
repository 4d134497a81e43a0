"""Grafana's own data: its SQLite database by the backup API, and its directories (provisioning, plugins ...)."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import RefusedError, SourceError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.references import SecretRef
from pra_agent.sources import web
from pra_agent.sources.attributes import Names
from pra_agent.sources.exchange import Exchange, Service, swap, undo
from pra_agent.sources.scratch import Room
from pra_agent.sources.service import Probe, service_for
from pra_agent.sources.source import Capture, CaptureContext, Entry, Listing, Missed, ReinstateContext, StateBefore
from pra_agent.sources.sqlite import copied
from pra_agent.sources.walk import Rules, Start, Tally, Walker
from pra_agent.units import Duration

ROOT = b"/grafana"
DATABASE = b"/grafana/grafana.db"


class GrafanaSettings(BaseModel):
    """A Grafana of this host with its database in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["grafana"] = "grafana"
    url: str = "http://127.0.0.1:3000"
    database: Path = Path("/var/lib/grafana/grafana.db")
    directories: tuple[Path, ...] = Field(default=(), description="Provisioning, dashboards, plugins, grafana.ini ...")
    unit: str | None = Field(default=None, description="Its systemd unit, stopped and started by a restore.")
    container: str | None = Field(default=None, description="Its container, likewise.")
    docker: str | None = None
    ready_within: Duration = timedelta(minutes=5)

    def build(self, resolve: Callable[[SecretRef], str] | None = None) -> "GrafanaSource":  # noqa: ARG002 - the contract's
        """Make the source."""
        return GrafanaSource(self)


class GrafanaSource:
    """One Grafana. The data instant is the moment before its database is copied."""

    def __init__(self, settings: GrafanaSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(self, context: CaptureContext) -> Generator[Capture, None, None]:
        if context.scratch is None:
            raise SourceError("grafana needs a scratch directory", advice="Set limits.scratch in the configuration.")
        with ExitStack() as stack:
            capture = _GrafanaCapture(self._settings, context, context.scratch, self._clock.now())
            capture.open(stack)
            yield capture

    def undo(self, state: StateBefore) -> None:
        undo(state, lambda _facts: self._service(Event()))

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        chosen = self._settings
        restored = Path(context.restored)
        pairs = [(chosen.database, restored / os.fsdecode(DATABASE.lstrip(b"/")))]
        pairs += [(path, restored / os.fsdecode(_logical(path).lstrip(b"/"))) for path in chosen.directories]
        missing = [str(source) for _, source in pairs if not source.exists()]
        if missing:
            raise SourceError(f"the restored files lack {', '.join(missing)}", advice="Restore the whole job.")
        live = [str(target) for target, _ in pairs if target.exists()]
        if live and not context.force:
            raise RefusedError(f"{', '.join(live)} exists", advice="Replace it with --force.")
        if context.dry_run:
            return [f"would replace {target}" for target, _ in pairs]
        exchanges = [Exchange(target, source, context.run) for target, source in pairs]
        # The copy stands for the whole database; what its old journal holds must not be played into it.
        for beside in ("-wal", "-shm", "-journal"):
            old = chosen.database.with_name(chosen.database.name + beside)
            if old.exists():
                exchanges.append(Exchange(old, None, context.run))
        owner = chosen.database.stat() if chosen.database.exists() else chosen.database.parent.stat()
        os.chown(pairs[0][1], owner.st_uid, owner.st_gid)
        swap(exchanges, self._service(context.stop), context)
        return [f"grafana: {target} put back" for target, _ in pairs]

    def _service(self, stopped: Event) -> Service:
        chosen = self._settings
        url = f"{chosen.url.rstrip('/')}/api/health"
        probe = Probe(lambda: web.is_well(url), chosen.ready_within.total_seconds(), stopped)
        return service_for("Grafana", unit=chosen.unit, container=chosen.container, docker=chosen.docker, probe=probe)


@dataclass(slots=True)
class _GrafanaCapture:
    """The database's copy as a stream, then the directories."""

    settings: GrafanaSettings
    context: CaptureContext
    scratch: Room
    data_instant: datetime
    starts: list[Start] = field(default_factory=lambda: list[Start]())
    copied: bool = False

    @property
    def roots(self) -> Sequence[bytes]:
        return [DATABASE, *map(_logical, self.settings.directories)]

    def entries(self) -> Iterator[Entry | Missed | Listing]:
        path = self.settings.database
        try:
            st = path.stat()
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}", advice="Correct the job.") from error
        names = Names()
        when = int(self.data_instant.timestamp() * 1_000_000_000)
        node = Node(name=b"grafana.db", type=NodeType.FILE, mode=st.st_mode & 0o7777, uid=st.st_uid, gid=st.st_gid)
        node = _with_times(node, when, names)
        yield Entry(DATABASE, node, stream=partial(self._opened, path))
        tally = Tally()
        for start in self.starts:
            yield from Walker(start, Rules(), names, tally).entries()
        tally.tell(self.context.report)

    def _opened(self, path: Path) -> AbstractContextManager[BinaryIO]:
        self.copied = True
        return copied(path, self.scratch, f"{self.context.job}-{self.context.run}")

    def open(self, stack: ExitStack) -> None:
        """Open the directories until the stack is left; workers that are forked later have them, too."""
        for path in sorted(self.settings.directories):
            self.starts.append(self._start(path, stack))

    @staticmethod
    def _start(path: Path, stack: ExitStack) -> Start:
        directory, name = (path, b".") if path.is_dir() else (path.parent, os.fsencode(path.name))
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}", advice="Correct the job.") from error
        stack.callback(os.close, fd)
        return Start(fd, name, _logical(path))

    def verify(self) -> None:
        if not self.copied:
            raise SourceError("grafana's database was not copied")


def _logical(path: Path) -> bytes:
    return ROOT + b"/files" + os.fsencode(path)


def _with_times(node: Node, when: int, names: Names) -> Node:
    return replace(
        node, mtime=when, atime=when, ctime=when, links=1, user=names.user(node.uid), group=names.group(node.gid)
    )
