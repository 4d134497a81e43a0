"""What no job protects, without any server: which names a job selects, and the lines that would protect the rest."""

import pytest
from ruamel.yaml import YAML

from pra_agent.config.models import Job
from pra_agent.operations import coverage
from pra_agent.operations.coverage import Coverage, has_index, job_lines, look
from pra_agent.sources.docker_volume import DockerVolumeSettings
from pra_agent.sources.docker_volume.discovery import Found
from pra_agent.sources.dump import DumpSettings
from pra_agent.sources.elasticsearch import ElasticsearchSettings
from pra_agent.sources.files import FilesSettings

NASTY = ["a; rm -rf /", "yes", "x: {y}", "-rf", "été ☃", "1e3", "", "a" * 200, "#", 'it\'s "q"']


@pytest.fixture(autouse=True)
def no_engine(monkeypatch, tmp_path):
    monkeypatch.setattr(coverage, "_SOCKET", tmp_path / "none.sock")
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def _resolve(_reference: object) -> str:
    raise AssertionError("no secret is needed")


@pytest.mark.parametrize("name", NASTY)
def test_the_lines_are_a_job_whatever_the_name(name):
    source = {"type": "dump", "preset": "mariadb", "databases": [name or "x"], "port": 3306}
    told = YAML(typ="safe").load(job_lines(name, source, ["more", "db"]))
    ((job, configured),) = told["jobs"].items()
    assert job not in {"more", "db"}
    assert configured["source"]["databases"] == [name or "x"]
    assert Job.model_validate(configured | {"name": job}).source.type == "dump"


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        (["*"], "logs", True),
        (["*", "-logs*"], "logs-1", False),
        (["logs*"], "orders", False),
        (["*", "-logs*", "logs-1"], "logs-1", True),
        ([], "x", False),
    ],
)
def test_patterns_of_indices(patterns, name, expected):
    assert has_index(patterns, name) is expected


def test_with_nothing_to_ask_nothing_is_known():
    found = look({"app": FilesSettings.model_validate({"paths": ["/srv"]})}, _resolve)
    assert found == Coverage()
    assert set(found.numbers().values()) == {None}


def test_what_is_protected_by_whom(monkeypatch):
    there = [
        Found("volume", "saved", "/v/saved"),
        Found("volume", "db", "/v/db", frozenset({"glpi_db"})),
        Found("volume", "lost", "/v/lost", frozenset({"web"})),
        Found("volume", "cache", "/v/cache"),
        Found("bind", "/srv/app/files", "/srv/app/files"),
        Found("bind", "/srv/other", "/srv/other"),
    ]
    from pra_agent.sources.docker_volume import discovery

    monkeypatch.setattr(discovery, "discover", lambda _address: there)
    monkeypatch.setattr(discovery, "selected", lambda job: {("volume", job.volume)})
    jobs = {
        "v": DockerVolumeSettings(volume="saved", docker="unix:///e.sock"),
        "d": DumpSettings(preset="redis", container="glpi_db", docker="unix:///e.sock"),
        "f": FilesSettings.model_validate({"paths": ["/srv/app"]}),
    }
    found = look(jobs, _resolve, intended=["volume/ca*"])
    assert [(one.kind, one.name) for one in found.unprotected] == [("volume", "lost"), ("bind", "/srv/other")]
    assert found.counted == {"volume": 4, "bind": 2}
    assert found.numbers() == {"volume": 1, "bind": 1, "keyspace": None, "index": None, "database": None}
    lines = [YAML(typ="safe").load(one.lines)["jobs"] for one in found.unprotected]
    wanted = {"type": "docker_volume", "volume": "lost", "docker": "unix:///e.sock"}
    assert lines == [
        {"lost": {"source": wanted}},
        {"srv-other": {"source": {"type": "files", "paths": ["/srv/other"]}}},
    ]


def test_databases_and_indices_that_no_job_names(monkeypatch):
    from pra_agent.sources.dump.source import DumpSource
    from pra_agent.sources.elasticsearch.source import ElasticsearchSource

    monkeypatch.setattr(DumpSource, "databases_there", lambda _self: ["glpi", "a; rm -rf /", "stats"])
    monkeypatch.setattr(ElasticsearchSource, "indices_there", lambda _self: ["orders", "logs"])
    jobs = {
        "one": DumpSettings(preset="mariadb", databases=("glpi",), user="root"),
        "two": DumpSettings(preset="mariadb", databases=("stats",), user="root"),
        "es": ElasticsearchSettings.model_validate({"mode": "fs", "location": "/b", "indices": ["or*"]}),
    }
    found = look(jobs, _resolve)
    assert [(one.kind, one.name) for one in found.unprotected] == [("database", "a; rm -rf /"), ("index", "logs")]
    more, changed = (YAML(typ="safe").load(one.lines)["jobs"] for one in found.unprotected)
    assert more["a-rm-rf"]["source"]["databases"] == ["a; rm -rf /"]
    assert changed["es"]["source"]["indices"] == ["or*", "logs"]
    whole = look(jobs | {"all": DumpSettings(preset="mariadb")}, _resolve)
    assert [one.kind for one in whole.unprotected] == ["index"]


def test_a_place_that_cannot_be_asked_is_told():
    jobs = {"v": DockerVolumeSettings(volume="x", docker="unix:///nonexistent/docker.sock")}
    found = look(jobs, _resolve)
    assert list(found.unknown) == ["docker unix:///nonexistent/docker.sock"]
    assert found.unprotected == []
    assert found.numbers()["volume"] is None
