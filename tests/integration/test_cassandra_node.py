"""One real Cassandra node: captured, put back online under force and under other names, and left as it was."""

import json
import os
import time
from pathlib import Path

import pytest

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.cassandra import CassandraSettings
from pra_agent.sources.source import CaptureContext
from tests.support.captures import MemoryState, put_back, take
from tests.support.cassandra import Node

pytestmark = [pytest.mark.cassandra, pytest.mark.xdist_group("cassandra"), pytest.mark.timeout(600)]


def build(node: Node, **more: object):
    return CassandraSettings.model_validate(node.settings(**more)).build(lambda _: "")


@pytest.fixture(scope="module")
def node(cassandra_node: Node) -> Node:
    """A node with a keyspace whose names need quotes."""
    with cassandra_node.session() as session:
        for statement in (
            """CREATE KEYSPACE "MixedCase" WITH replication={'class':'SimpleStrategy','replication_factor':1}""",
            """CREATE TYPE "MixedCase".address (street text, "No" int)""",
            """CREATE TABLE "MixedCase"."Table2"
               (id int PRIMARY KEY, "v ""q" text, gone int, "at" frozen<address>)""",
            """ALTER TABLE "MixedCase"."Table2" DROP gone""",
            """ALTER TABLE "MixedCase"."Table2" ADD gone int""",
            """CREATE INDEX by_gone ON "MixedCase"."Table2" (gone)""",
            """CREATE TABLE "MixedCase".other (a text, b int, v blob, PRIMARY KEY (a, b))""",
            """CREATE MATERIALIZED VIEW "MixedCase".seen AS SELECT * FROM "MixedCase".other
               WHERE a IS NOT NULL AND b IS NOT NULL PRIMARY KEY (b, a)""",
        ):
            session.execute(statement)
        fill(session)
    return cassandra_node


def fill(session) -> None:
    for number in range(200):
        session.execute(
            'INSERT INTO "MixedCase"."Table2" (id, "v ""q", gone, "at") VALUES (%s, %s, %s, {street: \'s\', "No": 4})',
            (number, f"it's {number}", number % 7),
        )
        session.execute(
            'INSERT INTO "MixedCase".other (a, b, v) VALUES (%s, %s, %s)', (f"p{number % 9}", number, b"x" * 50)
        )


def rows(node: Node, keyspace: str = "MixedCase", table: str = "Table2") -> list[tuple[object, ...]]:
    with node.session() as session:
        return sorted(tuple(row) for row in session.execute(f'SELECT * FROM "{keyspace}"."{table}"'))


