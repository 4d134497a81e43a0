"""nodetool, on the host or inside the node's container; an argv list, the JMX password in a file."""

from collections.abc import Sequence
from threading import Event

from pra_agent.errors import CommandError
from pra_agent.sources import command
from pra_agent.sources.cassandra.settings import CassandraSettings


class Nodetool:
    """Runs one command after the other; each raises `CommandError` with the end of what it said."""

    def __init__(self, settings: CassandraSettings, stop: Event | None = None) -> None:
        self._settings = settings
        self._stop = stop

    def run(self, *words: str) -> str:
        """Run it and return its output."""
        chosen = self._settings
        argv = [*chosen.nodetool, *self._jmx(), *words]
        seconds = chosen.timeout.total_seconds()
        if chosen.container is None:
            try:
                return command.run(argv, command.Terms(seconds, cancelled=self._stop)).text
            except CommandError as error:
                raise CommandError(f"nodetool {words[0]}: {error.message}", advice=error.advice) from error
        # The Docker SDK is imported only where a container is named.
        from pra_agent.sources.engine import Engine  # noqa: PLC0415

        with Engine(chosen.docker) as engine:
            done = engine.run(chosen.container, argv, timeout=seconds, cancelled=self._stop)
        output = done.stdout.decode("utf-8", "replace")
        if done.code != 0:
            said = " | ".join((done.stderr or output).strip().splitlines()[-3:])
            raise CommandError(f"nodetool {words[0]} in container {chosen.container}: exit status {done.code}: {said}")
        return output

    def snapshot(self, tag: str, *, keyspaces: Sequence[str] = (), tables: Sequence[str] = ()) -> None:
        """Make a Cassandra snapshot of the tables (KEYSPACE.TABLE), else of the keyspaces, else of all."""
        if tables:
            self.run("snapshot", "-t", tag, "-kt", ",".join(tables))
        else:
            self.run("snapshot", "-t", tag, "--", *keyspaces)

    def clear(self, tag: str) -> None:
        """Clear a Cassandra snapshot; harmless when there is none."""
        self.run("clearsnapshot", "-t", tag)

    def _jmx(self) -> list[str]:
        chosen = self._settings
        argv: list[str] = []
        if chosen.jmx_host is not None:
            argv += ["-h", chosen.jmx_host]
        if chosen.jmx_port is not None:
            argv += ["-p", str(chosen.jmx_port)]
        if chosen.jmx_user is not None:
            argv += ["-u", chosen.jmx_user, "-pwf", str(chosen.jmx_password_file)]
        return argv
