"""A compose project, end to end: saved through the daemon while it works, destroyed, restored from nothing.

Also who is killed meanwhile: the agent while containers stand still, the engine in the middle of everything.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pra_agent.cli.app import run
from pra_agent.errors import PraError
from pra_agent.model.runs import Outcome, RunRecord
from tests.support.agent import Agent
from tests.support.docker_engine import Dockerd
from tests.support.process import wait_until
from tests.support.restic import Restic

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(400)]

#: Writes one row after another, and notes each (with the time) when the server has said that it is committed.
_APP = r"""
export MYSQL_PWD="$DB_PASSWORD"
ask() { mariadb -h 127.0.0.1 -u shop --batch --skip-column-names "$@" shop; }
until n=$(ask -e 'SELECT COALESCE(MAX(n), 0) FROM orders'); do sleep 0.2; done
coproc DB { ask --unbuffered; }
while :; do
    n=$((n + 1))
    echo "INSERT INTO orders VALUES ($n, UTC_TIMESTAMP(6), MD5($n)); SELECT $n;" >&"${DB[1]}"
    read -r got <&"${DB[0]}" || exit 1
    echo "$got $EPOCHREALTIME" >>/data/acked
    sleep 0.02
done
"""
_HEALTH = r"""
export MYSQL_PWD="$DB_PASSWORD"
test -s /data/acked && mariadb -h 127.0.0.1 -u shop shop -e 'SELECT COUNT(*) FROM orders'
"""
_PASSWORD = "compose s3cret"


@dataclass
class Shop:
    """The project: a database, and an application that writes to it."""

    engine: Dockerd
    home: Path
    name: str
    image: str

    def write(self) -> None:
        """Write the compose file (JSON is YAML) and the application."""
        self.home.mkdir()
        (self.home / "app.sh").write_text(_APP)
        (self.home / "health.sh").write_text(_HEALTH)
        plain: dict[str, object] = {
            "image": self.image,
            "cap_add": ["ALL"],
            "cap_drop": ["SYS_RESOURCE"],
            "security_opt": ["seccomp=unconfined"],
            "stop_grace_period": "5s",
        }
        db = {
            "environment": {"MARIADB_ROOT_PASSWORD": _PASSWORD},
            "volumes": ["db:/var/lib/mysql"],
            "network_mode": "none",
        }
        app = {
            "depends_on": ["db"],
            # No bridge: where tests run, engines of several sessions share one host's networks.
            "network_mode": "service:db",
            "entrypoint": ["bash", "/srv/app.sh"],
            "environment": {"DB_PASSWORD": _PASSWORD},
            "volumes": ["files:/data", f"{self.home}:/srv:ro"],
            "healthcheck": {"test": ["CMD", "bash", "/srv/health.sh"], "interval": "1s", "retries": 60},
        }
        project = {
            "version": "2.4",
            "services": {"db": plain | db, "app": plain | app},
            "volumes": {"db": None, "files": None},
        }
        (self.home / "docker-compose.yml").write_text(json.dumps(project))

    def compose(self, *words: str) -> None:
        """Run docker-compose."""
        done = subprocess.run(
            ["docker-compose", "--project-name", self.name, *words],
            cwd=self.home,
            env=self.engine.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    @property
    def db(self) -> str:
        return f"{self.name}_db_1"

    @property
    def app(self) -> str:
        return f"{self.name}_app_1"

    def sql(self, text: str) -> str:
        """Run statements as root inside the database's container."""
        client = 'MYSQL_PWD="$MARIADB_ROOT_PASSWORD" exec mariadb --batch --skip-column-names'
        return self.engine.docker("exec", "-i", self.db, "sh", "-c", client, text=text)

    def up(self, service: str) -> None:
        """Start a service; wait until the database answers, or until the application is healthy."""
        self.compose("up", "-d", service)
        if service == "db":
            wait_until(self._answers, "MariaDB", 120)
        else:
            wait_until(lambda: self.health() in ("healthy", "unhealthy"), "the application's health", 120)
            assert self.health() == "healthy", self.engine.docker("logs", self.app, check=False)[-1000:]

    def _answers(self) -> bool:
        with contextlib.suppress(AssertionError):
            return self.sql("SELECT 1") == "1"
        return False

    def health(self) -> str:
        return self.engine.docker("inspect", "-f", "{{.State.Health.Status}}", self.app, check=False)

    def rows(self) -> int:
        """How many rows there are; they must be the first ones, without a gap, each as it was written."""
        told = self.sql("SELECT COUNT(*), MAX(n), SUM(what = MD5(n)) FROM shop.orders").split()
        assert told[0] == told[1] == told[2], told
        return int(told[0])

    def acked(self) -> dict[int, float]:
        """When the server had confirmed each row, by the application's notes."""
        where = self.engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", f"{self.name}_files")
        lines = (Path(where) / "acked").read_text().splitlines()
        return {int(line.split()[0]): float(line.split()[1]) for line in lines}


