"""Cassandra without a node: CQL, options, what is kept, the walk over a snapshot, the tokens of a configuration."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.cassandra import CassandraSettings, cql
from pra_agent.sources.cassandra.places import find_places
from pra_agent.sources.cassandra.restored import read_choice, read_restored
from pra_agent.sources.cassandra.system import SYSTEM, keeps, online
from pra_agent.sources.cassandra.walk import Found, SnapshotWalk, snapshot_bytes
from pra_agent.sources.cassandra.yaml import put_tokens_back, write_tokens
from pra_agent.sources.source import Entry, Missed

TABLE = """CREATE TABLE "Mixed"."T" (
    id int PRIMARY KEY,
    "Mixed" frozen<address>, -- "Mixed"."T";
    v text
) WITH ID = fbe94830-eca3-11f1-a8ee-4d976cf9ddba
    AND comment = 'it''s "Mixed"."T"; all';
ALTER TABLE "Mixed"."T" DROP gone USING TIMESTAMP 1;"""
FUNCTION = """CREATE FUNCTION mixed.f (x int) RETURNS int LANGUAGE java AS $$ return mixed.f; $$;"""


def test_statements_are_split_outside_of_strings_and_bodies():
    create, alter = cql.statements(TABLE)
    assert cql.written(create).endswith("all'")
    assert cql.written(alter) == 'ALTER TABLE "Mixed"."T" DROP gone USING TIMESTAMP 1'
    assert len(cql.statements(FUNCTION)) == 1
    assert cql.statements(" ;; -- nothing\n") == []


def test_nothing_is_lost_in_tokens():
    for text in (TABLE, FUNCTION, "'unfinished", '"', "$$ half"):
        assert "".join(token.text for token in cql.tokens(text)) == text


def test_another_name_is_given_where_a_name_is():
    names = cql.Renaming("Mixed", "Copy", "T", "U")
    create, alter = (cql.written(cql.renamed(each, names)) for each in cql.statements(TABLE))
    assert create.startswith('CREATE TABLE "Copy"."U" (')
    assert """comment = 'it''s "Mixed"."T"; all\'""" in create
    assert '"Mixed" frozen<address>' in create
    assert "fbe94830" not in create
    assert alter.startswith('ALTER TABLE "Copy"."U" DROP')
    (function,) = cql.statements(FUNCTION)
    written = cql.written(cql.renamed(function, cql.Renaming("mixed", "Copy")))
    assert written.startswith('CREATE FUNCTION "Copy".f')
    assert "$$ return mixed.f; $$" in written


def test_the_id_of_a_copy_is_the_same_on_each_node():
    (create, _) = cql.statements(TABLE)
    names = cql.Renaming("Mixed", "Copy", "T", "U")
    assert cql.renamed(create, names) == cql.renamed(create, names)
    assert cql.renamed(create, names) != cql.renamed(create, cql.Renaming("Mixed", "Copy", "T", "W"))


def test_a_keyspace_gets_another_name():
    (pieces,) = cql.statements("CREATE KEYSPACE mixed WITH replication = {'class': 'SimpleStrategy'};")
    written = cql.written(cql.if_not_exists(cql.renamed(pieces, cql.Renaming("mixed", "Copy"))))
    assert written.startswith('CREATE KEYSPACE IF NOT EXISTS "Copy" WITH')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE TABLE a.b (c int)", "CREATE TABLE IF NOT EXISTS a.b (c int)"),
        ("CREATE TABLE IF NOT EXISTS a.b (c int)", "CREATE TABLE IF NOT EXISTS a.b (c int)"),
        ("CREATE CUSTOM INDEX i ON a.b (c)", "CREATE CUSTOM INDEX IF NOT EXISTS i ON a.b (c)"),
        ("CREATE MATERIALIZED VIEW a.v AS SELECT", "CREATE MATERIALIZED VIEW IF NOT EXISTS a.v AS SELECT"),
        ("ALTER TABLE a.b ADD c int", "ALTER TABLE a.b ADD c int"),
    ],
)
def test_if_not_exists(text: str, expected: str):
    assert cql.written(cql.if_not_exists(cql.tokens(text))) == expected


def test_indexes_of_a_copy_have_names_of_their_own():
    names = cql.Renaming("k", "k", "t", "u")
    for custom in ("", "CUSTOM "):
        (pieces,) = cql.statements(f'CREATE {custom}INDEX "By V" ON k.t (v)')
        assert cql.written(cql.renamed(pieces, names)) == f'CREATE {custom}INDEX "By V_u" ON "k"."u" (v)'


