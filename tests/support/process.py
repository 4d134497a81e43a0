"""Server processes of tests: started, waited for, and ended whatever happens to the test."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

TESTBED = Path(os.environ.get("TESTBED", "/var/tmp/pra-testbed"))


def testbed_binary(name: str) -> Path:
    """A program that `make testbed` built; without it the test is skipped."""
    path = TESTBED / "bin" / name
    if not os.access(path, os.X_OK):
        pytest.skip(f"{name} is not built: make testbed")
    return path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll until it is so; fail the test when it does not come about."""
    limit = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > limit:
            pytest.fail(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Whether somebody accepts connections at a port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class ServerProcess:
    """A process with its output in a file; its whole group dies with `stop`."""

    def __init__(self, argv: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def running(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until it is ready; its log's end tells why when it never is."""
        wait_until(lambda: not self.running() or ready(), f"{self.argv[0]}: {self.tail()}", seconds)
        if not self.running():
            pytest.fail(f"{self.argv[0]} ended with {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self, seconds: float = 20.0) -> None:
        """End it: asked first, then killed."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()
