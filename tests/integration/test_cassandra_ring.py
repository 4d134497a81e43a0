"""A ring of three real nodes, saved node by node, and its three ways back: online, offline, and onto another ring."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import SourceError
from pra_agent.model.runs import Outcome, RunRecord
from pra_agent.operations.backup import BackupRequest, backup
from pra_agent.operations.restore import RestoreRun, choose_snapshot, raise_for, restore
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.restorer import RestoreRequest, plan
from pra_agent.sources.cassandra import CassandraSettings
from pra_agent.sources.source import ReinstateContext
from pra_agent.storage.local import LocalBackend
from tests.support.captures import MemoryState
from tests.support.cassandra import OTHER_TOKENS, TOKENS, Homes, Node, start_all, stop_all
from tests.support.repositories import PASSWORD, SETTINGS
from tests.support.restic import Restic

pytestmark = [
    pytest.mark.cassandra,
    pytest.mark.slow,
    pytest.mark.xdist_group("cassandra"),
    pytest.mark.timeout(900),
]
PARTITIONS, ROWS = 1000, 100


@dataclass(frozen=True)
class Agent:
    """One node's agent: its repository, the records of its runs and what it restored."""

    node: Node
    root: Path
    first: RunRecord
    second: RunRecord
    restored: Path


def source(node: Node, **more: object):
    return CassandraSettings.model_validate(node.settings(**more)).build(lambda _: "")


def load(node: Node) -> None:
    with node.session() as session:
        session.execute("CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 2}")
        session.execute("CREATE TABLE shop.orders (p int, c int, v text, n bigint, PRIMARY KEY (p, c))")
        session.execute("CREATE TABLE shop.small (k text PRIMARY KEY, v int)")
        row = "INSERT INTO shop.orders (p, c, v, n) VALUES (?, ?, ?, ?);"
        many = session.prepare("BEGIN UNLOGGED BATCH " + row * ROWS + " APPLY BATCH")
        sent = []
        for p in range(PARTITIONS):
            values = [part for c in range(ROWS) for part in (p, c, hashlib.md5(f"{p}.{c}".encode()).hexdigest(), p * c)]
            sent.append(session.execute_async(many, values))
            if len(sent) >= 16:
                sent.pop(0).result()
        for future in sent:
            future.result()
        session.execute("INSERT INTO shop.small (k, v) VALUES ('a', 1)")


def checksum(node: Node, table: str = "shop.orders") -> tuple[int, str]:
    """Rows and a sum of all rows in their order, read at QUORUM."""
    digest = hashlib.sha256()
    rows = node.rows(f"SELECT p, c, v, n, writetime(v) FROM {table}", "QUORUM")
    for row in rows:
        digest.update(repr(row).encode())
    return len(rows), digest.hexdigest()


@pytest.fixture(scope="module")
def ring(cassandra_homes: Homes) -> list[Node]:
    nodes = cassandra_homes.ring(TOKENS, "pra-ring")
    load(nodes[0])
    return nodes


@pytest.fixture(scope="module")
def truth(ring: list[Node]) -> tuple[int, str]:
    found = checksum(ring[0])
    assert found[0] == PARTITIONS * ROWS
    return found


@pytest.fixture(scope="module")
def agents(ring: list[Node], truth: tuple[int, str], tmp_path_factory: pytest.TempPathFactory) -> list[Agent]:
    """Every node saved twice by its own agent into its own repository, then restored beside."""
    made = []
    for number, node in enumerate(ring, 1):
        root = tmp_path_factory.mktemp(f"agent{number}")
        name = f"cass-{number}"
        repository = Repository.init(
            LocalBackend(root / "repository"), PASSWORD, clock=SystemClock(), host=this_host(name), settings=SETTINGS
        )
        records = []
        for run in ("first", "second"):
            request = BackupRequest(run=run, job="cassandra", node=name, source=source(node), state=MemoryState())
            records.append(backup(request, repository))
        target = root / "restored"
        snapshot = choose_snapshot(repository.snapshots(), "cassandra")
        record = restore(
            RestoreRun("restore", snapshot), plan(repository, snapshot, RestoreRequest(target=target)), repository
        )
        raise_for(record)
        made.append(Agent(node, root / "repository", records[0], records[1], target))
    return made


