"""Elasticsearch by its Snapshot API: saved through our repository's way, put back, renamed, refused."""

import json
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest

from pra_agent.errors import RefusedError, SkippedError, SourceError
from pra_agent.sources.elasticsearch import ElasticsearchSettings
from pra_agent.sources.source import Missed, Source
from tests.support import captures
from tests.support.captures import MemoryState, put_back
from tests.support.elasticsearch import PASSWORD, Node, elasticsearch_node

pytestmark = [pytest.mark.elasticsearch, pytest.mark.xdist_group("elasticsearch"), pytest.mark.timeout(900)]
DOCUMENTS = 50_000


def take(source: Source, target: Path, *, run: str = "", state: MemoryState | None = None) -> list[Missed]:
    """Capture under a run id that no other test has."""
    return captures.take(source, target, run=run or f"Run{uuid.uuid4().hex[:8]}", state=state)


def _settings(node: Node, **more: object) -> ElasticsearchSettings:
    return ElasticsearchSettings.model_validate(
        {"url": node.url, "mode": "fs", "location": str(node.repo / "pra"), "timeout": "3m", **more}
    )


@pytest.fixture(scope="module")
def filled(elasticsearch: Node) -> Node:
    settings = {"settings": {"number_of_replicas": 0}, "aliases": {"current": {}}}
    elasticsearch.ask("PUT", "/orders", settings)
    elasticsearch.fill("orders", DOCUMENTS)
    elasticsearch.ask("PUT", "/small", {"settings": {"number_of_replicas": 0}})
    elasticsearch.fill("small", 10)
    return elasticsearch


@pytest.fixture
def clean(filled: Node):
    yield filled
    for row in filled.ask("GET", "/_cat/indices?format=json&expand_wildcards=all"):
        if row["index"].startswith(("before-", "copy-", "extra")):
            filled.ask("DELETE", f"/{row['index']}")


def test_incremental_deleted_and_restored(clean: Node, tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    take(_settings(clean).build(), first, run="Run1")
    before = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    clean.ask("POST", "/small/_doc?refresh=true", {"n": 11})
    take(_settings(clean).build(), second, run="run2")
    # Incremental: the segments of the large index are the files that were there.
    large = [path for path in before if (first / path).stat().st_size > 100_000]
    assert large
    assert all((second / path).exists() for path in large)
    facts = json.loads((second / "elasticsearch/facts.json").read_text())
    assert facts["documents"]["orders"][-1] == DOCUMENTS
    assert facts["versions"] == ["8.7.1"]
    clean.ask("DELETE", "/orders,small")
    done = put_back(_settings(clean).build(), second)
    assert f"orders: restored as orders, {DOCUMENTS} documents" in done
    assert clean.count("orders") == DOCUMENTS
    assert clean.count("small") == 11
    assert clean.ask("GET", "/_alias/current") == {"orders": {"aliases": {"current": {}}}}
    assert "pra-restore" not in str(clean.ask("GET", "/_snapshot"))
    assert not [path for path in (clean.repo / "pra").iterdir() if "restore" in path.name]


def test_live_data_is_refused_renamed_or_kept(clean: Node, tmp_path):
    source = _settings(clean).build()
    take(source, tmp_path)
    with pytest.raises(RefusedError, match="orders, small exists"):
        put_back(source, tmp_path)
    rename = {"indices": "small", "rename_pattern": "(.+)", "rename_replacement": "copy-$1"}
    assert put_back(source, tmp_path, options=rename)[0].startswith("small: restored as copy-small")
    had = clean.count("small")
    clean.ask("POST", "/small/_doc?refresh=true", {"n": 12})
    done = put_back(source, tmp_path, force=True, options={"indices": "small"}, run="R9")
    assert done[0] == "small: what was there is kept as before-r9-small"
    assert clean.count("small") == had
    assert clean.count("before-r9-small") == had + 1
    with pytest.raises(SourceError, match="no index 'nope'"):
        put_back(source, tmp_path, options={"indices": "nope"})


def test_the_directory_does_not_grow_for_ever(clean: Node, tmp_path):
    for number in range(4):
        take(_settings(clean).build(), tmp_path / str(number), run=f"keep{number}")
    names = [one["snapshot"] for one in clean.ask("GET", "/_snapshot/pra-agent/pra-*")["snapshots"]]
    assert len(names) == 2
    assert "pra-keep3" in names


def test_partial_names_its_shards(clean: Node, tmp_path):
    clean.ask("PUT", "/extra", {"settings": {"number_of_shards": 2, "number_of_replicas": 0}})
    clean.fill("extra", 100)
    uuid = clean.ask("GET", "/_cat/indices/extra?format=json&h=uuid")[0]["uuid"]
    clean.ask("POST", "/extra/_flush")
    clean.ask("POST", "/extra/_close")
    shutil.rmtree(next(clean.home.glob(f"data/**/indices/{uuid}/1")))
    clean.ask("POST", "/extra/_open?wait_for_active_shards=0")
    missed = take(_settings(clean).build(), tmp_path)
    assert [one.path for one in missed] == ["shard extra[1]"]


def test_a_crash_leaves_no_snapshot_behind(clean: Node):
    state = MemoryState()
    state.remember("snapshot under way", {"name": "Crashed"})
    _settings(clean).build().undo(state)
    assert not state.pending()


def test_bad_jobs(clean: Node, tmp_path):
    with pytest.raises(SourceError, match=r"not all nodes can use|location"):
        take(_settings(clean, location="/nonexistent/pra", repository="other").build(), tmp_path)
    with pytest.raises(SourceError, match="cannot be read"):
        take(_settings(clean, path="/nonexistent/here").build(), tmp_path)
    with pytest.raises(SourceError, match="no such index"):
        take(_settings(clean, indices=["missing"]).build(), tmp_path)
    with pytest.raises(SourceError, match="refused"):
        take(_settings(clean, url="http://127.0.0.1:1").build(), tmp_path)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"mode": "s3"}, "accept_no_client_encryption"),
        ({"mode": "fs"}, "needs location"),
        ({"mode": "fs", "location": "/x", "repository": "../x"}, "pattern"),
        ({"mode": "fs", "location": "/x", "url": "http://user:pw@host"}, "pattern"),
        ({"mode": "fs", "location": "/x", "password": {"env": "X"}}, "user and password"),
    ],
)
def test_settings_that_make_no_sense(bad, says):
    with pytest.raises(ValueError, match=says):
        ElasticsearchSettings.model_validate(bad)


