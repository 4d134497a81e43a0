"""MariaDB and MySQL: one consistent transaction across all databases, users and grants beside it."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.dump.preset import Part, Runner, asked
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.source import ReinstateContext

SYSTEM = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
DATABASES_FILE = "databases.sql"
USERS_FILE = "users.sql"
_COMPLETED = re.compile(rb"-- Dump completed")
_SECTION = re.compile(rb"-- Current Database: `((?:[^`]|``)+)`\s*$")
_HARMLESS = frozenset({"mariadb.sys", "mysql.session", "mysql.sys", "mysql.infoschema"})


@dataclass(frozen=True, slots=True)
class MysqlPreset:
    """Both products; they differ in the names of their tools and in how users are told."""

    settings: DumpSettings
    env: Mapping[str, str]

    @property
    def _mariadb(self) -> bool:
        return self.settings.preset == "mariadb"

    def parts(self, runner: Runner) -> Sequence[Part]:
        databases = self._databases(runner)
        dump = "mariadb-dump" if self._mariadb else "mysqldump"
        options = ["--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob"]
        options += ["--default-character-set=utf8mb4", "--databases"]
        argv = self._argv(dump, *options, "--", *databases)
        demand = Demand(f"{self.settings.preset} {runner.where}", tail=_COMPLETED, min_bytes=self.settings.min_bytes)
        parts = [Part(DATABASES_FILE, demand, argv, self.env)]
        if self.settings.databases == "all":
            users = self._users(runner)
            text = users.encode("utf-8", "surrogateescape")
            parts.append(Part(USERS_FILE, Demand(f"users {runner.where}"), text=text))
        return parts

    def databases(self, runner: Runner) -> Sequence[str]:
        return [name for name in self._query(runner, "SHOW DATABASES").split("\n") if name and name not in SYSTEM]

    def _databases(self, runner: Runner) -> Sequence[str]:
        there = self.databases(runner)
        if self.settings.databases == "all":
            if not there:
                raise SourceError(f"{self.settings.preset} {runner.where}: there is no database to dump")
            return there
        missing = sorted(set(self.settings.databases) - set(there))
        if missing:
            raise SourceError(
                f"{self.settings.preset} {runner.where}: no database {', '.join(map(repr, missing))}",
                advice="Correct the job's databases, or give its user the right to see them.",
            )
        return list(self.settings.databases)

    def _users(self, runner: Runner) -> str:
        """Statements that make the users and roles again, then their grants."""
        columns = "user, host" + (", is_role" if self._mariadb else ", 'N'")
        rows = [row.split("\t") for row in self._query(runner, f"SELECT {columns} FROM mysql.user").split("\n") if row]  # noqa: S608 (constants)
        create: list[str] = []
        grants: list[str] = []
        for user, host, is_role in rows:
            if user in _HARMLESS:
                continue
            who = _quoted(user) if is_role == "Y" else f"{_quoted(user)}@{_quoted(host)}"
            if is_role == "Y":
                create.append(f"CREATE ROLE IF NOT EXISTS {who};")
            else:
                made = self._query(runner, f"SHOW CREATE USER {who}").strip("\n")
                create.append(re.sub(r"^CREATE USER ", "CREATE USER IF NOT EXISTS ", made) + ";")
                create.append(re.sub(r"^CREATE USER ", "ALTER USER ", made) + ";")
            grants += [f"{line};" for line in self._query(runner, f"SHOW GRANTS FOR {who}").split("\n") if line]
        return "\n".join([*create, *grants, "FLUSH PRIVILEGES;", ""])

    def reinstate(self, runner: Runner, directory: str, context: ReinstateContext) -> Sequence[str]:
        source, target = context.options.get("database"), context.options.get("as")
        if target is not None and source is None:
            raise RefusedError("--option as=NAME needs --option database=NAME: which one goes there")
        path = os.path.join(directory, DATABASES_FILE)  # noqa: PTH118 - bytes and str paths alike
        held = databases_in(path)
        if source is not None and source not in held:
            raise SourceError(f"the dump holds no database {source!r}", advice="It holds " + ", ".join(held))
        wanted = held if source is None else [source]
        there = set(self._query(runner, "SHOW DATABASES").split("\n"))
        live = sorted(there & ({target} if target is not None else set(wanted)))
        if live and not context.force:
            raise RefusedError(
                f"{self.settings.preset} {runner.where}: {', '.join(map(repr, live))} exists",
                advice="Restore under another name (--option as=NAME), or overwrite what is there with --force.",
            )
        if context.dry_run:
            return [f"would load {name!r} {runner.where}" + (f" as {target!r}" if target else "") for name in wanted]
        client = self._client("--default-character-set=utf8mb4", "--binary-mode")
        with runner.feed(client, self.env, context.stop) as to:
            loaded = list(load(path, to, source, target))
        done = [f"{self.settings.preset}: loaded database {name!r} {runner.where}" for name in loaded]
        users = os.path.join(directory, USERS_FILE)  # noqa: PTH118
        if source is None and os.path.exists(users):  # noqa: PTH110
            with open(users, "rb") as file, runner.feed(self._client(), self.env, context.stop) as to:  # noqa: PTH123
                to.write(file.read())
            done.append(f"{self.settings.preset}: users and grants put back {runner.where}")
        return done

    def _query(self, runner: Runner, sql: str) -> str:
        argv = self._client("--batch", "--skip-column-names", "--raw", "--execute", sql)
        return asked(runner, argv, self.env, self.settings.preset)

    def _client(self, *options: str) -> list[str]:
        return self._argv("mariadb" if self._mariadb else "mysql", *options)

    def _argv(self, tool: str, *options: str) -> list[str]:
        chosen = self.settings
        argv = [tool]
        # The option file must come first, or the tools do not look at it.
        argv += [f"--defaults-extra-file={chosen.defaults_file}"] if chosen.defaults_file else []
        argv += [f"--host={chosen.host}"] if chosen.host else []
        argv += [f"--port={chosen.port}"] if chosen.port else []
        argv += [f"--socket={chosen.socket}"] if chosen.socket else []
        argv += [f"--user={chosen.user}"] if chosen.user else []
        return [*argv, *options]


def databases_in(path: str) -> list[str]:
    """Which databases a dump holds, by its section marks."""
    found: list[str] = []
    with open(path, "rb") as file:  # noqa: PTH123
        for line in file:
            if section := _SECTION.match(line):
                found.append(_unquoted(section[1]))  # noqa: PERF401 (the match is needed)
    return found


def load(path: str, to: BinaryIO, source: str | None, target: str | None) -> Iterator[str]:
    """Write a dump, or one database of it (under another name), to a client's stdin; yields what was written.

    Data cannot look like a section mark: line feeds within values are escaped by the dump.
    """
    writing, rename = True, False
    with open(path, "rb") as file:  # noqa: PTH123
        for line in file:
            if section := _SECTION.match(line):
                name = _unquoted(section[1])
                writing = source is None or name == source
                rename = writing and target is not None
                if rename and target is not None:
                    quoted = b"`" + target.replace("`", "``").encode() + b"`"
                    to.write(b"CREATE DATABASE IF NOT EXISTS " + quoted + b";\nUSE " + quoted + b";\n")
                if writing:
                    yield name if target is None else target
                continue
            if not writing or (rename and line.startswith((b"CREATE DATABASE ", b"USE `"))):
                continue
            to.write(line)


def _unquoted(name: bytes) -> str:
    return name.replace(b"``", b"`").decode("utf-8", "surrogateescape")


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
