"""A tree with everything in it: saved by us, restored by us and by stock restic; and the other way round."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.runs import Outcome
from pra_agent.model.trees import decode_tree, encode_tree
from pra_agent.repository.repository import Repository
from pra_agent.storage.local import LocalBackend
from tests.support.repositories import HOST, PASSWORD, make_repository, reopen
from tests.support.restic import Restic, require_restic
from tests.support.roundtrip import back_up, below, restore_snapshot, restored
from tests.support.trees import EVERYTHING, STOCK, Compared, Nasty, compare_trees, make_nasty_tree

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Nasty:
    return make_nasty_tree(tmp_path_factory.mktemp("nasty") / "tree", depth=120)


def _all_trees(repository: Repository) -> dict[bytes, bytes]:
    """Every tree of every snapshot: id to JSON."""
    trees: dict[bytes, bytes] = {}
    wanted = [snapshot.tree for snapshot in repository.snapshots()]
    while wanted:
        tree = wanted.pop()
        if tree not in trees:
            trees[tree] = repository.read_blob(BlobHandle(BlobType.TREE, tree))
            wanted += [node.subtree for node in decode_tree(trees[tree]) if node.subtree is not None]
    return trees


def test_ours_comes_back_from_us_and_from_stock_restic(nasty: Nasty, tmp_path: Path):
    repository = make_repository(LocalBackend(tmp_path / "repository"))
    record = back_up(repository, nasty.root)
    assert record.outcome is Outcome.SUCCESS, record.failures
    reader = reopen(repository)
    restored(reader, reader.find_snapshot("latest"), tmp_path / "ours")
    assert (
        compare_trees(nasty.root, below(tmp_path / "ours", nasty.root), replace(EVERYTHING, sparse=True, sockets=False))
        == []
    )

    require_restic()
    restic = Restic(tmp_path / "repository")
    restic.check()
    restic.restore(tmp_path / "stock")
    assert compare_trees(nasty.root, below(tmp_path / "stock", nasty.root), STOCK) == []


def test_stock_comes_back_from_us_and_is_added_to(nasty: Nasty, tmp_path: Path):
    require_restic()
    restic = Restic(tmp_path / "repository")
    restic.init()
    restic.backup(nasty.root)
    backend = LocalBackend(tmp_path / "repository")
    repository = Repository.open(backend, PASSWORD, clock=SystemClock(), host=HOST)
    with repository.lock():
        repository.load_index()
        snapshots = repository.snapshots()
        assert [each.paths for each in snapshots] == [(str(nasty.root),)]
        restored(repository, snapshots[0], tmp_path / "ours")
    # What stock restic did not save nobody can bring back; it saves the link count of files and symbolic links only.
    counted = frozenset((stat.S_IFREG, stat.S_IFLNK))
    saved = Compared(
        sockets=False, linked=counted, raw_link_targets=False, link_xattrs=False, lost_xattrs=STOCK.lost_xattrs
    )
    assert compare_trees(nasty.root, below(tmp_path / "ours", nasty.root), saved) == []

    record = back_up(repository, nasty.root)
    assert record.outcome is Outcome.SUCCESS, record.failures
    restic.check()
    assert len(restic.snapshots()) == 2
    restic.restore(tmp_path / "stock", record.snapshot)
    assert compare_trees(nasty.root, below(tmp_path / "stock", nasty.root), STOCK) == []


def test_trees_of_stock_restic_encode_to_the_same_bytes(nasty: Nasty, tmp_path: Path):
    require_restic()
    restic = Restic(tmp_path / "repository", environment=(("TZ", "Asia/Kolkata"),))
    restic.init()
    few = [nasty.root / name for name in ("names", "kinds", "modes", "links", "xattrs", "acls", "times", "devices")]
    restic.backup(*(path for path in few if path.exists()))
    backend = LocalBackend(tmp_path / "repository")
    repository = Repository.open(backend, PASSWORD, clock=SystemClock(), host=HOST)
    repository.load_index()
    trees = _all_trees(repository)
    assert len(trees) > 10
    lost = 0
    for data in trees.values():
        if b"\\ufffd" in data:  # a link target that 0.14 has lost already
            lost += 1
        else:
            assert encode_tree(decode_tree(data)) == data
    assert lost <= 1


def test_a_second_restore_changes_nothing(nasty: Nasty, tmp_path: Path):
    repository = make_repository(LocalBackend(tmp_path / "repository"))
    back_up(repository, nasty.root)
    reader = reopen(repository)
    snapshot = reader.find_snapshot("latest")
    first = restored(reader, snapshot, tmp_path / "ours")
    again = restored(reader, snapshot, tmp_path / "ours")
    assert (again.files, again.bytes, again.kept) == (0, 0, first.files + first.linked)
    verified = restored(reader, snapshot, tmp_path / "ours", verify=True)
    assert verified.bytes == 0
    assert compare_trees(nasty.root, below(tmp_path / "ours", nasty.root), Compared(sockets=False)) == []


def test_without_root_what_one_may_is_restored(nasty: Nasty, tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    repository = make_repository()
    back_up(repository, nasty.root / "contents", nasty.root / "kinds", nasty.root / "names")
    reader = reopen(repository)
    snapshot = reader.find_snapshot("latest")
    target = tmp_path / "ours"
    target.mkdir()
    os.chown(target, 65534, 65534)
    parents = [parent for parent in target.parents if parent != Path("/") and not parent.stat().st_mode & 0o001]
    for parent in parents:
        parent.chmod(parent.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        done = restore_snapshot(reader, snapshot, target)
    finally:
        os.seteuid(0)
    devices = [path for path in (nasty.root / "kinds").iterdir() if path.lstat().st_rdev]
    assert sorted(each.path for each in done.failures) == sorted(map(str, devices))
    for name in ("contents", "kinds", "names"):
        left = nasty.root / name
        assert (
            compare_trees(
                left,
                below(target, left),
                Compared(owners=False, sockets=False, ignore=frozenset(os.fsencode(path.name) for path in devices)),
            )
            == []
        )
