"""The source of a Cassandra node: a snapshot of hard links, read where they are, and cleared.

What is stored: `/cassandra/data/<number>/<keyspace>/<table>-<id>/...` (one number for each data directory),
`/cassandra/schema.json` and `schema.cql` (the statements that make the schema), `/cassandra/facts.json` (who the node
is: cluster, host id, tokens, data centre, rack, version, directories, `nodetool status`).
"""

import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import PraError, SourceError
from pra_agent.model.events import Notice
from pra_agent.model.references import SecretRef
from pra_agent.sources.cassandra.bringing import bring_back, undo_bringing
from pra_agent.sources.cassandra.nodetool import Nodetool
from pra_agent.sources.cassandra.places import Places, find_places, opened
from pra_agent.sources.cassandra.restored import FACTS, KEPT_PREFIX, SCHEMA, SCHEMA_CQL
from pra_agent.sources.cassandra.session import Identity, Session, Table, connect
from pra_agent.sources.cassandra.settings import CassandraSettings
from pra_agent.sources.cassandra.system import is_system, keeps
from pra_agent.sources.cassandra.walk import (
    DATA,
    Found,
    SnapshotWalk,
    snapshot_bytes,
    snapshot_names,
    table_directories,
)
from pra_agent.sources.inline import inline
from pra_agent.sources.source import Capture, CaptureContext, Entry, Missed, ReinstateContext, StateBefore

KEY = "cassandra snapshot"
PREFIX = "pra-"
#: A snapshot with our prefix that nobody remembers is an orphan when no run can still be reading it.
_ORPHAN_SECONDS = 24 * 3600