def test_the_table_of_an_index():
    assert cql.indexed('CREATE INDEX i ON "Mixed"."T" (c)') == "T"
    assert cql.indexed("CREATE CUSTOM INDEX i ON b (c) USING 'sai'") == "b"
    assert cql.indexed("CREATE TABLE x") == ""


def test_names_and_their_quotes():
    assert cql.bare('"a""b"') == 'a"b'
    assert cql.bare("ab") == "ab"
    assert cql.quoted('a"b') == '"a""b"'


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "say how a whole node comes back"),
        ({"plan": "c"}, "one of a, b"),
        ({"shell": "x"}, "no option shell"),
        ({"plan": "a", "keyspace": "k"}, "takes the whole node"),
        ({"table": "t", "plan": "b"}, "needs keyspace"),
        ({"as_keyspace": "t", "plan": "b"}, "needs keyspace"),
        ({"keyspace": "k", "as_table": "t"}, "needs"),
        ({"keyspace": "a; rm -rf /"}, "no name in Cassandra"),
        ({"keyspace": "../x"}, "no name in Cassandra"),
        ({"keyspace": "k", "as_keyspace": '"; DROP"'}, "no name in Cassandra"),
    ],
)
def test_options_are_checked(options: dict[str, str], why: str):
    with pytest.raises(RefusedError, match=why):
        read_choice(options)


def test_one_keyspace_is_plan_b():
    choice = read_choice({"keyspace": '"MixedCase"'})
    assert (choice.plan, choice.keyspace, choice.of("mode")) == ("b", "MixedCase", "replace")


