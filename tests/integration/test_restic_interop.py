"""Repositories pass between pra-agent and stock restic: what one writes, the other reads, checks and respects."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import Locked, WrongKey
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.snapshots import Snapshot
from pra_agent.model.trees import decode_tree, encode_tree
from pra_agent.repository.codec import content_id
from pra_agent.repository.host import this_host
from pra_agent.repository.pack import read_header
from pra_agent.repository.repository import BlobWriter, Repository
from pra_agent.repository.settings import ScryptCost
from pra_agent.storage.backend import Kind
from pra_agent.storage.local import LocalBackend
from tests.support.process import wait_until
from tests.support.repositories import PASSWORD, QUICK, SETTINGS, noise
from tests.support.restic import Restic, require_restic

pytestmark = pytest.mark.peer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    require_restic()
    return tmp_path / "repository"


@pytest.fixture
def restic(root: Path) -> Restic:
    return Restic(root, PASSWORD)


def create(root: Path) -> Repository:
    return Repository.init(
        LocalBackend(root), PASSWORD, clock=SystemClock(), host=this_host("web-1"), settings=SETTINGS
    )


def reopen(root: Path, password: str = PASSWORD) -> Repository:
    repository = Repository.open(
        LocalBackend(root), password, clock=SystemClock(), host=this_host("web-1"), settings=SETTINGS
    )
    repository.load_index()
    return repository


def reader(data: bytes) -> Callable[[int], bytes]:
    position = 0

    def read(wanted: int) -> bytes:
        nonlocal position
        piece = data[position : position + wanted]
        position += len(piece)
        return piece

    return read


def add_file(repository: Repository, writer: BlobWriter, name: bytes, data: bytes) -> Node:
    content = [writer.add(BlobType.DATA, chunk) for chunk in repository.chunker().chunks(reader(data))]
    return Node(name, NodeType.FILE, 0o640, mtime=10**18 + 5, size=len(data), content=content)


def save(repository: Repository, files: dict[bytes, bytes]) -> Snapshot:
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            nodes = [add_file(repository, writer, name, files[name]) for name in sorted(files)]
            inner = writer.add(BlobType.TREE, encode_tree(nodes))
            top = writer.add(BlobType.TREE, encode_tree([Node(b"srv", NodeType.DIR, 0o755, subtree=inner)]))
        return repository.save_snapshot(
            Snapshot(time=repository.clock.now(), tree=top, paths=("/srv",), hostname="web-1", tags=("job=a",))
        )


def read_all(repository: Repository, tree: bytes, path: bytes = b"") -> dict[bytes, bytes]:
    """Every file's content below a tree; and each tree is what its id says when it is encoded again."""
    files: dict[bytes, bytes] = {}
    for node in repository.read_tree(tree):
        where = path + b"/" + node.name
        if node.subtree is not None:
            files |= read_all(repository, node.subtree, where)
        elif node.content is not None:
            wanted = [BlobHandle(BlobType.DATA, one) for one in node.content]
            blobs = dict(repository.read(wanted))
            files[where] = b"".join(blobs[handle] for handle in wanted)
    assert content_id(encode_tree(repository.read_tree(tree))) == tree
    return files


FILES = {
    b"empty": b"",
    b"one": b"x",
    b"text": b"line after line\n" * 50_000,
    b"noise": noise(6_000_000),
    b"zeros": bytes(20_000_000),
    "\u00fcml\u00e4ut <&> \u2028".encode(): b"name",
}


def restored(restic: Restic, target: Path, snapshot: str, below: str) -> dict[bytes, bytes]:
    restic.restore(target, snapshot)
    return {os.fsencode(path.name): path.read_bytes() for path in (target / below).iterdir()}


def test_restic_checks_lists_and_restores_what_we_wrote(root: Path, restic: Restic, tmp_path: Path) -> None:
    repository = create(root)
    saved = save(repository, FILES)
    restic.check()
    (listed,) = restic.snapshots()
    assert (listed["id"], listed["tags"], listed["hostname"]) == (saved.id, ["job=a"], "web-1")
    assert restored(restic, tmp_path / "out", saved.id, "srv") == FILES
    assert (tmp_path / "out/srv/one").stat().st_mtime_ns == 10**18 + 5
    assert read_all(reopen(root), saved.tree) == {b"/srv/" + name: data for name, data in FILES.items()}
    assert restic.list("locks") == set()


