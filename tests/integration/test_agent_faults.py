"""What an operator sees when something is wrong: one line, the right exit code, and a repository that stays sound."""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pra_agent.clock import SystemClock
from pra_agent.model.runs import Outcome
from pra_agent.repository.repository import Repository
from pra_agent.storage.local import LocalBackend
from tests.support.agent import AGENT, Agent
from tests.support.hardened import Cli
from tests.support.http_faults import FaultyHttpProxy, Http
from tests.support.process import wait_until
from tests.support.repositories import HOST, PASSWORD
from tests.support.restic import Restic
from tests.support.roundtrip import below
from tests.support.s3 import S3Server
from tests.support.toxiproxy import Toxiproxy
from tests.support.trees import compare_trees

MIB = 1 << 20
QUICK = {"scrypt": {"n": 1024, "p": 1}}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "host")
    made.configure()
    yield made
    made.stop()


@pytest.fixture
def cli(agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("XDG_STATE_HOME", str(agent.root / "caller"))
    return Cli(agent.config, capsys)


def whole(agent: Agent, cli: Cli, target: Path, *how: str) -> None:
    """Check the repository and see that a restore of the newest snapshot equals the data."""
    cli(*how, "check", "--read-data-subset", "100%")
    cli(*how, "restore", "app", "--target", target)
    assert compare_trees(agent.data, below(target, agent.data)) == []


# ---------------------------------------------------------------- a disk that is full
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real ext4 of 24 MiB."""
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(24 * MIB)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], capture_output=True, check=False)
    mounted = subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, check=False)
    if made.returncode or mounted.returncode:
        pytest.skip("may not mount a loop device here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk(agent: Agent, cli: Cli, disk: Path, tmp_path: Path):
    agent.repository = disk / "repository"
    place = {"url": str(agent.repository), "password": {"file": str(agent.root / "password")}, "tuning": QUICK}
    agent.configure(repository=place)
    agent.fill(3, 300_000)
    cli("init", "--kit", tmp_path / "kit.txt")
    agent.start()
    cli("backup", "app")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(8 * MIB))
    agent.fill(4, 6 * MIB, name="large")
    for how in ((), ("--direct",)):
        told = cli(*how, "backup", "app", code=1) + cli.err
        assert "No space left on device" in told
        assert "Free some room" in told
    Restic(agent.repository).run("check", "--read-data", "--no-lock")
    ballast.unlink()
    for n in range(2):
        (agent.data / f"large-{n}").unlink()
    cli("backup", "app")
    whole(agent, cli, tmp_path / "back")


def test_a_restore_onto_a_full_disk(agent: Agent, cli: Cli, disk: Path, tmp_path: Path):
    agent.init()
    agent.fill(3, 10 * MIB)
    cli("--direct", "backup", "app")
    cli("--direct", "restore", "app", "--target", disk / "back", code=1)
    assert "room" in cli.err


# ---------------------------------------------------------------- keys, places, locks
def test_wrong_key_no_repository_and_locks(agent: Agent, cli: Cli, tmp_path: Path):
    agent.fill(3, 1000)
    cli("--direct", "backup", "app", code=10)
    assert "no repository at" in cli.err
    agent.init()
    agent.start()
    password = agent.root / "password"
    password.write_text("wrong")
    for how in ((), ("--direct",)):
        told = cli(*how, "backup", "app", code=12) + cli.err
        assert "opens none of" in told
        cli(*how, "snapshots", code=12)
    password.write_text(PASSWORD)

    other = Repository.open(LocalBackend(agent.repository), PASSWORD, clock=SystemClock(), host=HOST, state=None)
    with other.lock(exclusive=True):
        for how in ((), ("--direct",)):
            told = cli(*how, "backup", "app", code=11) + cli.err
            assert "exclusive lock" in told
            cli(*how, "prune", code=11)
    cli("backup", "app")
    whole(agent, cli, tmp_path / "back")


def test_two_writers_at_once(agent: Agent, cli: Cli, tmp_path: Path):
    agent.init()
    agent.fill(40, 200_000)
    agent.start()
    told: list[Outcome | None] = []

    def by_the_daemon() -> None:
        with agent.client() as client:
            told.append(client.run_job("app").outcome)

    other = threading.Thread(target=by_the_daemon)
    other.start()
    cli("--direct", "backup", "app")
    other.join()
    assert told == [Outcome.SUCCESS]
    assert len(cli.json("snapshots", "app")[0]["snapshots"]) == 2
    whole(agent, cli, tmp_path / "back")
    Restic(agent.repository).run("check", "--read-data")


@pytest.mark.parametrize("how", ["a flipped bit", "a truncated pack", "a missing pack"])
def test_damage(agent: Agent, cli: Cli, tmp_path: Path, how: str):
    agent.init()
    agent.fill(6, 400_000)
    cli("--direct", "backup", "app")
    pack = max((agent.repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o600)
    if how == "a missing pack":
        pack.unlink()
    else:
        pack.write_bytes(data if how == "a flipped bit" else data[: len(data) // 2])
    cli("--direct", "check", "--read-data-subset", "100%", code=1)
    cli("--direct", "restore", "app", "--target", tmp_path / "back", code=1)
    assert f"{agent.data}/file-" in cli.err
    agent.start()
    cli("restore", "app", "--target", tmp_path / "back-too", code=1)
    assert f"{agent.data}/file-" in cli.err
    cli("--direct", "repair", "--read-data", "--yes")
    cli("backup", "app")
    whole(agent, cli, tmp_path / "whole")


# ---------------------------------------------------------------- S3 that misbehaves
class Line:
    """A host whose repository is in versitygw, and is reached at other endpoints now and then."""

    def __init__(self, agent: Agent, cli: Cli, server: S3Server) -> None:
        self.agent, self.cli, self.server = agent, cli, server
        self.bucket = server.new_bucket()
        self.settings: dict[str, Any] = {
            "url": f"s3://{self.bucket}/web-1",
            "region": server.region,
            "credentials": {"file": str(server.credentials_file())},
            "password": {"file": str(agent.root / "password")},
            "tuning": QUICK,
            "timeouts": {"connect": "2s", "read": "3s", "give_up": "6s"},
        }
        self.at(server.endpoint)
        agent.fill(8, 300_000)
        cli("init", "--kit", agent.root / "kit.txt")
        cli("--direct", "backup", "app")

    def at(self, endpoint: str, **settings: object) -> None:
        self.agent.configure(repository={**self.settings, "endpoint": endpoint, **settings})

    def sound(self, target: Path) -> None:
        """Whatever happened, the repository is sound, and the next run over a good line is a success."""
        self.at(self.server.endpoint)
        self.cli("--direct", "backup", "app")
        whole(self.agent, self.cli, target, "--direct")
        environment = tuple(self.server.restic_environment().items())
        Restic(self.server.restic_repository(self.bucket, "web-1"), PASSWORD, environment).check()

    @property
    def port(self) -> int:
        return int(self.server.endpoint.rpartition(":")[2])


@pytest.fixture
def line(agent: Agent, cli: Cli, versitygw: S3Server) -> Line:
    return Line(agent, cli, versitygw)


def after(number: int, what: Http, methods: str = "PUT") -> Callable[[str, str], Http]:
    """From the request of that number on, all of these methods meet the fault."""
    counter = itertools.count()
    return lambda asked, _path: what if asked in methods and next(counter) >= number else Http.PASS


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
@pytest.mark.parametrize(
    ("fault", "methods", "says"),
    [
        (Http.SLOW_DOWN, "PUT", "connections"),
        (Http.INTERNAL, "PUT", "try again later"),
        (Http.HANG_UP, "PUT", "try again later"),
        (Http.HALF_ANSWER, "GET", "try again later"),
    ],
    ids=["503", "500", "reset", "half an answer"],
)
def test_a_store_that_stays_bad_in_mid_run(line: Line, tmp_path: Path, fault: Http, methods: str, says: str):
    line.agent.fill(8, 300_000, name="more")
    with FaultyHttpProxy(line.port, after(2, fault, methods)) as proxy:
        line.at(proxy.endpoint)
        line.cli("--direct", "backup", "app", code=1)
        assert says in line.cli.err, line.cli.err
        assert len(line.cli.err.strip().splitlines()) < 12, line.cli.err
    line.sound(tmp_path / "back")


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_a_third_of_all_answers_is_bad_and_all_ends_well(line: Line, tmp_path: Path):
    line.agent.fill(8, 300_000, name="more")
    dice = random.Random(5)
    bad = [Http.SLOW_DOWN, Http.INTERNAL, Http.HANG_UP, Http.LOSE_ANSWER, Http.HALF_ANSWER]

    def decide(_method: str, _path: str) -> Http:
        return dice.choice(bad) if dice.random() < 0.3 else Http.PASS

    with FaultyHttpProxy(line.port, decide) as proxy:
        line.at(proxy.endpoint, timeouts={"connect": "2s", "read": "5s", "give_up": "2m"})
        record = line.cli.json("--direct", "backup", "app")[-1]["run"]
        assert record["outcome"] == "success"
        assert record["detail"]["storage"]["retries"] > 0
        line.cli("--direct", "restore", "app", "--target", tmp_path / "bad-line")
        assert sum(proxy.done.values()) > proxy.done[Http.PASS]
    assert compare_trees(line.agent.data, below(tmp_path / "bad-line", line.agent.data)) == []
    line.sound(tmp_path / "back")


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
@pytest.mark.parametrize("toxic", ["reset_peer", "timeout", "closed"])
def test_a_line_that_breaks_is_told_by_the_daemon_too(line: Line, toxiproxy: Toxiproxy, tmp_path: Path, toxic: str):
    proxy = toxiproxy.before(line.port)
    line.at(f"http://127.0.0.1:{proxy.port}")
    line.agent.start()
    line.cli("backup", "app")
    if toxic == "closed":
        proxy.close()
    else:
        proxy.add(toxic, timeout=0)
    told = line.cli("backup", "app", code=1) + line.cli.err
    assert f"127.0.0.1:{proxy.port}" in told or "s3://" in told, told
    status = line.cli.json("status")
    assert json.dumps(status).count("failed")
    proxy.heal()
    wait_until(lambda: _answers(line), "the store behind the healed line")
    line.agent.stop()
    line.sound(tmp_path / "back")


def _answers(line: Line) -> bool:
    with line.agent.client() as client:
        return client.run_job("app").outcome is Outcome.SUCCESS


# ---------------------------------------------------------------- a restore that is killed
def test_a_killed_restore_goes_on_where_it_was(agent: Agent, cli: Cli, tmp_path: Path):
    agent.init()
    agent.fill(30, 2 * MIB)
    agent.start()
    cli("backup", "app")
    target = tmp_path / "back"
    argv = [sys.executable, "-m", "pra_agent", "--config", str(agent.config), "restore", "app", "--target", str(target)]
    environment = {**os.environ, "PYTHONPATH": str(AGENT)}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    where = below(target, agent.data)
    wait_until(lambda: where.exists() and len(list(where.iterdir())) > 3, "the first files")
    process.kill()
    process.wait()
    cli("restore", "app", "--target", target, "--force")
    assert compare_trees(agent.data, where) == []
    assert sorted(path.name for path in where.iterdir()) == sorted(path.name for path in agent.data.iterdir())
    # The dead client's session is given up, and the daemon goes on.
    cli("backup", "app")
    Restic(agent.repository).run("check", "--no-lock")
