"""Where a dump's tools run: on this host, or inside a container."""

import contextlib
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import BinaryIO

from pra_agent.errors import CommandError, PraError
from pra_agent.sources import command
from pra_agent.sources.dump.preset import Ended, Runner
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.engine import Engine

#: Gives the tool the container's own secret under the name that the tool looks for; nothing is interpolated.
_FROM_CONTAINER = ("sh", "-c", 'export "$0=$(printenv "$1")"; shift; exec "$@"')
_VARIABLES = {"mariadb": "MYSQL_PWD", "mysql": "MYSQL_PWD", "postgresql": "PGPASSWORD", "redis": "REDISCLI_AUTH"}
#: Statuses that a short command may end with; whoever asked judges them.
_ANY_STATUS = range(-64, 256)


@contextlib.contextmanager
def runner_for(settings: DumpSettings) -> Generator[Runner, None, None]:
    """Open what the job's tools need. Raises `SourceError` when the container or its engine is not there."""
    limit = settings.timeout.total_seconds()
    if settings.container is None:
        yield HostRunner("on this host", limit)
        return
    with Engine(settings.docker) as engine:
        state = engine.inspect(settings.container).get("State", {})
        if not state.get("Running") or state.get("Paused"):
            raise CommandError(
                f"container {settings.container} is {state.get('Status', 'not running')}",
                advice="Start it; a dump needs the database to run.",
            )
        prefix: Sequence[str] = ()
        if settings.password_env is not None:
            prefix = (*_FROM_CONTAINER, _VARIABLES.get(settings.preset, "PRA_PASSWORD"), settings.password_env)
        yield ContainerRunner(f"in container {settings.container}", engine, settings.container, limit, prefix)


@dataclass(frozen=True, slots=True)
class HostRunner:
    """Tools of this host. `limit`: seconds that a dump may take."""

    where: str
    limit: float

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout: float = 300) -> Ended:
        done = command.run(argv, command.Terms(timeout, env, ok=_ANY_STATUS))
        return Ended(done.status, done.stdout, done.stderr)

    @contextlib.contextmanager
    def stream(self, argv: Sequence[str], env: Mapping[str, str], cancelled: Event) -> Generator[BinaryIO, None, None]:
        with command.stream(argv, command.Terms(self.limit, env, cancelled=cancelled)) as stdout:
            yield stdout

    @contextlib.contextmanager
    def feed(self, argv: Sequence[str], env: Mapping[str, str], cancelled: Event) -> Generator[BinaryIO, None, None]:
        read_end, write_end = os.pipe()
        errors: list[PraError] = []
        ending = _Either(cancelled)

        def work() -> None:
            with os.fdopen(read_end, "rb") as stdin:
                try:
                    command.run(argv, command.Terms(self.limit, env, cancelled=ending), stdin=stdin)
                except PraError as error:
                    errors.append(error)

        thread = threading.Thread(target=work, name=f"feed {argv[0]}")
        thread.start()
        try:
            with os.fdopen(write_end, "wb") as to:
                yield to
        except BrokenPipeError as error:
            thread.join()
            raise (errors[0] if errors else CommandError(f"{argv[0]}: it ended before it had read all")) from error
        except BaseException:
            ending.set()
            raise
        finally:
            thread.join()
        if errors:
            raise errors[0]


class _Either(Event):
    """Set when it was set itself, or the other was."""

    def __init__(self, other: Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()


@dataclass(frozen=True, slots=True)
class ContainerRunner:
    """Tools of a container. `limit`: seconds without a byte after which one counts as hung."""

    where: str
    engine: Engine
    container: str
    limit: float
    prefix: Sequence[str]

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout: float = 300) -> Ended:
        done = self.engine.run(self.container, [*self.prefix, *argv], env=env, timeout=timeout)
        return Ended(done.code, done.stdout, done.stderr)

    @contextlib.contextmanager
    def stream(self, argv: Sequence[str], env: Mapping[str, str], cancelled: Event) -> Generator[BinaryIO, None, None]:
        with self.engine.stream(
            self.container, [*self.prefix, *argv], env=env, idle_limit=self.limit, cancelled=cancelled
        ) as stdout:
            yield stdout

    @contextlib.contextmanager
    def feed(self, argv: Sequence[str], env: Mapping[str, str], cancelled: Event) -> Generator[BinaryIO, None, None]:
        with self.engine.feed(
            self.container, [*self.prefix, *argv], env=env, idle_limit=self.limit, cancelled=cancelled
        ) as to:
            yield to
