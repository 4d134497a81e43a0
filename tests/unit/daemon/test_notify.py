"""The service manager hears of us, at a path or an abstract address; without one nothing happens."""

import os
import socket
from datetime import timedelta

import pytest

from pra_agent.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@pra-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(30)
        yield name, listening


def test_it_is_told(manager):
    name, listening = manager
    notifier = Notifier(name)
    notifier.ready("2 jobs,\nwaiting")
    assert listening.recv(4096) == b"READY=1\nSTATUS=2 jobs, waiting"
    notifier.reloading(17)
    assert listening.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=17"
    notifier.alive()
    assert listening.recv(4096) == b"WATCHDOG=1"
    notifier.status("working")
    assert listening.recv(4096) == b"STATUS=working"
    notifier.stopping()
    assert listening.recv(4096) == b"STOPPING=1\nSTATUS=stopping"


def test_the_environment_is_taken_and_not_left_to_children(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    notifier = Notifier()
    assert notifier.watchdog == timedelta(seconds=3)
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ
    notifier.alive()


def test_a_watchdog_of_another_process_is_not_ours(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Notifier().watchdog is None