def test_what_of_the_system_is_kept():
    assert keeps("shop", "orders")
    assert keeps("system", "local")
    assert keeps("system_auth", "roles")
    assert keeps("system_cluster_metadata", "of_a_later_version")
    assert not keeps("system", "compaction_history")
    assert not keeps("system_traces", "events")
    assert online("shop", named=False)
    assert not online("system_auth", named=False)
    assert online("system_auth", named=True)
    assert not online("system", named=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"keyspaces": ["a; rm -rf /"]},
        {"tables": ["no_keyspace"]},
        {"tables": ["a.b"], "keyspaces": ["a"]},
        {"container": "-rf"},
        {"container": "c", "unit": "u"},
        {"user": "u"},
        {"user": "u", "password": "plain"},
        {"jmx_user": "u"},
        {"jmx_host": "-pw"},
        {"jmx_user": "-pw secret", "jmx_password_file": "/x"},
        {"nodetool": []},
        {"tls": {"ca_file": "/x", "cert_file": "/y"}},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object]):
    with pytest.raises(ValidationError):
        CassandraSettings.model_validate(settings)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A data directory with one table and a snapshot of it."""
    table = tmp_path / "data" / "shop" / f"orders-{'1' * 32}"
    snapshot = table / "snapshots" / "pra-run"
    (snapshot / ".by_v").mkdir(parents=True)
    for name in ("nb-1-big-Data.db", "nb-1-big-TOC.txt", ".by_v/nb-1-big-Data.db"):
        (table / name).parent.mkdir(exist_ok=True)
        (table / name).write_bytes(b"x" * 10)
        os.link(table / name, snapshot / name)
    (snapshot / "manifest.json").write_text(json.dumps({"files": ["nb-1-big-Data.db"]}))
    (snapshot / "schema.cql").write_text("CREATE TABLE ...")
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    yield table, fd
    os.close(fd)


def walk(fd: int) -> tuple[SnapshotWalk, list[Entry | Missed]]:
    found = SnapshotWalk([fd], b"pra-run", lambda _: True)
    return found, list(found.entries())


def test_the_logical_path_has_no_snapshot_in_it(data: tuple[Path, int]):
    table, fd = data
    walked, entries = walk(fd)
    top = b"/cassandra/data/0/shop"
    place = top + b"/" + os.fsencode(table.name)
    paths = [entry.path for entry in entries]
    assert paths == [
        top,
        place,
        place + b"/nb-1-big-Data.db",
        place + b"/nb-1-big-TOC.txt",
        place + b"/.by_v",
        place + b"/.by_v/nb-1-big-Data.db",
    ]
    assert walked.missing() == []
    assert walked.met == {("shop", "1" * 32)}
    assert all(entry.node.links == 1 for entry in entries if isinstance(entry, Entry) and entry.file)


def test_an_sstable_that_the_manifest_names_must_be_met(data: tuple[Path, int]):
    table, fd = data
    (table / "snapshots/pra-run/nb-1-big-Data.db").unlink()
    walked, _ = walk(fd)
    assert walked.missing() == [f"shop {'1' * 32}: nb-1-big-Data.db"]


def test_symlinks_are_not_followed(data: tuple[Path, int], tmp_path: Path):
    table, fd = data
    (table / "snapshots/pra-run/nb-2-big-Data.db").symlink_to("/etc/passwd")
    (tmp_path / "data/shop" / f"evil-{'2' * 32}").symlink_to(table)
    _, entries = walk(fd)
    assert [entry.reason for entry in entries if isinstance(entry, Missed)] == ["it is no regular file"]
    assert not [entry for entry in entries if b"evil" in os.fsencode(entry.path)]


def test_bytes_that_snapshots_alone_hold(data: tuple[Path, int]):
    table, fd = data
    assert snapshot_bytes([fd]) == 0
    (table / "nb-1-big-Data.db").unlink()
    assert snapshot_bytes([fd]) == 10


def test_found():
    found = Found(b"shop", b"a-b-" + b"1" * 32)
    assert (found.table, found.key) == ("a-b", ("shop", "1" * 32))


def test_where_directories_are(tmp_path: Path):
    plain = CassandraSettings.model_validate({})
    told = {"data": ["/d1", "/d2"], "commitlog": ["/c"]}
    places = find_places(plain, told)
    assert [str(place.host) for place in places.data] == ["/d1", "/d2"]
    assert str(places.others["commitlog"].host) == "/c"
    with pytest.raises(SourceError, match="does not tell"):
        find_places(plain, {})
    named = CassandraSettings.model_validate({"data_dirs": [str(tmp_path)]})
    assert [(str(place.host), place.node) for place in find_places(named, {}).data] == [(str(tmp_path), str(tmp_path))]


def test_restored_files_that_are_none(tmp_path: Path):
    with pytest.raises(SourceError, match=r"facts\.json"):
        read_restored(str(tmp_path))
    (tmp_path / "cassandra").mkdir()
    (tmp_path / "cassandra/schema.json").write_text("[]")
    for text in ("{}", "[", '{"format": 1, "host_directories": {"data": ["/d"]}, "node": {}}'):
        (tmp_path / "cassandra/facts.json").write_text(text)
        with pytest.raises(SourceError, match=r"facts\.json"):
            read_restored(str(tmp_path))


def test_tokens_are_written_and_the_rest_is_left(tmp_path: Path):
    path = tmp_path / "cassandra.yaml"
    path.write_text("# a comment\ncluster_name: x\n# initial_token:\nnum_tokens: 16\nhints: y\n")
    line = write_tokens(path, ["-5", "7"], "r")
    assert path.read_text() == "# a comment\ncluster_name: x\ninitial_token: '-5,7'\nnum_tokens: 2\nhints: y\n"
    assert "num_tokens: 16" in (tmp_path / "cassandra.yaml.pra-before-r").read_text()
    assert "2 tokens" in line
    put_tokens_back(path, "r")
    assert "num_tokens: 16" in path.read_text()
    path.write_text("a: b")
    write_tokens(path, ["1"], "s")
    assert path.read_text() == "a: b\ninitial_token: '1'\nnum_tokens: 1\n"
    with pytest.raises(SourceError, match="cannot be written"):
        write_tokens(tmp_path / "missing", ["1"], "r")


def test_the_documents_tell_what_of_the_system_is_kept():
    text = (Path(__file__).parents[3] / "docs" / "cassandra.md").read_text()
    assert "\n".join(system_table()) in text


def system_table() -> list[str]:
    """The table of the documents."""
    lines = ["| keyspace | kept | plan A | plan B | why | left out of it |", "|---|---|---|---|---|---|"]
    for one in SYSTEM:
        without = ", ".join(f"`{name}`" for name in sorted(one.without))
        kept, plan_a = ("yes" if yes else "no" for yes in (one.kept, one.plan_a))
        lines.append(f"| `{one.name}` | {kept} | {plan_a} | {one.plan_b} | {one.why} | {without} |")
    return lines