@pytest.fixture
def shop(dockerd: Dockerd, mariadb_image: str, tmp_path: Path) -> Iterator[Shop]:
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose (make testbed as root)")
    project = Shop(dockerd, tmp_path / "shop", f"shop{uuid.uuid4().hex[:6]}", mariadb_image)
    project.write()
    try:
        project.up("db")
        project.sql(
            "CREATE DATABASE shop; CREATE TABLE shop.orders (n INT PRIMARY KEY, at DATETIME(6), what CHAR(32));"
            f"CREATE USER shop@'%' IDENTIFIED BY '{_PASSWORD}'; GRANT ALL ON shop.* TO shop@'%';"
        )
        project.up("app")
        yield project
    finally:
        project.compose("down", "-v", "-t", "1")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own-state"))
    made = Agent(tmp_path / "host")
    made.init()
    yield made
    made.stop()


def _run(agent: Agent, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    got = run(["--config", str(agent.config), *words])
    captured = capsys.readouterr()
    assert got == 0, captured.err + captured.out
    return captured.out


def _backed_up(agent: Agent, job: str) -> RunRecord:
    with agent.client() as client:
        record = client.run_job(job)
    assert record.outcome is Outcome.SUCCESS, record.error
    assert record.data_instant is not None
    assert record.finished is not None
    return record


def _confirmed(acked: dict[int, float], record: RunRecord) -> int:
    """The newest row that was committed at the run's data instant."""
    assert record.data_instant is not None
    return max(n for n, when in acked.items() if when <= record.data_instant.timestamp())


def test_a_project_is_restored_from_nothing(shop: Shop, agent: Agent, capsys):
    url = shop.engine.url
    login = {"user": "root", "password_env": "MARIADB_ROOT_PASSWORD"}
    agent.configure(
        jobs={
            "shop-db": {"source": {"type": "dump", "preset": "mariadb", "container": shop.db, "docker": url, **login}},
            "shop-volumes": {
                "source": {
                    "type": "docker_volume",
                    "project": shop.name,
                    "binds": True,
                    "quiesce": "pause",
                    "docker": url,
                }
            },
        }
    )
    agent.start()
    by_dump, by_volumes = _backed_up(agent, "shop-db"), _backed_up(agent, "shop-volumes")
    last = shop.rows()
    wait_until(lambda: shop.rows() > last, "the application goes on writing")
    acked = shop.acked()
    shop.compose("down", "-v", "-t", "1")
    assert shop.name not in shop.engine.docker("volume", "ls", "-q")
    (shop.home / "app.sh").unlink()

    # By the volumes: both as they were at one instant; the application's own files (a bind mount) with them.
    said = _run(agent, capsys, "restore", "shop-volumes", "--in-place", "--force")
    assert f"{shop.name}_db: put back" in said
    shop.up("db")
    rows, restored = shop.rows(), max(shop.acked())
    # Who was paused between the commit and its note has one row more than notes.
    assert restored == _confirmed(acked, by_volumes)
    assert rows in (restored, restored + 1)
    shop.up("app")
    wait_until(lambda: shop.rows() > rows + 1, "the restored application writes")

    # By the dump, into a database that is new.
    shop.compose("down", "-v", "-t", "1")
    shop.up("db")
    _run(agent, capsys, "restore", "shop-db", "--in-place")
    rows = shop.rows()
    assert rows >= _confirmed(acked, by_dump)
    assert by_dump.finished is not None
    assert acked.get(rows + 2, float("inf")) > by_dump.data_instant.timestamp()  # type: ignore[union-attr]
    shop.up("app")
    wait_until(lambda: shop.rows() > rows, "the restored application writes")
    Restic(agent.repository).run("check", "--read-data")


# ---------------------------------------------------------------- killed meanwhile
@pytest.fixture
def user(dockerd: Dockerd, base_image: str) -> Iterator[tuple[str, str]]:
    """A volume with so much in it that saving it takes its time, and a container that uses it."""
    volume = dockerd.docker("volume", "create")
    where = Path(dockerd.docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume))
    for number in range(24):
        (where / f"large-{number}").write_bytes(os.urandom(4 << 20))
    name = dockerd.run(base_image, "sleep", "infinity", options=("-v", f"{volume}:/data", "--stop-timeout", "1"))
    yield volume, name
    dockerd.remove(name)
    dockerd.docker("volume", "rm", "-f", volume)


