"""PostgreSQL: roles and tablespaces, then each database as plain SQL, so that the repository can deduplicate it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.dump.preset import Part, Runner, asked, database_name, file_name
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.source import ReinstateContext

GLOBALS_FILE = "globals.sql"
DATABASES_FILE = "databases.json"
SUFFIX = ".db.sql"
_CLUSTER = re.compile(rb"-- PostgreSQL database cluster dump complete")
_DATABASE = re.compile(rb"-- PostgreSQL database dump complete")
_FACTS = (
    "SELECT json_agg(json_build_object('name', datname, 'owner', pg_get_userbyid(datdba), "
    "'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype)) "
    "FROM pg_database WHERE datallowconn AND NOT datistemplate"
)


@dataclass(frozen=True, slots=True)
class PostgresqlPreset:
    """Each database is one transaction of its own, as pg_dump makes it."""

    settings: DumpSettings
    env: Mapping[str, str]

    def parts(self, runner: Runner) -> Sequence[Part]:
        facts = self._facts(runner)
        names = [str(fact["name"]) for fact in facts]
        if self.settings.databases != "all":
            missing = sorted(set(self.settings.databases) - set(names))
            if missing:
                raise SourceError(
                    f"postgresql {runner.where}: no database {', '.join(map(repr, missing))}",
                    advice="Correct the job's databases.",
                )
            facts = [fact for fact in facts if fact["name"] in self.settings.databases]
        text = json.dumps(facts, indent=1, sort_keys=True).encode()
        parts = [Part(DATABASES_FILE, Demand("list of databases"), text=text)]
        if self.settings.databases == "all":
            demand = Demand(f"postgresql roles {runner.where}", tail=_CLUSTER)
            parts.append(Part(GLOBALS_FILE, demand, self._argv("pg_dumpall", "--globals-only"), self.env))
        for fact in facts:
            name = str(fact["name"])
            demand = Demand(f"postgresql {name!r} {runner.where}", tail=_DATABASE, min_bytes=self.settings.min_bytes)
            argv = self._argv("pg_dump", "--format=plain", "--encoding=UTF8", f"--dbname={_conninfo(name)}")
            parts.append(Part(file_name(name, SUFFIX), demand, argv, self.env))
        return parts

    def databases(self, runner: Runner) -> Sequence[str]:
        # The one that every server has counts only with something in it.
        names = [str(fact["name"]) for fact in self._facts(runner)]
        return [name for name in names if name != "postgres" or self._has_tables(runner, name)]

    def _facts(self, runner: Runner) -> list[dict[str, str]]:
        told = json.loads(self._query(runner, _FACTS) or "null")
        if not told:
            raise SourceError(f"postgresql {runner.where}: there is no database to dump")
        return sorted(told, key=lambda fact: str(fact["name"]))

    def reinstate(self, runner: Runner, directory: str, context: ReinstateContext) -> Sequence[str]:
        files = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))  # noqa: PTH208
        source, target = context.options.get("database"), context.options.get("as")
        if target is not None and source is None:
            raise RefusedError("--option as=NAME needs --option database=NAME: which one goes there")
        names = [database_name(file, SUFFIX) for file in files]
        if source is not None and source not in names:
            raise SourceError(f"the dump holds no database {source!r}", advice="It holds " + ", ".join(names))
        chosen = names if source is None else [source]
        facts = {fact["name"]: fact for fact in json.loads((Path(directory) / DATABASES_FILE).read_bytes())}
        there = {fact["name"] for fact in self._facts(runner)}
        # An empty server has the database `postgres`; it counts as live only when something is in it.
        live = [n for n in ([target] if target else chosen) if n in there and self._has_tables(runner, n)]
        if live and not context.force:
            raise RefusedError(
                f"postgresql {runner.where}: {', '.join(map(repr, live))} exists",
                advice="Restore under another name (--option as=NAME), or replace what is there with --force.",
            )
        if context.dry_run:
            return [f"would load {name!r} {runner.where}" + (f" as {target!r}" if target else "") for name in chosen]
        done = self._roles(runner, directory, context) if source is None else []
        for name in chosen:
            into = target or name
            self._recreate(runner, into, facts[name], keep=f"{into}-before-{context.run}" if into in live else None)
            argv = self._argv("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={_conninfo(into)}")
            with (
                (Path(directory) / file_name(name, SUFFIX)).open("rb") as file,
                runner.feed(argv, self.env, context.stop) as to,
            ):
                while piece := file.read(1 << 18):
                    to.write(piece)
            done.append(f"postgresql: loaded database {name!r} as {into!r} {runner.where}")
        return done

    def _roles(self, runner: Runner, directory: str, context: ReinstateContext) -> list[str]:
        path = Path(directory) / GLOBALS_FILE
        if not path.exists():
            return []
        # Roles that are there already make single statements fail, and that is all right: no ON_ERROR_STOP.
        argv = self._argv("psql", "--no-psqlrc", "--quiet", "--dbname=postgres")
        with runner.feed(argv, self.env, context.stop) as to:
            to.write(path.read_bytes())
        return [f"postgresql: roles put back {runner.where}"]

    def _recreate(self, runner: Runner, name: str, fact: Mapping[str, str], keep: str | None) -> None:
        quoted = _identifier(name)
        if keep is not None:
            ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {_literal(name)}"  # noqa: S608 (quoted)
            self._query(runner, ended)
            self._query(runner, f"ALTER DATABASE {quoted} RENAME TO {_identifier(keep[:63])}")
        else:
            self._query(runner, f"DROP DATABASE IF EXISTS {quoted}", database="template1")
        self._query(
            runner,
            f"CREATE DATABASE {quoted} TEMPLATE template0 OWNER {_identifier(fact['owner'])} "
            f"ENCODING {_literal(fact['encoding'])} LC_COLLATE {_literal(fact['collate'])} "
            f"LC_CTYPE {_literal(fact['ctype'])}",
            database="template1",
        )

    def _has_tables(self, runner: Runner, name: str) -> bool:
        sql = (
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        )
        return self._query(runner, sql, database=name).strip() != "0"

    def _query(self, runner: Runner, sql: str, database: str = "postgres") -> str:
        argv = self._argv("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1")
        argv += [f"--dbname={_conninfo(database)}", f"--command={sql}"]
        return asked(runner, argv, self.env, "postgresql")

    def _argv(self, tool: str, *options: str) -> list[str]:
        chosen = self.settings
        argv = [tool, "--no-password"]
        argv += [f"--host={chosen.socket or chosen.host}"] if chosen.socket or chosen.host else []
        argv += [f"--port={chosen.port}"] if chosen.port else []
        argv += [f"--username={chosen.user}"] if chosen.user else []
        return [*argv, *options]


def _conninfo(database: str) -> str:
    """A database name as a connection string, so that no name can be taken for one."""
    return "dbname='" + database.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
