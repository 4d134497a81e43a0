"""Cassandra in a container: nodetool by exec, files through the mounts, stopped and started by plan A."""

from pathlib import Path

import pytest

from pra_agent.errors import CommandError, SourceError
from pra_agent.sources.cassandra import CassandraSettings
from tests.support.captures import MemoryState, put_back, take
from tests.support.cassandra import JAVA, LIB, Homes, Node
from tests.support.docker_engine import Dockerd
from tests.support.process import free_port

pytestmark = [
    pytest.mark.cassandra,
    pytest.mark.docker,
    pytest.mark.xdist_group("docker"),
    pytest.mark.timeout(600),
]
_JARS = "/jars"


@pytest.fixture(scope="module")
def container(dockerd: Dockerd, base_image: str, cassandra_homes: Homes):
    """A node in a container that has the host's Java; its data is on a mount below another one."""
    home = cassandra_homes.new()
    node = Node(home=home, address="127.0.0.1", native=free_port(), storage=free_port(), jmx=free_port(), base="/node")
    java = JAVA.resolve()
    options = [
        "--network",
        "host",
        "-v",
        f"{home}:/node",
        "-v",
        f"{LIB}:{_JARS}:ro",
        "-v",
        "/usr/lib/jvm:/usr/lib/jvm:ro",
    ]
    options += ["-v", "/etc/java-17-openjdk:/etc/java-17-openjdk:ro"]
    name = dockerd.run(base_image, *node.server(java=str(java), lib=_JARS), options=tuple(options))
    try:
        node.wait()
    except AssertionError:
        pytest.fail(dockerd.docker("logs", name, check=False)[-2000:] + node.tail())
    with node.session() as session:
        session.execute("CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        session.execute("CREATE TABLE shop.t (k int PRIMARY KEY, v text)")
        for number in range(100):
            session.execute("INSERT INTO shop.t (k, v) VALUES (%s, %s)", (number, "v" * number))
    yield node, name
    dockerd.remove(name)


def source(dockerd: Dockerd, node: Node, name: str, **more: object):
    command = node.nodetool_command(java=str(JAVA.resolve()), lib=_JARS)
    chosen: dict[str, object] = {"container": name, "docker": dockerd.url, "nodetool": command}
    return CassandraSettings.model_validate(node.settings(**{**chosen, **more})).build(lambda _: "")


def rows(node: Node, table: str = "shop.t") -> list[tuple[object, ...]]:
    with node.session() as session:
        return sorted(tuple(row) for row in session.execute(f"SELECT k, v FROM {table}"))


def test_out_of_a_container_and_back(dockerd: Dockerd, container: tuple[Node, str], tmp_path: Path):
    node, name = container
    cassandra = source(dockerd, node, name)
    before = rows(node)
    take(cassandra, tmp_path)
    assert not list(node.home.glob("data/*/*/snapshots/pra-*"))
    assert list(tmp_path.glob("cassandra/data/0/shop/t-*/*-Data.db"))

    done = put_back(cassandra, tmp_path, options={"keyspace": "shop", "as_keyspace": "copy"})
    assert "copy.t: 100 rows at LOCAL_QUORUM" in done
    assert rows(node, "copy.t") == before

    with node.session() as session:
        session.execute("TRUNCATE shop.t")
        session.execute("INSERT INTO shop.t (k, v) VALUES (5, 'later')")
    state = MemoryState()
    done = put_back(cassandra, tmp_path, force=True, options={"plan": "a"}, state=state)
    assert not state.pending()
    assert rows(node) == before
    assert any(line.startswith("UN") for line in done)
    with node.session() as session:
        found = session.execute("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = 'copy'")
        assert not list(found)
    assert [path.name for path in (node.home / "data").iterdir() if path.name == "copy.pra-before-restore1"]
    with pytest.raises(CommandError, match="exit status 1"):
        take(source(dockerd, node, name, jmx_port=1), tmp_path / "2")
    with pytest.raises(SourceError, match="on no volume"):
        take(source(dockerd, node, dockerd.run(dockerd.image("base"), "sleep", "60")), tmp_path / "3")
