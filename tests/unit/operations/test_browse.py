"""Looking into snapshots: ls, find, diff, dump."""

import io
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pra_agent.errors import DamagedError, UsageError
from pra_agent.model.nodes import NodeType
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations import dump
from pra_agent.operations.browse import ChangeKind, diff, find_entries, find_node, list_entries
from pra_agent.repository.repository import Repository
from tests.support.repositories import make_repository, reopen
from tests.support.roundtrip import back_up
from tests.support.trees import EVERYTHING, compare_trees


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browse") / "source"
    (path / "b/deep").mkdir(parents=True)
    (path / "a.txt").write_bytes(b"first")
    (path / "b/c.TXT").write_bytes(b"second")
    (path / "b/deep/big").write_bytes(os.urandom(3 << 20))
    (path / "link").symlink_to("a.txt")
    os.link(path / "a.txt", path / "b/again")
    os.utime(path / "a.txt", ns=(1, -1_500_000_000))
    os.setxattr(path / "b/c.TXT", "user.x", b"\0\xff")
    (path / "b/c.TXT").chmod(0o4711)
    return path


@pytest.fixture(scope="module")
def before(source: Path) -> tuple[Repository, Snapshot]:
    made = make_repository()
    back_up(made, source)
    reader = reopen(made)
    return reader, reader.find_snapshot("latest")


def _names(source: Path, paths: list[bytes]) -> list[str]:
    return [os.path.relpath(os.fsdecode(path), source) for path in paths]


def test_listing(source: Path, before: tuple[Repository, Snapshot]):
    root = os.fsencode(source)
    assert _names(source, [each.path for each in list_entries(*before, root)]) == ["a.txt", "b", "link"]
    everything = [each.path for each in list_entries(*before, root, recursive=True)]
    assert _names(source, everything) == ["a.txt", "b", "b/again", "b/c.TXT", "b/deep", "b/deep/big", "link"]
    assert [each.node.size for each in list_entries(*before, root + b"/a.txt")] == [5]
    assert [each.path for each in list_entries(*before)] == [b"/" + os.fsencode(source.parts[1])]
    assert find_node(*before, b"/").node.type is NodeType.DIR
    for path in (root + b"/nowhere", root + b"/a.txt/below"):
        with pytest.raises(UsageError, match="is not in snapshot"):
            list(list_entries(*before, path))


@pytest.mark.parametrize(
    ("patterns", "ignore_case", "expected"),
    [
        (["*.txt"], False, ["a.txt"]),
        (["*.txt"], True, ["a.txt", "b/c.TXT"]),
        (["*/deep/*"], False, ["b/deep/big"]),
        (["link", "again"], False, ["b/again", "link"]),
        (["[z]*"], False, []),
    ],
)
def test_finding(
    source: Path, before: tuple[Repository, Snapshot], patterns: list[str], ignore_case: bool, expected: list[str]
):
    reader, snapshot = before
    found = list(find_entries(reader, [snapshot], patterns, ignore_case=ignore_case))
    assert _names(source, [each.path for each in found]) == expected
    assert all(each.snapshot is snapshot for each in found)


def test_differences(tmp_path: Path):
    source = tmp_path / "source"
    (source / "same").mkdir(parents=True)
    for name in ("same/kept", "changed", "gone", "touched", "kind"):
        (source / name).write_bytes(b"1")
    made = make_repository()
    back_up(made, source)
    one = made.find_snapshot("latest")
    (source / "changed").write_bytes(b"2")
    (source / "gone").unlink()
    (source / "touched").chmod(0o600)
    (source / "kind").unlink()
    (source / "kind").mkdir()
    (source / "kind/new").write_bytes(b"")
    back_up(made, source, run="r2")
    two = next(each for each in reopen(made).snapshots() if each.id != one.id)
    reader = reopen(made)

    def told(*snapshots: Snapshot, metadata: bool = False) -> dict[str, ChangeKind]:
        changes = diff(reader, *snapshots, metadata=metadata)
        return {os.path.relpath(os.fsdecode(each.path), source): each.kind for each in changes}

    content = {"changed": ChangeKind.CONTENT, "gone": ChangeKind.REMOVED, "kind": ChangeKind.TYPE}
    assert told(one, two) == {**content, "kind/new": ChangeKind.ADDED}
    assert told(two, one) == {**content, "gone": ChangeKind.ADDED, "kind/new": ChangeKind.REMOVED}
    with_metadata = told(one, two, metadata=True)
    assert with_metadata["touched"] is ChangeKind.METADATA
    assert "same/kept" not in with_metadata
    assert told(one, one, metadata=True) == {}


def test_dumping_a_file(source: Path, before: tuple[Repository, Snapshot], monkeypatch: pytest.MonkeyPatch):
    reader, snapshot = before
    monkeypatch.setattr(dump, "_WINDOW_BYTES", 1 << 20)
    path = source / "b/deep/big"
    assert b"".join(dump.dump_file(reader, snapshot, os.fsencode(path))) == path.read_bytes()
    with pytest.raises(UsageError, match="is not a file"):
        dump.dump_file(reader, snapshot, os.fsencode(source))
    with pytest.raises(DamagedError, match="missing"):
        list(dump.read_content(reader, [bytes(32)]))


def test_dumping_a_tar_that_tar_unpacks(source: Path, before: tuple[Repository, Snapshot], tmp_path: Path):
    reader, snapshot = before
    with (tmp_path / "out.tar").open("wb") as out:
        assert dump.dump_tar(reader, snapshot, os.fsencode(source), out) == 8
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "out.tar", "-C", target, "--xattrs", "--numeric-owner"], check=True)
    what = replace(EVERYTHING, owners=os.geteuid() == 0)
    assert compare_trees(source, target / str(source).lstrip("/"), what) == []


def test_dumping_one_file_as_a_tar(source: Path, before: tuple[Repository, Snapshot]):
    reader, snapshot = before
    out = io.BytesIO()
    assert dump.dump_tar(reader, snapshot, os.fsencode(source / "a.txt"), out) == 1
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        file = tar.extractfile(tar.getnames()[0])
        assert file is not None
        assert file.read() == b"first"