def _slowly(agent: Agent, jobs: dict[str, object]) -> None:
    """Configure a narrow way to the repository, so that whatever is read must wait."""
    repository = dict(agent.settings["repository"])  # type: ignore[call-overload]
    tuning = {"pack_size": 4 << 20, "upload_memory": 16 << 20}
    agent.configure(jobs=jobs, repository={**repository, "limits": {"upload": "8MiB/s"}, "tuning": tuning})


def _volume_job(dockerd: Dockerd, volume: str, how: str) -> dict[str, object]:
    source = {"type": "docker_volume", "volume": volume, "quiesce": how, "docker": dockerd.url, "stop_timeout": "1s"}
    return {"source": source}


class _Asked(threading.Thread):
    """Somebody who runs a job and waits for its end."""

    def __init__(self, agent: Agent, job: str) -> None:
        super().__init__()
        self._agent, self._job = agent, job
        self.record: RunRecord | None = None

    def run(self) -> None:
        with contextlib.suppress(PraError, OSError), self._agent.client() as client:
            self.record = client.run_job(self._job)


def _status(dockerd: Dockerd, name: str) -> str:
    return dockerd.docker("inspect", "-f", "{{.State.Status}}", name, check=False)


def _snapshots(agent: Agent) -> Sequence[str]:
    return [path.name for path in (agent.repository / "snapshots").glob("*")]


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_an_agent_that_is_killed_gives_containers_back_at_its_next_start(dockerd, agent, user, how):
    volume, name = user
    _slowly(agent, {"v": _volume_job(dockerd, volume, how)})
    agent.start()
    asked = _Asked(agent, "v")
    asked.start()
    wait_until(lambda: _status(dockerd, name) in ("paused", "exited"), "the container stands still")
    assert agent.process is not None
    agent.process.kill()
    asked.join()
    assert _status(dockerd, name) in ("paused", "exited")
    agent.start()
    wait_until(lambda: _status(dockerd, name) == "running", "the container is given back")
    assert _snapshots(agent) == []
    with agent.journal() as journal:
        assert list(journal.jobs_with_state()) == []


def test_an_engine_that_is_killed_leaves_no_half_dump_and_no_container_standing(dockerd, agent, user, base_image):
    volume, name = user
    talker = dockerd.run(base_image, "sleep", "infinity")
    forever = ["sh", "-c", "while :; do head -c 100000 /dev/zero; sleep 0.05; done"]
    dump = {"type": "dump", "preset": "command", "container": talker, "docker": dockerd.url, "command": forever}
    _slowly(agent, {"v": _volume_job(dockerd, volume, "pause"), "d": {"source": dump}})
    agent.start()
    asked = [_Asked(agent, job) for job in ("d", "v")]
    for one in asked:
        one.start()
    try:
        wait_until(lambda: _status(dockerd, name) == "paused", "the container stands still")
        wait_until(lambda: b"head" in _commands(dockerd, talker), "the dump is under way")
    finally:
        dockerd.kill()
        dockerd.start()
    for one in asked:
        one.join()
    records = [one.record for one in asked]
    assert [record.outcome for record in records if record is not None] == [Outcome.FAILED] * 2, records
    assert re.search("engine|ended|output", records[0].error if records[0] else "")
    assert _status(dockerd, name) == "running"
    assert _snapshots(agent) == []
    with agent.journal() as journal:
        assert list(journal.jobs_with_state()) == []


def _commands(dockerd: Dockerd, container: str) -> bytes:
    return dockerd.docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/cmdline", check=False).encode()
