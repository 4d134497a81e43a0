"""Hosts with systemd as PID 1, as containers of the tests' engine (tests/testbed/hosts.sh makes their trees)."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.docker_engine import Dockerd

#: What systemd as PID 1, and an engine within, need; --privileged is not to be had everywhere.
_OPTIONS = (
    *("--security-opt", "apparmor=unconfined", "--cgroupns", "private", "--stop-signal", "SIGRTMIN+3"),
    *(
        "--tmpfs",
        "/run:exec,mode=755",
        "--tmpfs",
        "/run/lock",
        "--tmpfs",
        "/tmp:exec,mode=1777",
        "-e",
        "container=docker",
    ),
    *("--volume", "/var/lib/docker"),
)

_ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/pra-agent/control.sock")
connection.request("GET", sys.argv[1])
print(connection.getresponse().read().decode())
"""


class Host:
    """A running host: run commands on it, and bring files to it."""

    def __init__(self, engine: Dockerd, name: str) -> None:
        self._engine = engine
        self.name = name

    def run(self, *argv: str, check: bool = True, text: str | None = None) -> str:
        """Run a command as root and return its stdout; a failure raises with what it printed."""
        done = self.done(*argv, text=text)
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(argv)}: status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done.stdout.strip()

    def done(self, *argv: str, text: str | None = None, user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run a command and return how it ended."""
        command = ["docker", "exec", "-i", "--user", user, self.name, *argv]
        stdin = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            command, env=self._engine.env, capture_output=True, text=True, check=False, timeout=300, **stdin
        )

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a shell script as root."""
        return self.run("sh", "-ec", script, check=check)

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, its directory too."""
        self.run("sh", "-ec", f'mkdir -p "$(dirname {path})"; cat >{path}; chmod {mode:o} {path}', text=text)

    def copy(self, source: Path, target: str) -> None:
        """Copy a file to the host; not below a tmpfs, which the engine does not see."""
        self._engine.docker("cp", str(source), f"{self.name}:{target}")

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit)

    def journal(self, unit: str, lines: int = 50) -> str:
        """The end of a unit's log."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, "-n", str(lines))

    def until(self, condition: Callable[[], bool], what: str, unit: str = "", limit: float = 60) -> None:
        """Wait until it holds; raises with the unit's log when it does not in time."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not in {limit} s: {what}\n{self.journal(unit) if unit else ''}")
            time.sleep(0.2)

    def asked(self, path: str) -> object:
        """What the agent's control socket answers to root."""
        return json.loads(self.run("python3", "-c", _ASK, path))

    def json(self, *argv: str, check: bool = True) -> list[dict[str, object]]:
        """What a command prints with --json, a document a line."""
        return [json.loads(line) for line in self.run(*argv, check=check).splitlines()]


@contextmanager
def running(engine: Dockerd, tree: str, *mounts: str) -> Iterator[Host]:
    """Start a host from an image's tree, wait for its systemd, and remove it at the end.

    `mounts` are directories of this machine, as HERE:THERE[:ro].
    """
    image = engine.image(tree, 'CMD ["/usr/local/sbin/host-entry"]')
    volumes = [part for mount in mounts for part in ("--volume", mount)]
    name = engine.run(
        image, name=f"pra-host-{uuid.uuid4().hex[:8]}", options=(*_OPTIONS, "--network", "none", *volumes)
    )
    host = Host(engine, name)
    try:
        # Without a network nobody else knows its name.
        host.sh('echo "127.0.1.1 $(hostname)" >>/etc/hosts')
        host.until(lambda: _is_up(host), "systemd is up")
        yield host
    finally:
        engine.remove(name)


def _is_up(host: Host) -> bool:
    state = host.done("systemctl", "is-system-running").stdout.strip()
    return state in {"running", "degraded"}
