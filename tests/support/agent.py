"""A real daemon of the agent, as a process of its own, on a local repository in a directory of the test."""

import json
import os
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from pra_agent.clock import SystemClock
from pra_agent.control.client import Client
from pra_agent.daemon.journal import Journal
from pra_agent.errors import DaemonUnreachable
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.repository.settings import Settings
from pra_agent.storage.local import LocalBackend
from tests.support.process import ServerProcess, wait_until
from tests.support.repositories import PASSWORD, QUICK

AGENT = Path(__file__).parents[2] / "agent"
NODE = "web-1"


class Agent:
    """A host in a directory: configuration, state, data to save, a repository, and its daemon."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.repository = root / "repository"
        self.state = root / "state"
        self.socket = root / "run" / "control.sock"
        self.config = root / "config.yaml"
        self.log = root / "daemon.log"
        self.process: ServerProcess | None = None
        self.data.mkdir(parents=True)
        self.socket.parent.mkdir(mode=0o750)
        password = root / "password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        self.settings: dict[str, object] = {
            "node": NODE,
            "repository": {"url": str(self.repository), "password": {"file": str(password)}},
            "defaults": {"schedule": {"every": "1h"}, "jitter": "0s", "full": "never"},
            "jobs": {"app": {"source": {"type": "files", "paths": [str(self.data)]}}},
            "state": {"dir": str(self.state)},
            "control": {"socket": str(self.socket)},
            "exporter": {"enabled": False},
            "limits": {"workers": 1},
            "maintenance": {name: {"schedule": None} for name in ("forget", "prune", "check")},
        }

    def configure(self, **settings: object) -> None:
        """Write the configuration (JSON is YAML), with these keys replaced."""
        self.settings |= settings
        self.config.write_text(json.dumps(self.settings))
        self.config.chmod(0o600)

    def init(self, place: Path | None = None) -> None:
        """Make the repository, or one at another place; deriving its key costs nothing."""
        backend = LocalBackend(place or self.repository, clock=SystemClock())
        Repository.init(backend, PASSWORD, clock=SystemClock(), host=this_host(NODE), settings=Settings(scrypt=QUICK))

    # ------------------------------------------------------------ the daemon
    def start(self, *, wait: bool = True, environment: dict[str, str] | None = None) -> ServerProcess:
        """Start the daemon, and wait until it is ready."""
        argv = [sys.executable, "-m", "pra_agent", "--config", str(self.config), "daemon"]
        env = {"PYTHONPATH": os.pathsep.join([str(AGENT), os.environ.get("PYTHONPATH", "")]), **(environment or {})}
        self.process = ServerProcess(argv, self.log, env)
        if wait:
            self.process.wait_for(self.ready)
        return self.process

    def ready(self) -> bool:
        """Whether the daemon answers and is ready."""
        try:
            with Client(self.socket) as client:
                return client.status().ready
        except DaemonUnreachable:
            return False

    def stop(self) -> None:
        """End the daemon and whatever it left, if it runs."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    @contextmanager
    def client(self) -> Generator[Client]:
        """A client of the daemon's socket."""
        with Client(self.socket) as client:
            yield client

    @contextmanager
    def journal(self) -> Generator[Journal]:
        """The daemon's journal, opened beside it."""
        self.state.mkdir(mode=0o700, exist_ok=True)
        with closing(Journal(self.state / "journal.db")) as journal:
            yield journal

    def says(self, words: str, *, seconds: float = 60) -> None:
        """Wait until the daemon's log has these words."""
        wait_until(
            lambda: words in self.log.read_text(errors="replace"), f"{words!r} in {self.log.read_text()}", seconds
        )

    # ------------------------------------------------------------ data
    def fill(self, files: int, size: int, *, name: str = "file") -> None:
        """Write files of random bytes."""
        for n in range(files):
            (self.data / f"{name}-{n}").write_bytes(os.urandom(size))
