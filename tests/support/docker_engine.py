"""A Docker engine of the tests' own: one dockerd a session, images imported from the test bed's file trees."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

TESTBED = Path(os.environ.get("TESTBED", "/var/tmp/pra-testbed"))
_HOMES = "/tmp/pra-dockerd-"
_PLAIN = ("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined")


@dataclass
class Dockerd:
    """The engine: its address, and how to kill and start it again."""

    home: Path
    process: subprocess.Popen[bytes] | None = None
    made: list[str] = field(default_factory=list)
    lock: IO[str] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.home}/docker.sock"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}

    def start(self) -> None:
        """Start it and wait until it answers."""
        for stale in ("docker.sock", "dockerd.pid", "exec/containerd/containerd.pid"):
            (self.home / stale).unlink(missing_ok=True)
        data = TESTBED / "docker" / "data"
        # Ends with the test process, however that ends.
        argv = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            "dockerd",
            "--data-root",
            str(data),
            "--exec-root",
            f"{self.home}/exec",
        ]
        argv += ["-p", f"{self.home}/dockerd.pid", "-H", self.url]
        # One engine at a time over the same data, until the last of its processes has gone: they inherit the lock.
        if self.lock is None:
            self.lock = (TESTBED / "docker" / "data.lock").open("a")
            _lock(self.lock, self.home)
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[self.lock.fileno()],
            )
            for _ in range(300):
                if self._answers():
                    return
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
        tail = (self.home / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"dockerd did not start: {tail}")

    def _answers(self) -> bool:
        asked = subprocess.run(["docker", "version"], env=self.env, capture_output=True, check=False)
        return asked.returncode == 0

    def kill(self) -> None:
        """End the engine and its containerd as a crash would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it in order, and what it left."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            _end_all(self.home)
        if self.lock is not None:
            # An engine that was killed leaves what it had mounted.
            for place in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                target = place.split()[1]
                if target.startswith((str(TESTBED / "docker" / "data"), str(self.home))):
                    subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
            self.lock.close()

    def docker(self, *argv: str, check: bool = True, text: str | None = None) -> str:
        """Run the docker command against it and return its stdout."""
        done = subprocess.run(["docker", *argv], env=self.env, capture_output=True, text=True, check=False, input=text)
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(argv)}: {done.stderr.strip()[-1500:]}")
        return done.stdout.strip()

    def image(self, name: str, *changes: str) -> str:
        """Import a file tree of the test bed as an image, once; `changes` are Dockerfile lines."""
        tree = TESTBED / "docker" / "images" / f"{name}.tar"
        if not tree.exists():
            pytest.skip(f"the image {name} is not in the test bed (make testbed as root)")
        tag = f"pra-test/{name}:{int(tree.stat().st_mtime)}"
        if self.docker("image", "ls", "-q", tag) == "":
            flags = [part for change in changes for part in ("--change", change)]
            self.docker("import", *flags, str(tree), tag)
        return tag

    def run(self, image: str, *argv: str, name: str | None = None, options: tuple[str, ...] = ()) -> str:
        """Start a container that is removed at the end of the session at the latest; returns its name."""
        chosen = name or f"pra-{uuid.uuid4().hex[:10]}"
        self.made.append(chosen)
        self.docker("run", "-d", "--name", chosen, *_PLAIN, *options, image, *argv)
        return chosen

    def remove(self, *names: str) -> None:
        """Remove containers by force, with their anonymous volumes."""
        for name in names:
            self.docker("rm", "-f", "-v", name, check=False)


def _lock(lock: IO[str], home: Path) -> None:
    """Wait for our turn: another session may use the engine's data for some minutes, if it lives."""
    owner = Path(lock.name)
    for _ in range(1200):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, _, other = owner.read_text().partition(" ")
            if pid and not Path(f"/proc/{pid}").exists():  # killed: nobody else ends what it left
                _end_all(Path(other))
            time.sleep(0.5)
        else:
            owner.write_text(f"{os.getpid()} {home}")
            return
    raise RuntimeError("another session's Docker engine does not end")


def _end_all(home: Path) -> None:
    """End what runs for the engine of that directory: containerd, its shims."""
    assert str(home).startswith(_HOMES), home
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(home).encode() in (process / "cmdline").read_bytes() and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """One engine for all tests of the group `docker`; whatever they leave is removed."""
    if os.geteuid() != 0:
        pytest.skip("a Docker engine needs root")
    if shutil.which("dockerd") is None:
        pytest.skip("no dockerd (make testbed as root)")
    home = Path(_HOMES + uuid.uuid4().hex[:8])
    home.mkdir()
    engine = Dockerd(home)
    try:
        engine.start()
        engine.remove(*engine.docker("ps", "-aq").split())
        engine.docker("volume", "prune", "-f")
        yield engine
    finally:
        with contextlib.suppress(Exception):
            engine.remove(*engine.docker("ps", "-aq").split())
            engine.docker("volume", "prune", "-f")
        engine.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb_image(dockerd: Dockerd) -> str:
    """MariaDB from Debian's packages; root's password in MARIADB_ROOT_PASSWORD."""
    return dockerd.image("mariadb", 'ENTRYPOINT ["/usr/local/bin/entry"]', "VOLUME /var/lib/mysql", "EXPOSE 3306")


@pytest.fixture(scope="session")
def base_image(dockerd: Dockerd) -> str:
    """Debian's minimum with python3 and ps."""
    return dockerd.image("base", 'CMD ["sleep", "infinity"]')
