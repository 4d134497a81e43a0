"""Plan A on directories alone: the node is one that the operator has stopped."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.cassandra import CassandraSettings
from pra_agent.sources.source import Source
from tests.support.captures import MemoryState, put_back
from tests.support.process import free_port

ID = "1" * 32
NODE = {
    "cluster": "c",
    "host_id": "h",
    "data_center": "dc1",
    "rack": "r1",
    "tokens": ["-5", "7"],
    "version": "5.0.9",
    "partitioner": "p",
    "address": "192.0.2.1",
}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def texts(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A node's directories as they are now."""
    return tree(
        tmp_path / "live",
        {
            f"d1/shop/t-{ID}/nb-2-big-Data.db": "later",
            f"d1/newer/t-{ID}/nb-2-big-Data.db": "later",
            f"d2/shop/t-{ID}/nb-3-big-Data.db": "later",
            "commitlog/CommitLog-7-1.log": "later",
            "hints/x.hints": "later",
            "cassandra.yaml": "num_tokens: 16\n",
        },
    )


@pytest.fixture
def restored(tmp_path: Path, live: Path) -> Path:
    """A snapshot of that node as it was."""
    places = {"data": [str(live / "d1"), str(live / "d2")]}
    places |= {kind: [str(live / kind)] for kind in ("commitlog", "hints", "saved_caches")}
    facts = {"format": 1, "node": NODE, "directories": places, "host_directories": places}
    return tree(
        tmp_path / "restored",
        {
            "cassandra/facts.json": json.dumps(facts),
            "cassandra/schema.json": "[]",
            f"cassandra/data/0/system/local-{ID}/nb-1-big-Data.db": "then",
            f"cassandra/data/0/system_schema/tables-{ID}/nb-1-big-Data.db": "then",
            f"cassandra/data/0/shop/t-{ID}/nb-1-big-Data.db": "then",
            f"cassandra/data/1/shop/t-{ID}/nb-4-big-Data.db": "then",
        },
    )


def source(live: Path, **more: object) -> Source:
    ports = {"port": free_port(), "jmx_port": free_port()}
    return CassandraSettings.model_validate({**ports, "config": str(live / "cassandra.yaml"), **more}).build()


def test_the_snapshot_takes_the_place_of_what_was_there(live: Path, restored: Path):
    done = put_back(source(live), restored, force=True, options={"plan": "a"})
    now = texts(live)
    kept = {name for name in now if ".pra-before-restore1" in name}
    assert {name: text for name, text in now.items() if name not in kept} == {
        f"d1/shop/t-{ID}/nb-1-big-Data.db": "then",
        f"d1/system/local-{ID}/nb-1-big-Data.db": "then",
        f"d1/system_schema/tables-{ID}/nb-1-big-Data.db": "then",
        f"d2/shop/t-{ID}/nb-4-big-Data.db": "then",
        "cassandra.yaml": "num_tokens: 16\n",
    }
    assert kept == {
        f"d1/shop.pra-before-restore1/t-{ID}/nb-2-big-Data.db",
        f"d1/newer.pra-before-restore1/t-{ID}/nb-2-big-Data.db",
        f"d2/shop.pra-before-restore1/t-{ID}/nb-3-big-Data.db",
        "commitlog/CommitLog-7-1.log.pra-before-restore1",
        "hints/x.hints.pra-before-restore1",
    }
    assert "initial_token: -5,7" in done
    assert any(line.startswith("left to do: start Cassandra") for line in done)
    # What an earlier restore has kept is nobody's data.
    put_back(source(live), restored, run="again", force=True, options={"plan": "a"})
    assert kept <= texts(live).keys()


def test_live_data_needs_force(live: Path, restored: Path):
    before = texts(live)
    with pytest.raises(RefusedError, match="there is data in it"):
        put_back(source(live), restored, options={"plan": "a"})
    lines = put_back(source(live), restored, force=True, dry_run=True, options={"plan": "a"})
    assert f"would replace {live}/d1/shop" in lines
    assert texts(live) == before


def test_tokens_are_written_where_the_job_says(live: Path, restored: Path):
    with pytest.raises(RefusedError, match="needs config"):
        put_back(source(live, config=None), restored, force=True, options={"plan": "a", "tokens": "write"})
    put_back(source(live), restored, force=True, options={"plan": "a", "tokens": "write"})
    assert (live / "cassandra.yaml").read_text() == "num_tokens: 2\ninitial_token: '-5,7'\n"


def test_what_fails_on_its_way_is_undone(live: Path, restored: Path, monkeypatch: pytest.MonkeyPatch):
    before = texts(live)
    rename = Path.rename

    def break_late(self: Path, target: Path) -> Path:
        if self.name == "x.hints":
            raise OSError(28, "no room")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", break_late)
    state = MemoryState()
    with pytest.raises(OSError, match="no room"):
        put_back(source(live), restored, force=True, state=state, options={"plan": "a", "tokens": "write"})
    assert texts(live) == before
    assert not state.pending()


def test_a_crash_on_its_way_is_undone_at_the_next_start(live: Path, restored: Path, monkeypatch: pytest.MonkeyPatch):
    before = texts(live)
    rename = Path.rename

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    def crash_late(self: Path, target: Path) -> Path:
        if self.name == "x.hints":
            raise Crash
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash_late)
    monkeypatch.setattr("pra_agent.sources.exchange._roll_back", crash)
    state = MemoryState()
    with pytest.raises(Crash):
        put_back(source(live), restored, force=True, state=state, options={"plan": "a"})
    monkeypatch.undo()
    assert texts(live) != before
    source(live).undo(state)
    assert texts(live) == before
    assert not state.pending()


def test_a_part_of_a_node_is_no_node(live: Path, restored: Path):
    for path in restored.glob("cassandra/data/0/system*/*/*"):
        path.unlink()
        path.parent.rmdir()
    with pytest.raises(RefusedError, match="lacks system, system_schema"):
        put_back(source(live), restored, force=True, options={"plan": "a"})


def test_as_many_data_directories_as_then(live: Path, restored: Path):
    with pytest.raises(SourceError, match="2 data directories, the job has 1"):
        put_back(source(live, data_dirs=[str(live / "d1")]), restored, force=True, options={"plan": "a"})
