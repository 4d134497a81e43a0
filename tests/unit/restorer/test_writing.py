"""Holes, temporary names, and files whose owner or place is not for us."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pra_agent.errors import RestoreError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.restorer.plan import Action, Directory, Item, Plan, RestoreRequest
from pra_agent.restorer.target import Target
from pra_agent.restorer.writing import HOLE, FileWriter, stop_when_hopeless

FILE = Node(b"file", NodeType.FILE, 0o640, mtime=5, atime=6, uid=os.geteuid(), gid=os.getegid(), content=[])


class Place:
    """A writer for items that all lie in one directory."""

    def __init__(self, path: Path, *items: Item, delete: bool = False, sparse: bool = True) -> None:
        self.path = path
        self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        directories = [Directory(0, b"", b"", Action.KEEP)]
        self.plan = Plan(RestoreRequest(path, delete=delete, sparse=sparse), directories, items)
        self.writer = FileWriter(self.plan, Target(self.root, directories))

    def close(self) -> None:
        os.close(self.root)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Place]]:
    made: list[Place] = []
    yield made
    for place in made:
        place.close()


def _place(places: list[Place], path: Path, *items: Item, **options: bool) -> Place:
    places.append(Place(path, *items, **options))
    return places[-1]


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 10,
        bytes(10),
        bytes(HOLE),
        bytes(5 * HOLE),
        bytes(HOLE) + b"x" * HOLE + bytes(HOLE),
        b"x" + bytes(3 * HOLE) + b"y",
        b"x" * HOLE + bytes(17),
        bytes(HOLE - 1) + b"x" + bytes(HOLE * 2),
    ],
)
@pytest.mark.parametrize("sparse", [True, False])
def test_bytes_with_and_without_holes(places: list[Place], tmp_path: Path, data: bytes, sparse: bool):
    _place(places, tmp_path, Item(0, FILE, Action.CREATE), sparse=sparse).writer.make(0, data)
    assert (tmp_path / "file").read_bytes() == data
    status = (tmp_path / "file").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 5)
    if not sparse or len(data) < HOLE:
        assert status.st_blocks * 512 >= len(data) - 4096
    elif not any(data):
        assert status.st_blocks == 0


def test_what_appeared_since_the_plan_is_not_overwritten(places: list[Place], tmp_path: Path):
    (tmp_path / "file").write_bytes(b"mine")
    place = _place(places, tmp_path, Item(0, FILE, Action.CREATE))
    place.writer.make(0, b"theirs")
    assert place.writer.tally().failures == [(0, "File exists")]
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", [NodeType.FILE, NodeType.SYMLINK, NodeType.FIFO, NodeType.SOCKET])
def test_a_directory_in_the_way(places: list[Place], tmp_path: Path, kind: NodeType):
    node = Node(b"file", kind, 0o600, uid=os.geteuid(), gid=os.getegid(), linktarget=b"x")
    (tmp_path / "file/inside").mkdir(parents=True)
    place = _place(places, tmp_path, Item(0, node, Action.REPLACE))
    place.writer.make(0)
    assert [index for index, _ in place.writer.failures] == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file/inside").is_dir()
    place = _place(places, tmp_path, Item(0, node, Action.REPLACE), delete=True)
    place.writer.make(0)
    assert place.writer.failures == []
    assert not (tmp_path / "file/inside").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_rights_of_another_owner_are_not_given_to_this_one(places: list[Place], tmp_path: Path):
    tmp_path.chmod(0o777)
    node = Node(b"file", NodeType.FILE, 0o6755, uid=1, gid=1, content=[], xattrs={b"trusted.x": b"1"})
    link = Node(b"link", NodeType.SYMLINK, 0o777, uid=1, gid=1, linktarget=b"x")
    place = _place(places, tmp_path, Item(0, node, Action.CREATE), Item(0, link, Action.CREATE))
    os.setegid(65534)
    os.seteuid(65534)
    try:
        place.writer.make(0, b"x")
        place.writer.make(1)
    finally:
        os.seteuid(0)
        os.setegid(0)
    tally = place.writer.tally()
    assert tally.failures == []
    assert (tally.owners_refused, tally.attributes_refused) == (2, 1)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o755


def test_when_there_is_no_use_in_going_on():
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        with pytest.raises(RestoreError):
            stop_when_hopeless(OSError(code, "so it is"), Path("/target"))
    stop_when_hopeless(OSError(errno.EIO, "perhaps not all"), Path("/target"))