@pytest.fixture(scope="module")
def saved(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the node, captured once."""
    target = tmp_path_factory.mktemp("saved")
    state = MemoryState()
    before = snapshots(node)
    assert take(build(node), target, state=state) == []
    assert snapshots(node) == before
    assert state.history == ["cassandra snapshot"]
    assert not state.pending()
    return target


def snapshots(node: Node) -> set[str]:
    return {path.name for data in node.data for path in data.glob("*/*/snapshots/*")}


def test_what_is_captured(node: Node, saved: Path):
    facts = json.loads((saved / "cassandra/facts.json").read_text())
    assert facts["node"]["cluster"] == "pra-test"
    assert facts["node"]["tokens"] == ["0"]
    assert facts["node"]["version"] == "5.0.9"
    assert facts["node"]["host_id"] in facts["status"]
    assert facts["directories"]["data"] == [str(path) for path in node.data]
    assert "WITH ID = " in (saved / "cassandra/schema.cql").read_text()
    files = {str(path.relative_to(saved / "cassandra/data")) for path in (saved / "cassandra/data").rglob("*-Data.db")}
    tables = {name.split("/")[1] + "." + name.split("/")[2].rpartition("-")[0] for name in files}
    assert {"MixedCase.Table2", "MixedCase.other", "MixedCase.seen", "system.local", "system_schema.tables"} <= tables
    assert not [name for name in files if "/snapshots/" in name]
    assert not [name for name in tables if name.startswith("system_traces") or "compaction_history" in name]
    assert {name.split("/")[0] for name in files} == {"0", "1"}


def test_a_selection(node: Node, tmp_path: Path):
    take(build(node, tables=["MixedCase.other"]), tmp_path / "1")
    found = {path.name.rpartition("-")[0] for path in (tmp_path / "1/cassandra/data").glob("*/*/*")}
    assert found == {"other"}
    with pytest.raises(SourceError, match="has no nowhere"):
        take(build(node, keyspaces=["nowhere"]), tmp_path / "3")


def test_a_crash_is_undone_and_orphans_are_cleared(node: Node, tmp_path: Path):
    state = MemoryState()
    entered = build(node).capture(CaptureContext(run="crashed", job="j", node="n", state=state))
    entered.__enter__()
    assert "pra-crashed" in snapshots(node)
    left = MemoryState()
    left.now = dict(state.pending())
    build(node).undo(left)
    assert not left.pending()
    assert "pra-crashed" not in snapshots(node)
    entered.__exit__(None, None, None)
    node.nodetool("snapshot", "-t", "pra-forgotten", "--", "MixedCase")
    node.nodetool("snapshot", "-t", "pra-before-x", "--", "MixedCase")
    old = time.time() - 2 * 24 * 3600
    for name in ("pra-forgotten", "pra-before-x"):
        for data in node.data:
            for path in data.glob(f"*/*/snapshots/{name}"):
                os.utime(path, (old, old))
    take(build(node, tables=["MixedCase.other"]), tmp_path)
    assert "pra-forgotten" not in snapshots(node)
    assert "pra-before-x" in snapshots(node)
    node.nodetool("clearsnapshot", "-t", "pra-before-x")


def test_live_data_is_replaced_by_force_only_and_kept(node: Node, saved: Path):
    source = build(node)
    before = {table: rows(node, table=table) for table in ("Table2", "other", "seen")}
    with node.session() as session:
        session.execute('DELETE FROM "MixedCase"."Table2" WHERE id IN (1, 2, 3)')
        session.execute('INSERT INTO "MixedCase"."Table2" (id, gone) VALUES (1000, 1)')
        session.execute('DELETE FROM "MixedCase".other WHERE a = %s', ("p1",))
    options = {"keyspace": "MixedCase"}
    with pytest.raises(RefusedError, match=r"MixedCase\.Table2"):
        put_back(source, saved, options=options)
    assert any(
        "would replace MixedCase.Table2" in line
        for line in put_back(source, saved, options=options, force=True, dry_run=True)
    )
    assert rows(node) != before["Table2"]
    state = MemoryState()
    done = put_back(source, saved, options=options, force=True, state=state)
    assert "MixedCase.Table2: 200 rows at LOCAL_QUORUM" in done
    assert {table: rows(node, table=table) for table in before} == before
    assert not state.pending()
    assert "pra-before-restore1" in snapshots(node)
    assert not [path for data in node.data for path in data.iterdir() if path.name.startswith("pra-")]
    with node.session() as session:
        assert len(list(session.execute('SELECT id FROM "MixedCase"."Table2" WHERE gone = 3'))) == 29


def test_a_dropped_keyspace_comes_back_with_its_ids(node: Node, saved: Path):
    source = build(node)
    before = {table: rows(node, table=table) for table in ("Table2", "other", "seen")}
    with node.session() as session:
        session.execute('DROP KEYSPACE "MixedCase"')
    done = put_back(source, saved, options={"plan": "b"})
    assert {table: rows(node, table=table) for table in before} == before
    assert any("cleanup MixedCase" in line for line in done)
    assert any(line.startswith("UN") for line in done)


def test_other_names(node: Node, saved: Path):
    source = build(node)
    put_back(source, saved, options={"keyspace": "MixedCase", "table": "Table2", "as_table": "Again"})
    assert rows(node, table="Again") == rows(node)
    with node.session() as session:
        assert len(list(session.execute('SELECT id FROM "MixedCase"."Again" WHERE gone = 3'))) == 29
    put_back(source, saved, options={"keyspace": "MixedCase", "as_keyspace": "Copy"})
    for table in ("Table2", "other", "seen"):
        assert rows(node, "Copy", table) == rows(node, table=table)
    for bad in ("a; rm -rf /", 'x"y', "../z", "-t"):
        with pytest.raises(RefusedError, match="no name in Cassandra"):
            put_back(source, saved, options={"keyspace": "MixedCase", "as_keyspace": bad})


def test_who_does_not_answer(node: Node, tmp_path: Path):
    with pytest.raises(SourceError, match=r"Cassandra: the node at 127\.0\.0\.1 port 1"):
        take(build(node, port=1), tmp_path)
    with pytest.raises(SourceError, match="nodetool"):
        take(build(node, jmx_port=1), tmp_path)
    with pytest.raises(SourceError, match=r"were not found|lacks"):
        take(build(node, data_dirs=[str(node.data[0])]), tmp_path)
