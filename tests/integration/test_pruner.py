"""One process looks after the repositories of many hosts: what it does, what it prints, what it tells Prometheus."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pra_agent.cli.samples import describe_tree, difference
from tests.support.agent import Agent
from tests.support.hardened import Cli
from tests.support.restic import Restic

KEEP = {"last": 1, "min_count": 1}


class Host(Agent):
    """A host with snapshots of which its policy keeps the newest only."""

    def __init__(self, root: Path, node: str) -> None:
        super().__init__(root)
        self.configure(
            node=node,
            defaults={**self.settings["defaults"], "keep": KEEP},  # type: ignore[dict-item]
            maintenance={"forget": None, "prune": None, "check": {"schedule": None}},
        )
        self.init()

    def saved(self, cli: Cli, times: int = 3) -> None:
        cli.config = self.config
        for number in range(times):
            (self.data / f"of {number}").write_bytes(bytes([number]) * 200_000)
            cli("--direct", "backup")
            if number < times - 1:
                (self.data / f"of {number}").unlink()

    def snapshots(self) -> list[str]:
        return sorted(file.name for file in (self.repository / "snapshots").iterdir())


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """What `--direct` keeps stays out of the home directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def hosts(tmp_path, cli):
    made = [Host(tmp_path / node, node) for node in ("one", "two", "three")]
    for host in made:
        host.saved(cli)
    return made


@pytest.fixture
def cli(tmp_path, capsys):
    return Cli(tmp_path / "pruner.yaml", capsys)


@pytest.fixture
def pruning(hosts, cli, tmp_path):
    """The pruning host: host one's configuration with a pruner."""
    (tmp_path / "pruner.ini").write_text("[default]\n")

    def configure(**pruner: Any) -> None:
        first, *others = hosts
        settings = {
            "credentials": {"file": str(tmp_path / "pruner.ini")},
            "hosts": [str(host.config) for host in others],
            "textfile": str(tmp_path / "pruner.prom"),
            "prune": {"max_unused": "0B"},
        }
        cli.config = tmp_path / "pruner.yaml"
        cli.config.write_text(json.dumps({**first.settings, "pruner": {**settings, **pruner}}))
        cli.config.chmod(0o600)

    configure()
    return configure


def metrics(tmp_path: Path) -> dict[str, float]:
    """The textfile, read as node_exporter would."""
    text = (tmp_path / "pruner.prom").read_text()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line).groups()  # type: ignore[union-attr]
            assert f"# TYPE {name} gauge\n" in text
            found[name + (labels or "")] = float(value)
    return found


def where(node: str, operation: str = "") -> str:
    last = f',operation="{operation}"' if operation else ""
    return f'{{node="{node}",destination="repository"{last}}}'


def test_all_hosts_are_walked_and_the_result_is_told(hosts, pruning, cli, tmp_path):
    before = [host.snapshots() for host in hosts]
    out = cli("--direct", "forget", "--dry-run")
    assert [line for line in out.splitlines() if line.startswith("would")] == [
        "would forget 2 snapshots, and keep 1"
    ] * 3
    plans = cli.visits("prune", "--dry-run")
    assert [host.snapshots() for host in hosts] == before
    assert not (tmp_path / "pruner.prom").exists()
    assert [plan["node"] for plan in plans] == ["one", "two", "three"]

    done = cli.visits("forget")
    assert [(one["node"], one["run"]["detail"]["forgotten"]) for one in done] == [(h.root.name, 2) for h in hosts]
    sizes = [sum(file.stat().st_size for file in host.repository.rglob("*") if file.is_file()) for host in hosts]
    assert [line.split(":")[0] for line in cli("--direct", "prune").splitlines()] == ["one", "two", "three"]
    for host, size in zip(hosts, sizes, strict=True):
        assert len(host.snapshots()) == 1
        assert sum(file.stat().st_size for file in host.repository.rglob("*") if file.is_file()) < size
        Restic(host.repository).run("check", "--read-data")
        target = tmp_path / "back"
        cli.config = host.config
        cli("--direct", "restore", "app", "--target", target)
        assert difference(describe_tree(host.data), describe_tree(target / str(host.data).lstrip("/"))) == []
        shutil.rmtree(target)

    told = metrics(tmp_path)
    assert (tmp_path / "pruner.prom").stat().st_mode & 0o777 == 0o644
    for operation in ("forget", "prune"):
        assert told[f'pra_pruner_hosts{{operation="{operation}"}}'] == 3
        assert told[f'pra_pruner_failed_hosts{{operation="{operation}"}}'] == 0
        begun = told[f'pra_pruner_last_attempt_timestamp_seconds{{operation="{operation}"}}']
        for host in hosts:
            assert told[f"pra_pruner_last_success_timestamp_seconds{where(host.root.name, operation)}"] >= begun
    assert told[f"pra_pruner_snapshots{where('two')}"] == 1
    assert told[f"pra_pruner_quarantined_snapshots{where('two')}"] == 0
    assert told[f"pra_pruner_repository_size_bytes{where('two')}"] > 0


