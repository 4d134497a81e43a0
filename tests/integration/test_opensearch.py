"""OpenSearch through the same Snapshot API, into a real S3 server by itself (mode s3)."""

import json

import pytest

from pra_agent.errors import SourceError
from pra_agent.sources.elasticsearch import ElasticsearchSettings
from tests.support.captures import put_back, take
from tests.support.elasticsearch import Node, opensearch_node

pytestmark = [pytest.mark.elasticsearch, pytest.mark.xdist_group("elasticsearch"), pytest.mark.timeout(900)]
DOCUMENTS = 50_000


@pytest.fixture(scope="module")
def cluster(versitygw):
    s3 = {
        "endpoint": versitygw.endpoint,
        "access_key": versitygw.access_key,
        "secret_key": versitygw.secret_key,
    }
    node = opensearch_node("os1", s3=s3)
    try:
        node.start()
        node.wait()
        yield node
    finally:
        node.stop()


def _settings(node: Node, bucket: str, **more: object) -> ElasticsearchSettings:
    s3 = {"bucket": bucket, "base_path": "search", "path_style": True}
    base = {"url": node.url, "mode": "s3", "accept_no_client_encryption": True, "s3": s3, "timeout": "5m"}
    return ElasticsearchSettings.model_validate(base | more)


def test_there_and_back_through_s3(cluster: Node, versitygw, tmp_path):
    bucket = versitygw.new_bucket()
    source = _settings(cluster, bucket).build()
    cluster.ask("PUT", "/orders", {"settings": {"number_of_replicas": 0}, "aliases": {"current": {}}})
    cluster.fill("orders", DOCUMENTS)
    take(source, tmp_path / "1", run="one")
    listed = versitygw.client().list_objects_v2(Bucket=bucket, Prefix="search/")["Contents"]
    size = sum(one["Size"] for one in listed)
    cluster.ask("POST", "/orders/_doc?refresh=true", {"n": -1})
    take(source, tmp_path / "2", run="two")
    again = versitygw.client().list_objects_v2(Bucket=bucket, Prefix="search/")["Contents"]
    assert sum(one["Size"] for one in again) < size * 1.5
    facts = json.loads((tmp_path / "2/elasticsearch/facts.json").read_text())
    assert facts["documents"]["orders"][-1] == DOCUMENTS + 1
    assert facts["s3"]["bucket"] == bucket
    assert not (tmp_path / "2/elasticsearch/repository").exists()
    cluster.ask("DELETE", "/orders")
    assert put_back(source, tmp_path / "1") == [f"orders: restored as orders, {DOCUMENTS} documents"]
    rename = {"rename_pattern": "orders", "rename_replacement": "orders-copy"}
    put_back(source, tmp_path / "2", options=rename)
    assert cluster.count("orders-copy") == DOCUMENTS + 1
    assert "orders" in cluster.ask("GET", "/_alias/current")


def test_old_snapshots_are_deleted_but_never_the_last(cluster: Node, versitygw, tmp_path):
    bucket = versitygw.new_bucket()
    cluster.ask("PUT", "/tiny", {"settings": {"number_of_replicas": 0}})
    cluster.fill("tiny", 10)
    settings = _settings(cluster, bucket, repository="short", retain="1s", retain_min=2, indices=["tiny"])
    for number in range(4):
        take(settings.build(), tmp_path / str(number), run=f"r{number}")
    names = [one["snapshot"] for one in cluster.ask("GET", "/_snapshot/short/pra-*")["snapshots"]]
    assert "pra-r3" in names
    assert 2 <= len(names) <= 3


def test_no_bucket_no_snapshot(cluster: Node, tmp_path):
    with pytest.raises(SourceError, match="not all nodes can use"):
        take(_settings(cluster, "no-such-bucket-here", repository="broken").build(), tmp_path)
    with pytest.raises(SourceError, match="is registered"):
        take(_settings(cluster, "x", repository="unknown", s3=None).build(), tmp_path)
