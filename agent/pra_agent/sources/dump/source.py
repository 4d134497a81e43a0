"""The source of a dump: streams in, streams out, and nothing left behind."""

import contextlib
import io
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, cast

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import RefusedError, SourceError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.references import SecretRef
from pra_agent.sources.dump import sqlite
from pra_agent.sources.dump.custom import CustomPreset
from pra_agent.sources.dump.mysql import MysqlPreset
from pra_agent.sources.dump.postgresql import PostgresqlPreset
from pra_agent.sources.dump.preset import Part, Preset, Runner
from pra_agent.sources.dump.redis import RedisPreset
from pra_agent.sources.dump.runners import runner_for
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.dump.stream import demanding
from pra_agent.sources.source import Capture, CaptureContext, Entry, Missed, ReinstateContext, StateBefore

_PASSWORD_VARIABLES = {
    "mariadb": "MYSQL_PWD",
    "mysql": "MYSQL_PWD",
    "postgresql": "PGPASSWORD",
    "redis": "REDISCLI_AUTH",
    "command": "PRA_PASSWORD",
}


class DumpSource:
    """Dumps with one preset, in one place. The data instant is the moment before the first dump starts."""

    def __init__(
        self, settings: DumpSettings, resolve: Callable[[SecretRef], str] | None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._clock = clock or SystemClock()

    @property
    def root(self) -> bytes:
        """The logical directory of the dump's files."""
        return b"/dump/" + self._settings.preset.encode()

    @contextlib.contextmanager
    def capture(self, context: CaptureContext) -> Generator[Capture, None, None]:
        instant = self._clock.now()
        if self._settings.preset == "sqlite":
            yield _DumpCapture(self.root, instant, self._sqlite_openers(context))
            return
        with runner_for(self._settings) as runner:
            parts = self._preset().parts(runner)
            instant = self._clock.now()
            openers = {part.name: partial(self._open, runner, part, context.stop) for part in parts}
            yield _DumpCapture(self.root, instant, openers)

    def undo(self, state: StateBefore) -> None:
        """Nothing to undo: a dump changes nothing."""

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        directory = context.restored + self.root.decode()
        if not Path(directory).is_dir():
            raise SourceError(
                f"the restored files hold no {self._settings.preset} dump ({self.root.decode()})",
                advice="Restore the whole job, or name its directory.",
            )
        unknown = set(context.options) - {"database", "as"}
        if unknown:
            names = ", ".join(sorted(unknown))
            raise RefusedError(f"a dump knows no option {names}", advice="It knows database and as.")
        if self._settings.preset == "sqlite":
            return sqlite.reinstate(self._databases(), directory, context)
        with runner_for(self._settings) as runner:
            return self._preset().reinstate(runner, directory, context)

    def databases_there(self) -> Sequence[str]:
        """Ask the server which databases it has, its own left out. Raises `SourceError` when it cannot be asked."""
        if self._settings.preset == "sqlite":
            return ()
        with runner_for(self._settings) as runner:
            return self._preset().databases(runner)

    def _preset(self) -> Preset:
        env = self._env()
        match self._settings.preset:
            case "mariadb" | "mysql":
                return MysqlPreset(self._settings, env)
            case "postgresql":
                return PostgresqlPreset(self._settings, env)
            case "redis":
                return RedisPreset(self._settings, env)
            case _:
                return CustomPreset(self._settings, env)

    def _env(self) -> Mapping[str, str]:
        if self._settings.password is None or self._resolve is None:
            return {}
        return {_PASSWORD_VARIABLES[self._settings.preset]: self._resolve(self._settings.password)}

    def _databases(self) -> Sequence[sqlite.Database]:
        return [sqlite.Database(path) for path in self._settings.paths]

    def _sqlite_openers(self, context: CaptureContext) -> Mapping[str, "_Open"]:
        scratch = context.scratch
        if scratch is None:
            raise SourceError("sqlite needs a scratch directory", advice="Set limits.scratch in the configuration.")

        def opener(number: int, database: sqlite.Database) -> AbstractContextManager[BinaryIO]:
            copy = f"{context.job}-{context.run}-{number}"
            return demanding(lambda: database.opened(scratch, copy), database.demand)

        return {one.name: partial(opener, number, one) for number, one in enumerate(self._databases())}

    @staticmethod
    def _open(runner: Runner, part: Part, stop: Event) -> AbstractContextManager[BinaryIO]:
        if part.text is not None:
            return cast("AbstractContextManager[BinaryIO]", io.BytesIO(part.text))
        return demanding(lambda: runner.stream(part.argv, part.env, stop), part.demand)


_Open = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(slots=True)
class _DumpCapture:
    """The streams of one dump, in order; all of them must have been read."""

    root: bytes
    data_instant: datetime
    openers: Mapping[str, _Open]
    opened: int = 0

    @property
    def roots(self) -> Sequence[bytes]:
        return [self.root]

    def entries(self) -> Iterator[Entry | Missed]:
        when = int(self.data_instant.timestamp() * 1_000_000_000)
        name = self.root.rsplit(b"/", 1)[-1]
        made = partial(Node, mtime=when, atime=when, ctime=when)
        yield Entry(self.root, made(name=name, type=NodeType.DIR, mode=stat.S_IRWXU))
        for file in sorted(self.openers, key=str.encode):
            node = made(name=file.encode(), type=NodeType.FILE, mode=0o600, links=1)
            yield Entry(self.root + b"/" + file.encode(), node, stream=partial(self._counted, file))

    def _counted(self, file: str) -> AbstractContextManager[BinaryIO]:
        self.opened += 1
        return self.openers[file]()

    def verify(self) -> None:
        if self.opened != len(self.openers):
            raise SourceError(f"only {self.opened} of {len(self.openers)} parts of the dump were read")
