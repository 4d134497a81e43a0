"""A host that keeps everything in a real S3 server: its daemon saves, its socket restores, stock restic agrees."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pra_agent.model.runs import Outcome
from tests.support.agent import AGENT, NODE, Agent
from tests.support.hardened import Cli
from tests.support.repositories import PASSWORD
from tests.support.restic import Restic, require_restic
from tests.support.roundtrip import below
from tests.support.s3 import S3Store
from tests.support.trees import EVERYTHING, STOCK, compare_trees, make_nasty_tree

pytestmark = [pytest.mark.s3, pytest.mark.xdist_group("s3")]
#: A key slot that costs little to open.
QUICK = {"scrypt": {"n": 1024, "p": 1}}
HUGE = (4 << 30) + 12345


@pytest.fixture
def agent(tmp_path: Path, s3_store: S3Store) -> Iterator[Agent]:
    """A host whose repository is a prefix of a new bucket."""
    made = Agent(tmp_path / "host")
    credentials = str(s3_store.server.credentials_file())
    place: dict[str, Any] = {
        "url": s3_store.settings.url,
        "endpoint": s3_store.server.endpoint,
        "region": s3_store.server.region,
        "credentials": {"file": credentials},
        "password": {"file": str(tmp_path / "host/password")},
        "tuning": QUICK,
    }
    made.configure(repository=place)
    yield made
    made.stop()


@pytest.fixture
def cli(agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("XDG_STATE_HOME", str(agent.root / "caller"))
    return Cli(agent.config, capsys)


def stock(store: S3Store) -> Restic:
    return Restic(store.restic_repository, PASSWORD, tuple(store.restic_environment.items()), timeout=600)


def test_saved_by_the_daemon_restored_through_its_socket(agent: Agent, cli: Cli, s3_store: S3Store, tmp_path: Path):
    agent.fill(20, 30_000)
    cli("init", "--kit", tmp_path / "kit.txt")
    assert PASSWORD in (tmp_path / "kit.txt").read_text()
    agent.start()
    cli("backup", "app")
    (agent.data / "file-3").write_bytes(b"changed")
    second = cli.json("backup", "app")
    assert second[-1]["run"]["outcome"] == "success"
    assert len(cli.json("snapshots", "app")[0]["snapshots"]) == 2
    cli("restore", "app", "--target", tmp_path / "back")
    assert compare_trees(agent.data, below(tmp_path / "back", agent.data)) == []
    shutil.rmtree(agent.data)
    cli("restore", "app", "--in-place", "--force")
    assert compare_trees(agent.data, below(tmp_path / "back", agent.data)) == []
    assert cli("dump", "app", str(agent.data / "file-3")) == "changed"

    agent.stop()
    require_restic()
    restic = stock(s3_store)
    restic.check()
    restic.restore(tmp_path / "stock")
    assert compare_trees(agent.data, below(tmp_path / "stock", agent.data)) == []
    restic.backup(str(agent.data), extra=["--tag", "by-hand"])
    assert len(cli.json("--direct", "snapshots")[0]["snapshots"]) == 3
    cli("--direct", "check", "--read-data-subset", "100%")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_that_a_tree_can_have(agent: Agent, cli: Cli, s3_store: S3Store, tmp_path: Path):
    nasty = make_nasty_tree(agent.data / "tree", depth=300, many=100_000)
    huge = agent.data / "huge"
    with huge.open("wb") as file:
        file.write(b"start")
        file.seek(HUGE - 3)
        file.write(b"end")
    cli("init", "--kit", tmp_path / "kit.txt")
    agent.start()
    with agent.client() as client:
        record = client.run_job("app")
        assert record.outcome is Outcome.SUCCESS, record.failures
        assert record.bytes > HUGE
        again = client.run_job("app")
        assert again.files_unmodified == again.files == record.files
        assert again.bytes_added < 1 << 20
    cli("restore", "app", "--target", tmp_path / "ours")
    back = below(tmp_path / "ours", nasty.root)
    assert compare_trees(nasty.root, back, replace(EVERYTHING, sparse=True, sockets=False)) == []
    came = back.parent / "huge"
    assert came.stat().st_size == HUGE
    assert came.stat().st_blocks * 512 < 32 << 20
    with came.open("rb") as file:
        assert file.read(5) == b"start"
        file.seek(HUGE - 3)
        assert file.read() == b"end"
    shutil.rmtree(tmp_path / "ours")

    agent.stop()
    require_restic()
    restic = stock(s3_store)
    restic.check()
    # Restic 0.14 writes zeros as they are: the huge file is looked at in its listing only, and so is the crowd.
    crowd = nasty.root / "crowd"
    restic.restore(tmp_path / "stock", extra=["--exclude", str(huge), "--exclude", f"{crowd}/*"])
    listed = [
        json.loads(line) for line in restic.run("ls", "--json", "latest", str(agent.data), str(crowd)).splitlines()
    ]
    sizes = {one["path"]: one["size"] for one in listed if one.get("type") == "file"}
    assert sizes[str(huge)] == HUGE
    assert {Path(path).name for path in sizes if path.startswith(f"{crowd}/")} == {
        each.name for each in crowd.iterdir()
    }
    shutil.rmtree(crowd)
    crowd.mkdir()
    there = below(tmp_path / "stock", nasty.root)
    for tree in (nasty.root, there):  # a directory that was emptied has another time
        os.utime(tree / "crowd", ns=(0, 0))
        os.utime(tree, ns=(0, 0))
    assert compare_trees(nasty.root, there, STOCK) == []


# ---------------------------------------------------------------- whose repository it is
def _on_another_machine(agent: Agent, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command line with another machine-id, in a mount namespace of its own."""
    other = agent.root / "machine-id"
    other.write_text("0123456789abcdef0123456789abcdef\n")
    script = 'mount --bind "$1" /etc/machine-id && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(other), sys.executable, "-m", "pra_agent"]
    environment = {**os.environ, "PYTHONPATH": str(AGENT), "XDG_STATE_HOME": str(agent.root / "other-caller")}
    return subprocess.run(
        [*argv, "--config", str(agent.config), *words], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/etc/machine-id").exists(), reason="changes the machine-id in a namespace"
)
def test_another_machine_must_adopt_it_and_may_read_it(agent: Agent, cli: Cli, tmp_path: Path):
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("may not make a mount namespace")
    agent.fill(3, 1000)
    cli("init", "--kit", tmp_path / "kit.txt")
    cli("--direct", "backup", "app")

    refused = _on_another_machine(agent, "--direct", "backup", "app")
    assert refused.returncode == 1
    assert f"used by {NODE} on another machine" in refused.stderr
    assert "adopt" in refused.stderr
    read = _on_another_machine(agent, "--direct", "restore", "app", "--target", str(tmp_path / "read"))
    assert read.returncode == 0, read.stderr
    assert compare_trees(agent.data, below(tmp_path / "read", agent.data)) == []
    adopted = _on_another_machine(agent, "--direct", "adopt", "--yes")
    assert adopted.returncode == 0, adopted.stderr
    assert _on_another_machine(agent, "--direct", "backup", "app").returncode == 0

    # Another node's snapshots are read by its name, and by that alone.
    agent.configure(node="web-2")
    cli("--direct", "restore", "app", "--target", tmp_path / "none", code=2)
    cli("--direct", "--as-node", NODE, "restore", "app", "--target", tmp_path / "as")
    assert compare_trees(agent.data, below(tmp_path / "as", agent.data)) == []
