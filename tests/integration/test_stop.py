"""One Ctrl-C in the middle of one large file: the backup ends in order, and what it has stored is used again."""

import os
import signal
import sys

from pra_agent.cli.app import run
from tests.support.agent import AGENT, Agent
from tests.support.process import ServerProcess, wait_until
from tests.support.restic import Restic


def test_interrupted_in_the_middle_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own-state"))
    agent = Agent(tmp_path / "host")
    repository = dict(agent.settings["repository"])  # type: ignore[call-overload]
    tuning = {"pack_size": 4 << 20, "upload_memory": 16 << 20}
    narrow = {**repository, "limits": {"upload": "4MiB/s"}, "tuning": tuning}
    agent.configure(repository=narrow, limits={"workers": 2})
    agent.init()
    agent.fill(1, 60 << 20)
    argv = [sys.executable, "-m", "pra_agent", "--config", str(agent.config), "--direct", "backup", "app"]
    process = ServerProcess(argv, agent.log, {"PYTHONPATH": str(AGENT)})
    try:
        data = agent.repository / "data"
        wait_until(lambda: any(path.is_file() for path in data.rglob("*")), f"a first pack: {process.tail()}")
        os.kill(process.pid, signal.SIGINT)
        wait_until(lambda: not process.running(), f"the end: {process.tail()}")
    finally:
        process.kill()
    assert process.process.returncode == 130, process.tail()
    assert list((agent.repository / "snapshots").glob("*")) == []
    assert list((agent.repository / "locks").glob("*")) == []
    agent.configure(repository={**repository, "tuning": tuning})
    assert run(["--config", str(agent.config), "--direct", "backup", "app"]) == 0
    Restic(agent.repository).run("check", "--read-data")
