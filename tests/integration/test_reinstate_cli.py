"""Databases and volumes by the command line, as an operator does it: backed up, broken, put back in place."""

import json
import sqlite3
from contextlib import closing

import pytest

from pra_agent.cli.app import run
from tests.support.agent import Agent
from tests.support.restic import Restic


@pytest.fixture
def agent(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own-state"))
    made = Agent(tmp_path / "host")
    database = made.root / "grafana.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE t (a INT)")
        connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(1000)])
    made.configure(jobs={"db": {"source": {"type": "dump", "preset": "sqlite", "paths": [str(database)]}}})
    made.init()
    return made


def _rows(agent: Agent) -> int:
    with closing(sqlite3.connect(agent.root / "grafana.db")) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM t").fetchone()[0])


def _run(agent: Agent, capsys, *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    got = run(["--config", str(agent.config), *words])
    captured = capsys.readouterr()
    assert got == code, captured.err + captured.out
    return captured.out, captured.err


@pytest.mark.parametrize("direct", [True, False])
def test_a_database_comes_back(agent: Agent, capsys, direct: bool):
    way = ["--direct"] if direct else []
    if not direct:
        agent.start()
    try:
        _run(agent, capsys, *way, "backup", "db")
        with closing(sqlite3.connect(agent.root / "grafana.db")) as connection, connection:
            connection.execute("DELETE FROM t WHERE a > 10")
        _, said = _run(agent, capsys, *way, "restore", "db", "--in-place", code=1)
        assert "exists" in said
        out, _ = _run(agent, capsys, *way, "restore", "db", "--in-place", "--force", "--dry-run")
        assert "would restore" in out
        assert _rows(agent) == 11
        out, _ = _run(agent, capsys, *way, "restore", "db", "--in-place", "--force", "--json")
        done = json.loads(out.splitlines()[-1])["run"]
        assert [line.startswith("sqlite: ") for line in done["detail"]["done"]] == [True, True]
        assert _rows(agent) == 1000
        other = agent.root / "other.db"
        _run(agent, capsys, *way, "restore", "db", "--in-place", "--option", f"as={other}")
        assert other.exists()
    finally:
        agent.stop()
    assert list((agent.root.parent / "own-state/pra-agent/scratch").iterdir()) == []
    Restic(agent.repository).run("check", "--read-data")


def test_what_cannot_be(agent: Agent, capsys):
    _run(agent, capsys, "--direct", "backup", "db")
    _, said = _run(agent, capsys, "--direct", "restore", "db", "--target", "/x", "--option", "a=b", code=2)
    assert "--in-place" in said
    _, said = _run(agent, capsys, "--direct", "restore", "db", "--in-place", "--option", "nonsense", code=2)
    assert "KEY=VALUE" in said
    _, said = _run(agent, capsys, "--direct", "restore", "db", "--in-place", "--option", "x=y", code=1)
    assert "knows no option x" in said
    agent.configure(jobs={})
    _, said = _run(agent, capsys, "--direct", "restore", "db", "--in-place", code=2)
    assert "not in the configuration" in said


def test_a_dump_that_fails_is_no_snapshot(agent: Agent, capsys):
    agent.configure(
        jobs={
            "half": {
                "source": {"type": "dump", "preset": "command", "command": ["echo", "half"], "trailer": "THE END"},
                "hooks": {"on_failure": [{"command": ["touch", str(agent.root / "told")]}]},
            }
        }
    )
    _, said = _run(agent, capsys, "--direct", "backup", "half", code=1)
    assert "lacks its end" in said
    assert (agent.root / "told").exists()
    out, _ = _run(agent, capsys, "--direct", "snapshots", "--json")
    assert json.loads(out)["snapshots"] == []
