"""A small agent of its own, for the demo: a configuration, a repository and a daemon below one directory."""

import os
import signal
import socket
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pra_agent.clock import Clock
from pra_agent.control.client import Client
from pra_agent.errors import DaemonUnreachable, PraError

#: Seconds that the daemon may take to answer, and to stop.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Example:
    """Where everything of the example is."""

    root: Path
    port: int

    @property
    def data(self) -> Path:
        """What is backed up."""
        return self.root / "data"

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.root / "config.yaml"

    @property
    def socket(self) -> Path:
        """The daemon's control socket."""
        return self.root / "run" / "control.sock"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.root / "daemon.log"

    @property
    def repository(self) -> Path:
        """The repository."""
        return self.root / "repository"

    def write_config(self) -> None:
        """Write the configuration."""
        self.socket.parent.mkdir(mode=0o750)
        text = f"""\
node: demo
repository: {{url: {self.repository}, password: {{file: {self.root / "password"}}}}}
jobs:
  demo-data:
    source: {{type: files, paths: [{self.data}]}}
    schedule: {{every: 1h}}
    jitter: 0s
state: {{dir: {self.root / "state"}}}
control: {{socket: {self.socket}}}
exporter: {{listen: "127.0.0.1:{self.port}"}}
"""
        self.config.write_text(text, encoding="utf-8")
        self.config.chmod(0o600)


def free_port() -> int:
    """A port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ExampleDaemon:
    """The daemon, as a child of this process. Leaving the context stops it."""

    def __init__(self, example: Example, clock: Clock) -> None:
        self._example = example
        self._clock = clock
        self.pid = 0

    def __enter__(self) -> Self:
        log = os.open(self._example.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            argv = [sys.executable, "-m", "pra_agent", "--config", str(self._example.config), "daemon"]
            redirect = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
            environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self.pid = os.posix_spawn(sys.executable, argv, environ, file_actions=redirect, setpgroup=0)
        finally:
            os.close(log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.pid:
            return
        os.kill(self.pid, signal.SIGTERM)
        deadline = self._clock.monotonic() + PATIENCE
        while not self._ended():
            if self._clock.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline = float("inf")
            self._clock.sleep(0.05)

    def _ended(self) -> bool:
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        return not self.pid

    def _wait_until_ready(self) -> None:
        deadline = self._clock.monotonic() + PATIENCE
        while self._clock.monotonic() < deadline:
            if self._ended():
                break
            try:
                with Client(self._example.socket) as client:
                    if client.status().ready:
                        return
            except DaemonUnreachable:
                pass
            self._clock.sleep(0.05)
        raise PraError("the demo's daemon did not start", advice=f"It said: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._example.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "nothing"


def read_metrics(example: Example, names: tuple[str, ...]) -> list[str]:
    """Ask the daemon's exporter, and pick the samples of some metrics."""
    url = f"http://127.0.0.1:{example.port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = bytes(answer.read()).decode()
    return [line for line in text.splitlines() if line.startswith(names)]