def test_we_read_what_restic_wrote(root: Path, restic: Restic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    for name, data in FILES.items():
        (source / "deep" / os.fsdecode(name)).write_bytes(data)
    (source / "deep" / "er" / "link").symlink_to("../text")
    restic.init()
    restic.backup("deep", cwd=source)
    repository = reopen(root)
    (snapshot,) = repository.snapshots()
    assert snapshot.paths == (str(source / "deep"),)
    assert read_all(repository, snapshot.tree) == {b"/deep/" + name: data for name, data in FILES.items()}
    for pack, entries in repository.index.packs():
        assert (
            read_header(repository.backend, repository.codec, pack, (root / "data" / pack[:2] / pack).stat().st_size)
            == entries
        )
    assert {pack for pack, _ in repository.index.packs()} == restic.list("packs")
    assert set(repository.index.files) == restic.list("index")


def test_both_add_to_one_repository(root: Path, restic: Restic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "theirs").write_bytes(noise(3_000_000))
    restic.init()
    restic.backup(".", cwd=source)
    ours = save(reopen(root), FILES)
    (source / "more").write_bytes(noise(100_000))
    restic.backup(".", cwd=source)
    restic.check()
    assert len(restic.snapshots()) == 3
    theirs = reopen(root).find_snapshot("latest")
    assert read_all(reopen(root), theirs.tree) == {
        b"/" + os.fsencode(path.name): path.read_bytes() for path in source.iterdir()
    }
    # Stock forget and prune rewrite packs and indexes; what is left is whole, for both.
    restic.run("forget", "--prune", "--max-unused", "0", reopen(root).snapshots()[0].id)
    restic.check()
    assert read_all(reopen(root), ours.tree) == {b"/srv/" + name: data for name, data in FILES.items()}
    restic.run("rebuild-index", "--read-all-packs")
    assert read_all(reopen(root), ours.tree) == {b"/srv/" + name: data for name, data in FILES.items()}
    assert restored(restic, tmp_path / "out", ours.id, "srv") == FILES


def test_stock_prune_has_nothing_to_repack_of_ours(root: Path, restic: Restic) -> None:
    save(create(root), FILES)
    before = restic.list("packs")
    restic.run("prune")
    assert restic.list("packs") == before
    restic.check()


@pytest.mark.parametrize("cost", [QUICK, ScryptCost()])
def test_passwords_of_one_open_for_the_other(root: Path, restic: Restic, tmp_path: Path, cost: ScryptCost) -> None:
    repository = create(root)
    repository.keys.add("ours", cost=cost)
    theirs = Restic(root, "ours")
    assert theirs.snapshots() == []
    (tmp_path / "new").write_text("theirs\n")
    theirs.run("key", "add", "--new-password-file", tmp_path / "new")
    opened = reopen(root, "theirs")
    assert len(opened.keys.list()) == len(restic.list("keys")) == 3
    opened.keys.passwd("changed", cost=cost)
    assert Restic(root, "changed").snapshots() == []
    with pytest.raises(WrongKey):
        reopen(root, "theirs")


def test_restic_refuses_beside_our_lock(root: Path, restic: Restic) -> None:
    repository = create(root)
    save(repository, {b"one": b"x"})
    with repository.lock(exclusive=True) as lock:
        assert restic.list("locks") == {lock.id}
        done = restic.try_run("check")
        assert done.returncode
        assert "locked" in done.stderr
        restic.run("unlock")
        lock.confirm()  # ours is alive, and stock unlock knows it
    with repository.lock():
        assert restic.try_run("prune").returncode
        restic.run("ls", "latest")
    restic.check()


@contextmanager
def restic_at_work(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Stock restic in the middle of a backup, under its shared lock."""
    process = subprocess.Popen(
        [require_restic(), "-r", str(root), "--no-cache", "-q", "backup", "--stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )
    try:
        # restic writes a file of another name first.
        wait_until(lambda: any(len(path.name) == 64 for path in (root / "locks").iterdir()), "restic's lock")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_we_refuse_beside_the_lock_of_restic(root: Path, restic: Restic) -> None:
    repository = create(root)
    with restic_at_work(root) as process:
        (found,) = repository.locks.read_all()
        assert (found.pid, found.exclusive, found.stale) == (process.pid, False, False)
        with pytest.raises(Locked, match=str(process.pid)), repository.lock(exclusive=True):
            pytest.fail("must not be reached")
        save(repository, {b"beside": b"each other"})
        assert repository.unlock() == []
    # It was killed: its lock is stale, and goes when it is asked for.
    (found,) = repository.locks.read_all()
    assert (found.stale, found.dead) == (True, False)
    with pytest.raises(Locked), repository.lock(exclusive=True):
        pytest.fail("must not be reached")
    assert len(repository.unlock()) == 1
    with repository.lock(exclusive=True):
        pass
    restic.check()


def test_every_tree_of_restic_is_reencoded_to_the_same_bytes(root: Path, restic: Restic, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        name = os.fsdecode(bytes([0x61, 0x80 + number]) + "\u00a0\u200b\u2028<>&\"'\\".encode())
        (source / name).write_bytes(b"%d" % number)
    restic.init()
    restic.backup(source)
    repository = reopen(root)
    trees = [e.id for _, entries in repository.index.packs() for e in entries if e.type is BlobType.TREE]
    assert trees
    for tree in trees:
        raw = repository.read_blob(BlobHandle(BlobType.TREE, tree))
        assert encode_tree(decode_tree(raw)) == raw
    assert len(list(repository.backend.list(Kind.SNAPSHOT))) == 1
