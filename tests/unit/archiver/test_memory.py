"""The short cut for unchanged directories: when it is believed, and that it changes nothing but the work."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.archiver import reading
from pra_agent.archiver.memory import Memory
from pra_agent.archiver.values import Archived
from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node
from pra_agent.repository.repository import Repository
from pra_agent.sources.source import Missed
from tests.support.repositories import make_repository
from tests.unit.archiver.test_archiving import Given, find, store, store_files


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def tree(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def filled(*names: str) -> Memory:
    memory = Memory()
    for name in names:
        memory.remember(digest("files" + name), digest("whole" + name), tree(name))
    return memory


@given(st.lists(st.text(max_size=3), unique=True, max_size=30))
def test_what_was_kept_is_found_and_nothing_else(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("memory") / "seen"
    filled(*names).save(path, "s" * 64, ["i1", "i2"])
    memory = Memory.load(path, "s" * 64, ["i1", "i2", "i3"])
    for name in names:
        assert memory.files_tree(digest("files" + name)) == tree(name)
        assert memory.whole_tree(digest("whole" + name)) == tree(name)
        assert memory.files_tree(digest("whole" + name)) is None
    assert memory.files_tree(digest("other")) is None


def test_digests_with_equal_first_halves_are_told_apart(tmp_path):
    memory = Memory()
    for last in range(5):
        memory.remember(bytes(15) + bytes([last]), bytes(15) + bytes([last]), tree(str(last)))
    memory.save(tmp_path / "seen", "s", [])
    loaded = Memory.load(tmp_path / "seen", "s", [])
    assert [loaded.files_tree(bytes(15) + bytes([last])) for last in range(6)] == [
        *(tree(str(last)) for last in range(5)),
        None,
    ]


@pytest.mark.parametrize(
    ("snapshot", "indexes", "believed"),
    [
        ("s", ["i1", "i2"], True),
        ("s", ["i2", "i1", "new"], True),
        ("other", ["i1", "i2"], False),
        ("s", ["i1"], False),
        ("s", [], False),
    ],
)
def test_it_is_believed_only_for_its_snapshot_and_while_no_index_has_gone(tmp_path, snapshot, indexes, believed):
    filled("a").save(tmp_path / "seen", "s", ["i1", "i2"])
    found = Memory.load(tmp_path / "seen", snapshot, indexes).files_tree(digest("filesa"))
    assert (found == tree("a")) is believed


def test_any_flipped_bit_makes_it_nothing(tmp_path):
    path = tmp_path / "seen"
    filled("a", "b").save(path, "s", ["i1"])
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        memory = Memory.load(path, "s", ["i1"])
        assert memory.files_tree(digest("filesa")) is None
    for length in (0, 1, 20, len(data) - 1):
        path.write_bytes(data[:length])
        assert Memory.load(path, "s", ["i1"]).files_tree(digest("filesa")) is None


def test_no_file_no_memory_and_no_error(tmp_path):
    assert Memory.load(tmp_path / "seen", "s", []).whole_tree(digest("x")) is None
    Memory.forget(tmp_path / "seen")
    filled("a").save(tmp_path / "file/seen", "s", [])
    (tmp_path / "plain").touch()
    filled("a").save(tmp_path / "plain/seen", "s", [])
    filled("a").save(tmp_path / "seen", "s", [])
    Memory.forget(tmp_path / "seen")
    assert not (tmp_path / "seen").exists()


# ---------------------------------------------------------------- in an archiving


def make(root: Path) -> Path:
    for name in ("a/1", "a/2", "a/b/3", "c/4", "5"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def remembered(memory: Memory, path: Path) -> Memory:
    memory.save(path, "s", [])
    return Memory.load(path, "s", [])


def test_an_unchanged_tree_is_the_same_and_nothing_is_decoded(tmp_path, monkeypatch):
    root = make(tmp_path / "root")
    repository = make_repository()
    memory = Memory()
    first = store_files(repository, root, memory=memory)
    memory = remembered(memory, tmp_path / "seen")
    reads: list[bytes] = []
    read_tree = repository.read_tree

    def noted(tree: bytes) -> list[Node]:
        reads.append(tree)
        return read_tree(tree)

    monkeypatch.setattr(repository, "read_tree", noted)
    second = store_files(repository, root, first.tree, memory=memory)
    monkeypatch.undo()
    assert subtree(repository, second, root) == subtree(repository, first, root)
    assert counts(second) == counts(first)
    assert second.stats.files_unmodified == 5
    # None but the directories above the configured path, which have no listing.
    known = {node.subtree for node in read_tree(subtree(repository, first, root))}
    assert not known & set(reads)


def subtree(repository: Repository, archived: Archived, root: Path) -> bytes:
    """The tree of the configured path: those above it change with whatever else this machine does."""
    return find(repository, archived.tree, root).subtree or b""


def fresh(root: Path) -> bytes:
    """The tree of the configured path as a first run makes it."""
    repository = make_repository()
    return subtree(repository, store_files(repository, root), root)


def counts(archived: Archived) -> tuple[int, int, int]:
    stats = archived.stats
    return stats.files, stats.bytes, stats.others


def test_changes_deep_down_are_found_and_the_rest_is_kept(tmp_path):
    root = make(tmp_path / "root")
    repository = make_repository()
    memory = Memory()
    first = store_files(repository, root, memory=memory)
    memory = remembered(memory, tmp_path / "seen")
    (root / "a/b/3").write_text("changed")
    (root / "c/4").unlink()
    (root / "new").mkdir()
    second = store_files(repository, root, first.tree, memory=memory)
    assert subtree(repository, second, root) == fresh(root)
    assert second.stats.bytes_read == len("changed")
    third = store_files(repository, root, second.tree, memory=remembered(memory, tmp_path / "seen"))
    assert subtree(repository, third, root) == fresh(root)
    assert third.stats.files_unmodified == 4


def test_a_directory_with_a_failure_is_not_remembered(tmp_path):
    """Else a file that could not be read once would be taken for stored from then on."""
    root = make(tmp_path / "root")
    repository = make_repository()
    memory = Memory()
    original = reading.FileReader._open

    def refuse(self, dir_fd, path):
        if path.endswith(b"a/1"):
            raise PermissionError(13, "Permission denied")
        return original(self, dir_fd, path)

    patch = pytest.MonkeyPatch()
    patch.setattr(reading.FileReader, "_open", refuse)
    first = store_files(repository, root, memory=memory)
    assert first.stats.files_failed == 1
    memory = remembered(memory, tmp_path / "seen")
    again = store_files(repository, root, first.tree, memory=memory)
    assert [failure.path for failure in again.failures] == [str(root / "a/1")]
    memory = remembered(memory, tmp_path / "seen")
    patch.undo()
    good = store_files(repository, root, again.tree, memory=memory)
    assert good.failures == []
    assert subtree(repository, good, root) == fresh(root)


def test_full_asks_nobody(tmp_path):
    root = make(tmp_path / "root")
    repository = make_repository()
    memory = Memory()
    first = store_files(repository, root, memory=memory)
    second = store_files(repository, root, first.tree, memory=remembered(memory, tmp_path / "seen"), full=True)
    assert second.stats.bytes_read == second.stats.bytes > 0
    assert subtree(repository, second, root) == fresh(root)


def test_a_damaged_tree_behind_the_short_cut_is_an_error(tmp_path, monkeypatch):
    root = make(tmp_path / "root")
    repository = make_repository()
    memory = Memory()
    first = store_files(repository, root, memory=memory)
    memory = remembered(memory, tmp_path / "seen")
    damaged = find(repository, first.tree, root / "a").subtree
    (root / "a/b/3").write_text("changed")
    read_tree = repository.read_tree

    def read(tree: bytes):
        if tree == damaged:
            raise DamagedError("a test")
        return read_tree(tree)

    monkeypatch.setattr(repository, "read_tree", read)
    with pytest.raises(DamagedError):
        store_files(repository, root, first.tree, memory=memory)
    # The long way takes it for no parent at all.
    second = store_files(repository, root, first.tree)
    monkeypatch.undo()
    assert subtree(repository, second, root) == fresh(root)


def test_a_tree_that_the_index_does_not_know_is_not_taken(tmp_path):
    root = make(tmp_path / "root")
    memory = Memory()
    store_files(make_repository(), root, memory=memory)
    other = make_repository()
    archived = store_files(other, root, memory=remembered(memory, tmp_path / "seen"))
    assert subtree(other, archived, root) == fresh(root)
    assert other.has(BlobHandle(BlobType.TREE, archived.tree))
    assert archived.stats.bytes_read == archived.stats.bytes


def test_missed_in_between_is_told_each_time(tmp_path):
    """A listing is about what is there; what is missed beside it is told by the source itself."""
    missed = Missed("/srv/x", "a test")
    repository = make_repository()
    assert [store(repository, Given([missed])).stats.files_failed for _ in range(2)] == [1, 1]


def test_owners_names_are_part_of_it(tmp_path, monkeypatch):
    root = make(tmp_path / "root")
    repository = make_repository()
    memory = Memory()
    first = store_files(repository, root, memory=memory)
    monkeypatch.setattr("pra_agent.sources.attributes.Names.user", lambda _self, _uid: "renamed")
    second = store_files(repository, root, first.tree, memory=remembered(memory, tmp_path / "seen"))
    assert find(repository, second.tree, root / "a/1").user == "renamed"
    assert second.stats.bytes_read == 0
