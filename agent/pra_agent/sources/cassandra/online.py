"""Plan B: into a running cluster, whatever its ring. The schema first, then `nodetool import` of a copy."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pra_agent.errors import RefusedError, SourceError
from pra_agent.model.events import Notice, Progress
from pra_agent.model.references import SecretRef
from pra_agent.sources.cassandra import cql
from pra_agent.sources.cassandra.counting import count_rows, wait_for_agreement
from pra_agent.sources.cassandra.nodetool import Nodetool
from pra_agent.sources.cassandra.places import Places, find_places
from pra_agent.sources.cassandra.restored import KEPT_PREFIX, Choice, Restored, TableFiles
from pra_agent.sources.cassandra.session import Session, connect
from pra_agent.sources.cassandra.settings import CassandraSettings
from pra_agent.sources.cassandra.system import is_system, online
from pra_agent.sources.exchange import discard
from pra_agent.sources.source import ReinstateContext, StateBefore

KEY = "cassandra import"
_Statement = Mapping[str, str]
_SSTABLE = "-Data.db"


def plan_b(
    settings: CassandraSettings,
    resolve: Callable[[SecretRef], str] | None,
    restored: Restored,
    choice: Choice,
    context: ReinstateContext,
) -> Sequence[str]:
    """Import the chosen tables into the cluster of this node; a line for each thing done and left to do."""
    tables = _chosen(restored, choice)
    with connect(settings, resolve) as session:
        work = _Import(settings, restored, choice, context, session, find_places(settings, session.directories()))
        return work.run(tables)


def undo_plan_b(state: StateBefore) -> None:
    """Take away the copies that an interrupted import has left."""
    told = state.pending().get(KEY)
    if told is not None:
        discard(Path(str(told["place"])))
        state.forget(KEY)


def _chosen(restored: Restored, choice: Choice) -> list[TableFiles]:
    named = bool(choice.keyspace)
    found = [
        table
        for table in restored.tables()
        if online(table.keyspace, named=named)
        and (not named or table.keyspace == choice.keyspace)
        and (not choice.table or table.name == choice.table)
    ]
    if not found:
        what = f"{choice.keyspace}.{choice.table}".rstrip(".") or "keyspace of yours"
        held = ", ".join(sorted({table.keyspace for table in restored.tables()}))
        raise SourceError(f"the snapshot holds no {what}", advice=f"It holds the keyspaces {held}.")
    return found


@dataclass(slots=True)
class _Import:
    """One run of plan B."""

    settings: CassandraSettings
    restored: Restored
    choice: Choice
    context: ReinstateContext
    session: Session
    places: Places
    lines: list[str] = field(default_factory=lambda: list[str]())

    def run(self, tables: Sequence[TableFiles]) -> Sequence[str]:
        self._fits()
        live = self._live(tables)
        replacing = [table for table in tables if self._target(table) in live]
        if replacing:
            self._may_replace(replacing)
        if self.context.dry_run:
            return [self._would(table, replaced=table in replacing) for table in tables]
        self._make_schema(tables)
        if replacing:
            self._empty(replacing)
        self._import(tables)
        self._finish(tables)
        return self.lines

    # ------------------------------------------------------------------ names
    def _renaming(self, keyspace: str) -> cql.Renaming:
        choice = self.choice
        return cql.Renaming(keyspace, choice.as_keyspace or keyspace, choice.table, choice.as_table or choice.table)

    def _target(self, table: TableFiles) -> tuple[str, str]:
        names = self._renaming(table.keyspace)
        return names.as_keyspace, names.of(table.name)

    def _would(self, table: TableFiles, *, replaced: bool) -> str:
        verb = "replace" if replaced else "add to"
        return f"would {verb} {'.'.join(self._target(table))}: {table.size()} bytes of {table.title}"

    # ------------------------------------------------------------------ guards
    def _fits(self) -> None:
        """Refuse what cannot work: another partitioner, a snapshot of a newer version."""
        then, now = self.restored.identity, self.session.identity()
        if then.partitioner != now.partitioner:
            raise SourceError(f"the snapshot is of partitioner {then.partitioner}, the cluster has {now.partitioner}")
        if _version(then.version) > _version(now.version):
            raise SourceError(
                f"the snapshot is of Cassandra {then.version}, this is {now.version}: it cannot read newer files",
                advice="Upgrade the cluster first.",
            )

    def _live(self, tables: Sequence[TableFiles]) -> set[tuple[str, str]]:
        """Which of the target tables would be emptied, since they hold something on this node.

        What is in memory is written out first, so that it can be seen.
        """
        there = {(one.keyspace, one.name): one.id for one in self.session.tables()}
        targets = {self._target(table) for table in tables} & there.keys()
        if self.choice.of("mode") == "add":
            return set()
        if not self.context.dry_run:
            nodetool = Nodetool(self.settings, self.context.stop)
            for keyspace in sorted({keyspace for keyspace, _ in targets}):
                nodetool.run("flush", "--", keyspace, *sorted(name for other, name in targets if other == keyspace))
        return {target for target in targets if self._holds(*target, there[target])}

    def _holds(self, keyspace: str, name: str, identity: str) -> bool:
        directories = [place.host / keyspace / f"{name}-{identity}" for place in self.places.data]
        return any(file.name.endswith(_SSTABLE) for each in directories if each.is_dir() for file in each.iterdir())

    def _may_replace(self, tables: Sequence[TableFiles]) -> None:
        names = ", ".join(".".join(self._target(table)) for table in tables[:5])
        if not self.context.force:
            raise RefusedError(
                f"{len(tables)} tables hold data on this node: {names}",
                advice="--force empties them on ALL nodes first; mode=add adds to them; as_keyspace and as_table "
                "put it elsewhere.",
            )
        if self.session.peers() and self.session.settings().get("auto_snapshot") == "false":
            raise RefusedError(
                "auto_snapshot is off, so the other nodes would keep nothing of what is emptied",
                advice="Take nodetool snapshot on every node, truncate by hand, then restore with mode=add.",
            )

    # ------------------------------------------------------------------ the work
    def _make_schema(self, tables: Sequence[TableFiles]) -> None:
        """Make what is missing of the schema; what is there is left as it is."""
        before = {(one.keyspace, one.name) for one in self.session.tables()}
        made = 0
        for keyspace in sorted({table.keyspace for table in tables if not is_system(table.keyspace)}):
            names = self._renaming(keyspace)
            for statement in self.restored.schema:
                if statement["keyspace"] == keyspace and self._wanted(statement):
                    made += self._make(statement, names, before)
        wait_for_agreement(self.session, self.context.stop)
        self.lines.append(f"schema: {made} statements, all nodes agree")

    def _wanted(self, statement: _Statement) -> bool:
        """For one table: its keyspace, the types and functions there, itself and its indexes."""
        kind, table = statement["kind"], self.choice.table
        if not table or kind in {"keyspace", "type", "function", "aggregate"}:
            return True
        if kind in {"table", "materialized_view"}:
            return statement["name"] == table
        return kind == "index" and cql.indexed(statement["cql"]) == table

    def _make(self, statement: _Statement, names: cql.Renaming, before: set[tuple[str, str]]) -> int:
        target = (names.as_keyspace, names.of(statement["name"]))
        there = statement["kind"] in {"table", "materialized_view"} and target in before
        done = 0
        for pieces in cql.statements(statement["cql"]):
            creates = cql.written(pieces)[:6].lower() == "create"
            # Columns that were dropped and made again are part of a table that is new, not of one that is there.
            if there and not creates:
                continue
            self.session.rows(cql.written(cql.if_not_exists(cql.renamed(pieces, names))))
            done += 1
        return done

    def _empty(self, tables: Sequence[TableFiles]) -> None:
        """Keep what is there as a Cassandra snapshot, then empty the tables: newer deletions would win else."""
        targets = [self._target(table) for table in tables]
        tag = KEPT_PREFIX + self.context.run
        nodetool = Nodetool(self.settings, self.context.stop)
        nodetool.snapshot(tag, tables=[".".join(target) for target in targets])
        views = {(str(row[0]), str(row[1])) for row in self._views()}
        for keyspace, name in targets:
            if (keyspace, name) not in views:
                self.session.rows(f"TRUNCATE {cql.quoted(keyspace)}.{cql.quoted(name)}")
        self.lines.append(f"{len(targets)} tables emptied; this node keeps what they held as Cassandra snapshot {tag}")

    def _views(self) -> Sequence[Sequence[object]]:
        return self.session.rows("SELECT keyspace_name, view_name FROM system_schema.views")

    def _import(self, tables: Sequence[TableFiles]) -> None:
        first = self.places.data[0]
        staging = f"pra-import-{self.context.run}"
        place = first.host / staging
        self.context.state.remember(KEY, {"place": str(place)})
        owner = first.host.stat()
        same = set(self.restored.identity.tokens) == set(self.session.identity().tokens)
        flags = () if same else ("-t",)
        try:
            for done, table in enumerate(tables):
                self.context.report(Progress("import", done, len(tables), current=table.title))
                self._one(table, place, f"{first.node}/{staging}", (owner.st_uid, owner.st_gid), flags)
        finally:
            discard(place)
            self.context.state.forget(KEY)
        how = "as this node's own" if same else "whatever their tokens"
        self.lines.append(f"{len(tables)} tables imported {how} from the snapshot of {self.restored.identity.address}")

    def _one(self, table: TableFiles, place: Path, node: str, owner: tuple[int, int], flags: Sequence[str]) -> None:
        keyspace, name = self._target(table)
        self._has_room(table)
        directories: list[str] = []
        for number, source in enumerate(table.paths):
            relative = f"{number}/{keyspace}/{name}"
            if _copy(source, place / relative, place, owner):
                directories.append(f"{node}/{relative}")
        if not directories:
            return
        Nodetool(self.settings, self.context.stop).run("import", *flags, "--", keyspace, name, *directories)
        left = list(place.rglob("*" + _SSTABLE))
        if left:
            raise SourceError(
                f"{keyspace}.{name}: Cassandra left {len(left)} SSTables that it would not import",
                advice="The node's log says why; another ring needs no tokens, another schema cannot be read.",
            )
        discard(place)

    def _has_room(self, table: TableFiles) -> None:
        needed, place = table.size(), self.places.data[0].host
        free = shutil.disk_usage(place).free
        if needed >= free:
            raise SourceError(
                f"{place}: {table.title} needs {needed} bytes, {free} are free", advice="Make room there."
            )

    # ------------------------------------------------------------------ afterwards
    def _finish(self, tables: Sequence[TableFiles]) -> None:
        targets = [self._target(table) for table in tables]
        wait_for_agreement(self.session, self.context.stop)
        if self.choice.of("count") == "yes":
            self.lines += [count_rows(self.session, *target) for target in targets]
        nodetool = Nodetool(self.settings, self.context.stop)
        keyspaces = sorted({keyspace for keyspace, _ in targets})
        for verb, argv in (("cleanup", ["cleanup"]), ("repair", ["repair", "-pr"])):
            for keyspace in keyspaces:
                if self.choice.of(verb) == "run":
                    nodetool.run(*argv, "--", keyspace)
                    self.lines.append(f"nodetool {' '.join(argv)} {keyspace}: done")
                else:
                    self.lines.append(
                        f"left to do when every node's snapshot is imported: nodetool {' '.join(argv)} {keyspace}"
                    )
        self.lines += [
            line for line in nodetool.run("status").splitlines() if line[:2] in {"UN", "DN", "UJ", "UL", "UM"}
        ]
        self.context.report(Notice(f"{len(tables)} tables of Cassandra are back"))


def _copy(source: Path, target: Path, top: Path, owner: tuple[int, int]) -> bool:
    """Copy a table's SSTables with full permissions for the node's user; False when there are none.

    Directories of indexes are left out: Cassandra builds those anew.
    """
    files = [path for path in sorted(source.iterdir()) if path.is_file() and not path.is_symlink()]
    if not files:
        return False
    target.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, target / file.name)
        (target / file.name).chmod(0o600)
        _give(target / file.name, owner)
    for directory in (target, *target.parents):
        directory.chmod(0o700)
        _give(directory, owner)
        if directory == top:
            break
    return True


def _give(path: Path, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0:
        os.chown(path, *owner)


def _version(text: str) -> tuple[int, int]:
    parts = [int(part) for part in text.split("-", maxsplit=1)[0].split(".")[:2] if part.isdecimal()]
    return (parts[0] if parts else 0, parts[1] if len(parts) > 1 else 0)
