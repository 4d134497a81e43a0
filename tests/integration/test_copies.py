"""3-2-1: after each backup the daemon brings two directories and a bucket up to date, each with a key of its own."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from pra_agent.cli.samples import describe_tree, difference
from pra_agent.clock import SystemClock
from pra_agent.model.runs import Operation, Outcome
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.repository.settings import Settings
from pra_agent.storage.backend import Backend
from pra_agent.storage.local import LocalBackend
from pra_agent.storage.opening import open_backend
from tests.support.agent import NODE, Agent
from tests.support.process import free_port, wait_until
from tests.support.repositories import QUICK
from tests.support.restic import Restic
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.s3, pytest.mark.xdist_group("s3")]

CLOCK = SystemClock()
PLACES = ("attic", "cellar", "cloud")


def init(backend: Backend, password: str) -> None:
    with closing(backend):
        Repository.init(backend, password, clock=CLOCK, host=this_host(NODE), settings=Settings(scrypt=QUICK))


def password_file(agent: Agent, name: str) -> Path:
    path = agent.root / f"password-{name}"
    path.write_text(f"the password of {name}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def agent(tmp_path, s3_store: S3Store):
    """A host with two copies in directories and one in S3; the cellar keeps less than the others."""
    made = Agent(tmp_path / "host")
    made.init()
    made.fill(4, 50_000)
    places = {name: tmp_path / name for name in PLACES[:2]}
    copies: list[dict[str, Any]] = []
    for name, place in places.items():
        init(LocalBackend(place, clock=CLOCK), f"the password of {name}")
        copies.append({"name": name, "url": str(place), "password": {"file": str(password_file(made, name))}})
    copies[1]["keep"] = {"last": 1, "min_count": 1}
    copies[0]["off_host"] = True
    init(open_backend(s3_store.settings, CLOCK), "the password of cloud")
    settings = s3_store.settings
    copies.append(
        {
            "name": "cloud",
            "url": settings.url,
            "endpoint": settings.endpoint,
            "region": settings.region,
            "credentials": {"file": str(s3_store.server.credentials_file())},
            "password": {"file": str(password_file(made, "cloud"))},
            "timeouts": {"connect": "2s", "give_up": "4s"},
        }
    )
    made.configure(copies=copies, exporter={"listen": f"127.0.0.1:{free_port()}"})
    made.start()
    yield made
    made.stop()


def instants(agent: Agent) -> dict[str, object]:
    with agent.client() as client:
        return dict(client.jobs()[0].data_instants)


def exported(agent: Agent) -> dict[str, float]:
    """The data instant of each destination, as Prometheus sees it."""
    listen = agent.settings["exporter"]["listen"]  # type: ignore[index]
    with urlopen(f"http://{listen}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    sample = re.compile(
        r'^pra_backup_data_timestamp_seconds\{backup_job="app",destination="(\w+)"\} (\S+)$', re.MULTILINE
    )
    return {name: float(value) for name, value in sample.findall(text)}


def everywhere(agent: Agent, record: object) -> None:
    """Wait until all copies have what this backup stands for."""
    instant = record.data_instant  # type: ignore[attr-defined]
    wait_until(lambda: {instants(agent).get(name) for name in ("repository", *PLACES)} == {instant}, "the copies")


def snapshots(restic: Restic) -> int:
    return len(restic.snapshots())


def test_copies_follow_and_one_that_is_down_holds_nobody_up(agent, s3_store, tmp_path):
    with agent.client() as client:
        first = client.run_job("app")
        assert first.outcome is Outcome.SUCCESS
        everywhere(agent, first)

        # The attic is not there.
        (tmp_path / "attic").rename(tmp_path / "attic-away")
        agent.fill(2, 50_000, name="more")
        second = client.run_job("app")
        assert second.outcome is Outcome.SUCCESS

        def failed() -> bool:
            runs = [run for run in client.runs(limit=10) if run.operation is Operation.COPY]
            return any(run.outcome is Outcome.FAILED and run.destination == str(tmp_path / "attic") for run in runs)

        wait_until(failed, "the copy to the attic to fail")
        wait_until(lambda: instants(agent).get("cloud") == second.data_instant, "the other copies")
        assert instants(agent)["cellar"] == second.data_instant
        assert instants(agent)["attic"] == first.data_instant
        told = exported(agent)
        assert told["attic"] == pytest.approx(first.data_instant.timestamp(), abs=1e-3)
        assert told["cloud"] == told["cellar"] == pytest.approx(second.data_instant.timestamp(), abs=1e-3)

        # It is back, and catches up with the next backup.
        (tmp_path / "attic-away").rename(tmp_path / "attic")
        agent.fill(2, 50_000, name="later")
        third = client.run_job("app")
        everywhere(agent, third)
        assert client.operate(Operation.FORGET).outcome is Outcome.SUCCESS
    agent.stop()
    places = {
        "attic": Restic(tmp_path / "attic", "the password of attic"),
        "cellar": Restic(tmp_path / "cellar", "the password of cellar"),
        "cloud": Restic(
            s3_store.restic_repository, "the password of cloud", tuple(s3_store.restic_environment.items())
        ),
    }
    for name, restic in places.items():
        restic.run("check", "--read-data")
        assert snapshots(restic) == (1 if name == "cellar" else 3), name
        target = tmp_path / f"from-{name}"
        restic.run("restore", "latest", "--target", target)
        back = target / str(agent.data).lstrip("/")
        assert difference(describe_tree(agent.data), describe_tree(back)) == []
    assert Restic(tmp_path / "attic", "the password of cloud").try_run("snapshots").returncode