def test_two_nodes_one_snapshot(tmp_path):
    """Agents on both nodes: the one beside the elected master saves, the other skips; unshared storage is refused."""
    shared = Path(tempfile.mkdtemp(prefix="pra-shared-", dir="/var/tmp"))
    shared.chmod(0o777)
    nodes = [elasticsearch_node(name, repo=shared, discovery__type="multi-node") for name in ("n1", "n2")]
    seeds = json.dumps([f"127.0.0.1:{node.transport}" for node in nodes])
    for node in nodes:
        with (node.home / "config/elasticsearch.yml").open("a") as config:
            config.write(f'discovery.seed_hosts: {seeds}\ncluster.initial_master_nodes: ["n1", "n2"]\n')
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait(2)
        nodes[0].ask("PUT", "/orders", {"settings": {"number_of_replicas": 1, "number_of_shards": 2}})
        nodes[0].fill("orders", 2000)
        nodes[0].ask("GET", "/_cluster/health/orders?wait_for_status=green&timeout=60s")
        saved, skipped = [], []
        for number, node in enumerate(nodes):
            try:
                take(_settings(node).build(), tmp_path / str(number), run=f"run-{number}")
                saved.append(number)
            except SkippedError as error:
                skipped.append(error.instant)
        assert len(saved) == len(skipped) == 1
        last = nodes[0].ask("GET", "/_snapshot/pra-agent/pra-*")["snapshots"]
        assert len(last) == 1
        for node in nodes:
            if node is not nodes[saved[0]]:
                with pytest.raises(SkippedError) as caught:
                    take(_settings(node).build(), tmp_path / "again")
                assert caught.value.instant is not None
        private = nodes[saved[0]]
        with pytest.raises(SourceError, match="not all nodes can use"):
            take(_settings(private, location=str(private.home / "repo/x"), repository="own").build(), tmp_path / "x")
        nodes[0].ask("DELETE", "/orders")
        done = put_back(_settings(private).build(), tmp_path / str(saved[0]))
        assert "orders: restored as orders, 2000 documents" in done
    finally:
        for node in nodes:
            node.stop()
        shutil.rmtree(shared)


def test_security_on(tmp_path):
    node = elasticsearch_node("secure", secure=True)
    try:
        node.start()
        node.wait()
        node.ask("PUT", "/orders", {"settings": {"number_of_replicas": 0}})
        node.fill("orders", 100)
        login = {"user": "admin", "password": {"env": "X"}, "ca_file": str(node.home / "config/certs/c.pem")}
        settings = _settings(node, **login)
        take(settings.build(lambda _ref: PASSWORD), tmp_path)
        node.ask("DELETE", "/orders")
        put_back(settings.build(lambda _ref: PASSWORD), tmp_path)
        assert node.count("orders") == 100
        with pytest.raises(SourceError, match="401") as caught:
            take(settings.build(lambda _ref: "wr0ng-password"), tmp_path / "no")
        assert "wr0ng-password" not in str(caught.value)
        with pytest.raises(SourceError, match=r"TlsError|certificate|Connection"):
            take(_settings(node, user="admin", password={"env": "X"}).build(lambda _ref: PASSWORD), tmp_path / "no")
    finally:
        node.stop()
