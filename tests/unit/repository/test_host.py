import os
import subprocess
import sys
from pathlib import Path

import pytest

from pra_agent.repository import host as host_module
from pra_agent.repository.host import pid_namespace, process_start, this_host


def test_this_host_names_node_and_process():
    host = this_host("web-1")
    assert host.node == "web-1"
    assert host.pid == os.getpid()
    assert host.boot_time > 1_000_000_000
    assert host.boot_id
    assert this_host("").node == host.hostname


def test_a_process_start_tells_the_living_from_the_dead():
    mine = process_start(os.getpid())
    assert mine is not None
    assert process_start(os.getpid()) == mine
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = process_start(child.pid)
        assert started is not None
        assert started >= mine
    finally:
        child.kill()
        # Killed but not waited for, it is a zombie: dead as well.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(child.pid) is None
        child.communicate()
    assert process_start(child.pid) is None


def test_the_pid_namespace_has_a_name():
    assert pid_namespace().startswith("pid:[")


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_MACHINE_ID", (tmp_path / "none",))
    monkeypatch.setattr(host_module, "_BOOT_ID", tmp_path / "none")
    monkeypatch.setattr(host_module, "_STAT", tmp_path / "none")
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999)
    host = this_host("web-1")
    assert (host.machine_id, host.boot_id, host.boot_time) == ("", "", 0)
    assert host.username == "3999999"