class CassandraSource:
    """One node. The data instant is the moment before the snapshot is asked for."""

    def __init__(
        self,
        settings: CassandraSettings,
        resolve: Callable[[SecretRef], str] | None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(self, context: CaptureContext) -> Generator[Capture, None, None]:
        nodetool = Nodetool(self._settings, context.stop)
        before = self._ask()
        places = find_places(self._settings, before.directories)
        with opened(places.data) as fds:
            self._clear_old(nodetool, context, fds)
            held = snapshot_bytes(fds)
            tag = PREFIX + context.run
            status = nodetool.run("status")
            context.state.remember(KEY, {"tag": tag})
            try:
                instant = self._clock.now()
                self._snapshot(nodetool, tag, before.chosen)
                # Asked again: what was made or changed meanwhile is described as the files may already have it.
                node = self._ask()
                facts = {**node.facts(places), "snapshot_bytes": held, "status": status}
                walk = SnapshotWalk(fds, tag.encode(), node.keeps)
                must = [one for one in before.chosen if one in node.chosen]
                yield CassandraCapture(instant, walk, node, facts, must)
            finally:
                # Also when the run is asked to stop: what it made is taken away.
                self._leave(context)

    def undo(self, state: StateBefore) -> None:
        self._clear(Nodetool(self._settings), state)
        undo_bringing(self._settings, self._resolve, state)

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        return bring_back(self._settings, self._resolve, context)

    def _ask(self) -> "Asked":
        with connect(self._settings, self._resolve) as session:
            return Asked.of(session, self._settings)

    def _snapshot(self, nodetool: Nodetool, tag: str, chosen: Sequence[Table]) -> None:
        settings = self._settings
        if settings.tables:
            nodetool.snapshot(tag, tables=[table.title for table in chosen])
        elif settings.keyspaces or settings.exclude:
            nodetool.snapshot(tag, keyspaces=sorted({table.keyspace for table in chosen}))
        else:
            nodetool.snapshot(tag)

    def _clear_old(self, nodetool: Nodetool, context: CaptureContext, fds: Sequence[int]) -> None:
        """Clear what a crashed run of this job has left, and old orphans that nobody remembers."""
        self._clear(nodetool, context.state)
        for tag in sorted(self._orphans(fds)):
            nodetool.clear(tag)
            context.report(Notice(f"the Cassandra snapshot {tag} that a run had left was cleared", "warning"))

    def _orphans(self, fds: Sequence[int]) -> set[str]:
        oldest = self._clock.now().timestamp() - _ORPHAN_SECONDS
        found: set[str] = set()
        for fd in fds:
            for table in table_directories(fd):
                for raw in snapshot_names(fd, table):
                    name = raw.decode("utf-8", "replace")
                    if re.fullmatch(r"pra-[A-Za-z0-9_.-]+", name) and not name.startswith(KEPT_PREFIX):
                        place = b"%s/%s/snapshots/%s" % (table.keyspace, table.directory, raw)
                        if os.stat(place, dir_fd=fd, follow_symlinks=False).st_mtime < oldest:
                            found.add(name)
        return found

    def _leave(self, context: CaptureContext) -> None:
        """Clear the run's own Cassandra snapshot; what is saved is good without that, and the next run tries again."""
        try:
            self._clear(Nodetool(self._settings), context.state)
        except PraError as error:
            message = f"the Cassandra snapshot of this run takes room until it can be cleared: {error.message}"
            context.report(Notice(message, "warning"))

    def _clear(self, nodetool: Nodetool, state: StateBefore) -> None:
        told = state.pending().get(KEY)
        if told is not None:
            nodetool.clear(str(told["tag"]))
            state.forget(KEY)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the node told before its snapshot."""

    identity: Identity
    directories: Mapping[str, Sequence[str]]
    chosen: Sequence[Table]
    schema: Sequence[Mapping[str, str]]
    replication: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, session: Session, settings: CassandraSettings) -> "Asked":
        """Ask it. Raises `SourceError` when what the job names is not there."""
        tables = session.tables()
        chosen = [one for one in tables if _chosen(one, settings)]
        _must_exist(settings, session.keyspaces(), tables)
        keyspaces = sorted({one.keyspace for one in chosen if not is_system(one.keyspace)})
        schema = [statement for name in keyspaces for statement in session.describe(name)]
        rows = session.rows("SELECT keyspace_name, replication FROM system_schema.keyspaces")
        replication = {str(row.keyspace_name): dict(row.replication) for row in rows}
        return cls(session.identity(), session.directories(), chosen, schema, replication)

    def keeps(self, found: Found) -> bool:
        """Whether a table's snapshot is kept: one that is described."""
        return Table(found.key[0], found.table, found.key[1]) in self.chosen

    def facts(self, places: Places) -> dict[str, object]:
        """What a restore must know of the node."""
        return {
            "format": 1,
            "node": asdict(self.identity),
            "directories": {kind: list(paths) for kind, paths in self.directories.items()},
            "host_directories": {
                "data": [str(place.host) for place in places.data],
                **{kind: str(place.host) for kind, place in places.others.items()},
            },
            "replication": {name: self.replication[name] for name in sorted({one.keyspace for one in self.chosen})},
            "tables": [asdict(one) for one in self.chosen],
        }


def _chosen(table: Table, settings: CassandraSettings) -> bool:
    if table.keyspace in settings.exclude:
        return False
    if settings.tables:
        return table.title in settings.tables
    if settings.keyspaces:
        return table.keyspace in settings.keyspaces
    return keeps(table.keyspace, table.name)


def _must_exist(settings: CassandraSettings, keyspaces: set[str], tables: Sequence[Table]) -> None:
    lost = [name for name in settings.keyspaces if name not in keyspaces]
    lost += [name for name in settings.tables if name not in {one.title for one in tables}]
    if lost:
        raise SourceError(f"Cassandra has no {', '.join(lost)}", advice="Correct keyspaces or tables of the job.")


@dataclass(slots=True)
class CassandraCapture:
    """The facts, the schema, then the walk. `detail` is what the run's record tells of the capture."""

    data_instant: datetime
    walk: SnapshotWalk
    node: Asked
    told: Mapping[str, object]
    must: Sequence[Table]

    @property
    def detail(self) -> Mapping[str, object]:
        identity = self.node.identity
        return {
            "cluster": identity.cluster,
            "host_id": identity.host_id,
            "data_center": identity.data_center,
            "tables": len(self.node.chosen),
            "local_snapshot_bytes": self.told["snapshot_bytes"],
        }

    @property
    def roots(self) -> Sequence[bytes]:
        return [DATA, FACTS, SCHEMA, SCHEMA_CQL]

    def entries(self) -> Iterator[Entry | Missed]:
        when = int(self.data_instant.timestamp() * 1_000_000_000)
        yield inline(FACTS, json.dumps(self.told, indent=1, sort_keys=True).encode(), when)
        text = "\n\n".join(statement["cql"].rstrip() for statement in self.node.schema) + "\n"
        yield inline(SCHEMA_CQL, text.encode(), when)
        yield inline(SCHEMA, json.dumps(list(self.node.schema), indent=1).encode(), when)
        yield from self.walk.entries()

    def verify(self) -> None:
        lost = self.walk.missing()
        if lost:
            raise SourceError(f"{len(lost)} SSTables of the Cassandra snapshot were not found: {lost[0]} ...")
        missing = [one for one in self.must if (one.keyspace, one.id) not in self.walk.met]
        if missing:
            names = ", ".join(one.title for one in missing[:5])
            raise SourceError(
                f"the Cassandra snapshot lacks {len(missing)} tables: {names}",
                advice="Check that data_dirs are all of the node's data directories.",
            )