def bring_back(node: Node, restored: Path, *, force: bool = False, **options: str) -> list[str]:
    context = ReinstateContext(
        run="back", job="cassandra", restored=str(restored), state=MemoryState(), force=force, options=options
    )
    return list(source(node).reinstate(context))


def test_an_unchanged_run_reads_and_adds_next_to_nothing(agents: list[Agent]):
    for agent in agents:
        assert agent.first.outcome is Outcome.SUCCESS
        assert agent.second.outcome is Outcome.SUCCESS
        assert agent.second.files_unmodified > 0
        assert int(str(agent.second.detail["bytes_read"])) < int(str(agent.first.detail["bytes_read"])) / 100
        assert agent.second.bytes_added < agent.first.bytes_added / 100
        assert agent.first.detail["cluster"] == "pra-ring"
        assert agent.first.detail["local_snapshot_bytes"] == 0
    Restic(agents[0].root, PASSWORD).check()


def test_a_dropped_keyspace_comes_back_online(agents: list[Agent], truth: tuple[int, str]):
    with agents[0].node.session() as session:
        session.execute("DROP KEYSPACE shop")
    for agent in agents:
        bring_back(agent.node, agent.restored, plan="b", count="no")
    # Both replicas of each row are read.
    assert checksum(agents[1].node) == truth


def test_one_table_under_another_name(agents: list[Agent], truth: tuple[int, str]):
    for agent in agents:
        bring_back(agent.node, agent.restored, keyspace="shop", table="orders", as_table="orders_then", count="no")
    assert checksum(agents[2].node, "shop.orders_then") == truth


def test_the_whole_ring_comes_back_offline(agents: list[Agent], truth: tuple[int, str]):
    nodes = [agent.node for agent in agents]
    with nodes[1].session() as session:
        session.execute("DELETE FROM shop.orders WHERE p = 7")
        session.execute("DROP TABLE shop.small")
    with pytest.raises(SourceError, match="Cassandra is running"):
        bring_back(nodes[0], agents[0].restored, force=True, plan="a")
    stop_all(nodes)
    for agent in agents:
        done = bring_back(agent.node, agent.restored, force=True, plan="a")
        assert f"initial_token: {agent.node.token}" in done
        kept = {path.name for path in agent.node.data[0].iterdir() if "pra-before" in path.name}
        assert "shop.pra-before-back" in kept
    start_all(nodes)
    assert checksum(nodes[1]) == truth
    with nodes[2].session() as session:
        assert [tuple(row) for row in session.execute("SELECT * FROM shop.small")] == [("a", 1)]
        # What was made after the snapshot is gone with the schema of its time.
        assert not list(
            session.execute(
                "SELECT * FROM system_schema.tables WHERE keyspace_name='shop' AND table_name='orders_then'"
            )
        )


def test_onto_a_ring_of_other_tokens(agents: list[Agent], truth: tuple[int, str], cassandra_homes: Homes):
    stop_all([agent.node for agent in agents])
    others = cassandra_homes.ring(OTHER_TOKENS, "pra-other")

    def every_snapshot(node: Node) -> None:
        for number, agent in enumerate(agents, 1):
            cleanup = "run" if number == len(agents) else "print"
            bring_back(node, agent.restored, keyspace="shop", table="orders", mode="add", count="no", cleanup=cleanup)

    every_snapshot(others[0])
    with ThreadPoolExecutor() as pool:
        list(pool.map(every_snapshot, others[1:]))
    assert checksum(others[2]) == truth
    facts: Mapping[str, object] = json.loads((agents[0].restored / "cassandra/facts.json").read_text())
    assert isinstance(facts["node"], dict)
    assert facts["node"]["tokens"] != [others[0].token]
