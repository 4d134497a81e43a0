"""Toxiproxy before a server: latency, bandwidth, resets, silence, answers that end in the middle.

Fixture: `toxiproxy`, one per session and worker. `proxy = toxiproxy.before(port)`, `proxy.add("latency", latency=200)`.
"""

import json
import secrets
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ServerProcess, answers, free_port, testbed_binary


@dataclass(frozen=True)
class Proxy:
    """One proxied port of 127.0.0.1."""

    toxiproxy: "Toxiproxy"
    name: str
    port: int

    def add(self, kind: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int) -> None:
        """Spoil it: latency(latency, jitter: ms), bandwidth(rate: KB/s), timeout(timeout: ms; 0 = for ever),
        reset_peer(timeout: ms), limit_data(bytes), slicer(...)."""
        body = {"type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes, "name": kind + stream}
        self.toxiproxy.ask("POST", f"/proxies/{self.name}/toxics", body)

    def heal(self) -> None:
        """Take all spoilers away, and open it."""
        self.toxiproxy.ask("POST", "/reset")

    def close(self) -> None:
        """Refuse connections, as a server that is down."""
        self.toxiproxy.ask("POST", f"/proxies/{self.name}", {"enabled": False})


@dataclass(frozen=True)
class Toxiproxy:
    """The running toxiproxy."""

    process: ServerProcess
    port: int

    def before(self, port: int) -> Proxy:
        """A new proxy before a port of 127.0.0.1."""
        name = secrets.token_hex(4)
        body = {"name": name, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{port}", "enabled": True}
        made = self.ask("POST", "/proxies", body)
        return Proxy(self, name, int(made["listen"].rpartition(":")[2]))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, data=json.dumps(body).encode() if body else None
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


def start_toxiproxy(home: Path) -> Toxiproxy:
    port = free_port()
    argv: list[str | Path] = [testbed_binary("toxiproxy-server"), "-host", "127.0.0.1", "-port", str(port)]
    process = ServerProcess(argv, home / "log", {"LOG_LEVEL": "error"})
    try:
        process.wait_for(lambda: answers(port))
    except BaseException:
        process.stop()
        raise
    return Toxiproxy(process, port)


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    proxy = start_toxiproxy(tmp_path_factory.mktemp("toxiproxy"))
    yield proxy
    proxy.process.stop()