def test_a_host_that_fails_keeps_no_other_from_its_turn(hosts, pruning, cli, tmp_path):
    cli("--direct", "forget")
    good = metrics(tmp_path)
    (hosts[1].root / "password").write_text("another")
    hosts[2].saved(cli)
    pruning()
    documents = cli.visits("forget", code=1)
    assert [(one["type"], one["node"]) for one in documents] == [("run", "one"), ("failed", "two"), ("run", "three")]
    assert "two: " in cli.err
    assert len(hosts[2].snapshots()) == 1
    told = metrics(tmp_path)
    assert told['pra_pruner_failed_hosts{operation="forget"}'] == 1
    assert told[f"pra_pruner_failed{where('two', 'forget')}"] == 1
    success = "pra_pruner_last_success_timestamp_seconds"
    assert told[success + where("two", "forget")] == good[success + where("two", "forget")]
    assert told[success + where("three", "forget")] > good[success + where("three", "forget")]
    # A host that is looked after no longer has no numbers any more.
    pruning(hosts=[str(hosts[2].config)])
    cli("--direct", "forget")
    assert not [name for name in metrics(tmp_path) if '"two"' in name]


def test_one_host_by_its_name(hosts, pruning, cli, tmp_path):
    cli("--direct", "forget", "--as-node", "two")
    assert [len(host.snapshots()) for host in hosts] == [3, 1, 3]
    assert not (tmp_path / "pruner.prom").exists()
    cli("--direct", "forget", "--as-node", "four", code=2)
    (shown,) = cli.json("--direct", "snapshots", "--as-node", "three")
    assert {one["node"] for one in shown["snapshots"]} == {"three"}
    (pinned,) = cli.json("pin", hosts[2].snapshots()[0][:12], "--as-node", "three")
    assert pinned["snapshot"] in hosts[2].snapshots()
    assert "nothing to do" in cli("--direct", "repair", "--dry-run", "--as-node", "three")
    cli("--direct", "forget", hosts[2].snapshots()[0][:12], "--as-node", "three", "--yes")
    assert len(hosts[2].snapshots()) == 2


def test_two_configurations_of_one_node_are_a_mistake(hosts, pruning, cli):
    pruning(hosts=[str(hosts[1].config), str(hosts[1].config)])
    cli("--direct", "forget", code=2)
    assert "two of the configurations are of the node two" in cli.err
    pruning(hosts=[str(hosts[1].config) + "x"])
    cli("--direct", "prune", code=2)


def test_copies_that_the_pruner_has_credentials_for_are_walked(hosts, pruning, cli, tmp_path):
    copy = tmp_path / "copy"
    hosts[0].init(copy)
    hosts[0].configure(copies=[{"name": "second", "url": str(copy), "keep": {"last": 2}}])
    cli.config = hosts[0].config
    (hosts[0].data / "more").write_bytes(b"x" * 100_000)
    cli("--direct", "copy")
    for _ in range(2):
        cli("--direct", "backup")
        cli("--direct", "copy")
    before = len(list((copy / "snapshots").iterdir()))
    assert before > 2
    pruning(hosts=[], copies={"second": {"file": str(tmp_path / "pruner.ini")}}, quarantine="1d", grace="0s")
    documents = cli.visits("forget")
    assert [(one["node"], one["copy"]) for one in documents] == [("one", ""), ("one", "second")]
    assert len(list((copy / "snapshots").iterdir())) == 2
    assert 'pra_pruner_snapshots{node="one",destination="second"}' in metrics(tmp_path)
