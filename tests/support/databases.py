"""Database servers of the tests' own: MariaDB in a container, PostgreSQL and Redis on the host."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.docker_engine import Dockerd
from tests.support.process import free_port

MARIADB_PASSWORD = "roots 'quoted' s3cret"


@dataclass(frozen=True)
class MariaDb:
    """MariaDB in a container."""

    engine: Dockerd
    name: str

    def sql(self, text: str, database: str = "") -> str:
        """Run statements and return their output."""
        command = 'MYSQL_PWD="$MARIADB_ROOT_PASSWORD" exec mariadb --batch --skip-column-names --raw "$@"'
        return self.engine.docker(
            "exec", "-i", self.name, "sh", "-c", command, "sh", *([database] if database else []), text=text
        )

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(300):
            with contextlib.suppress(AssertionError):
                if self.sql("SELECT 1") == "1":
                    return
            time.sleep(0.2)
        raise AssertionError("MariaDB does not answer: " + self.engine.docker("logs", self.name, check=False)[-1500:])


def start_mariadb(dockerd: Dockerd, image: str, *options: str, name: str | None = None) -> MariaDb:
    """Start one and wait until it answers."""
    env = ("-e", f"MARIADB_ROOT_PASSWORD={MARIADB_PASSWORD.replace(chr(39), '')}")
    started = MariaDb(dockerd, dockerd.run(image, name=name, options=(*env, *options)))
    started.wait()
    return started


@pytest.fixture(scope="module")
def mariadb(dockerd: Dockerd, mariadb_image: str) -> Iterator[MariaDb]:
    """A MariaDB for the tests of one module."""
    started = start_mariadb(dockerd, mariadb_image)
    yield started
    dockerd.remove(started.name)


def _as_user(name: str) -> list[str]:
    entry = pwd.getpwnam(name)
    return ["setpriv", "--reuid", name, "--regid", str(entry.pw_gid), "--clear-groups"]


@dataclass(frozen=True)
class PostgreSql:
    """PostgreSQL on a socket below a temporary directory."""

    home: Path
    port: int
    bin: Path

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run statements and return their output."""
        argv = [
            "psql",
            "-X",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            str(self.home),
            "-p",
            str(self.port),
            "-U",
            "postgres",
        ]
        done = subprocess.run([*argv, "-d", database], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL for the tests of one module; asks for a password over TCP, trusts over its socket."""
    if os.geteuid() != 0:
        pytest.skip("PostgreSQL refuses root, and only root can become its user")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("no PostgreSQL (make testbed as root)")
    home = Path(tempfile.mkdtemp(prefix="pra-pg-", dir="/tmp"))
    shutil.chown(home, "postgres", "postgres")
    user = _as_user("postgres")
    server = PostgreSql(home, free_port(), binaries[-1])
    secret = home / "secret"
    secret.write_text("pg s3cret\n")
    secret.chmod(0o644)
    data = home / "data"
    argv = [*user, str(server.bin / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
    argv += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"]
    subprocess.run(argv, check=True, capture_output=True, cwd="/")
    options = ["-c", f"unix_socket_directories={home}", "-c", "listen_addresses=127.0.0.1", "-p", str(server.port)]
    options += ["-c", "fsync=off"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "QUIT", *user[1:], str(server.bin / "postgres"), "-D", str(data), *options],
            stdout=log,
            stderr=log,
            cwd="/",
        )
    try:
        for _ in range(300):
            if (
                subprocess.run(["pg_isready", "-q", "-h", str(home), "-p", str(server.port)], check=False).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


@dataclass(frozen=True)
class Redis:
    """A Redis server on the loopback, with a password."""

    home: Path
    port: int
    password: str = "redis s3cret"

    def command(self, *argv: str) -> str:
        """Run one command and return its answer."""
        env = {**os.environ, "REDISCLI_AUTH": self.password}
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *argv], capture_output=True, text=True, env=env, check=False
        )
        return done.stdout.strip()


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis server for one test."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server (make testbed as root)")
    home = Path(tempfile.mkdtemp(prefix="pra-redis-", dir="/tmp"))
    server = Redis(home, free_port())
    lines = [f"port {server.port}", "bind 127.0.0.1", f"dir {home}", 'save ""', f'requirepass "{server.password}"']
    process = subprocess.Popen(["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write("\n".join([*lines, ""]).encode())
    process.stdin.close()
    try:
        for _ in range(200):
            if server.command("PING") == "PONG":
                break
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)
