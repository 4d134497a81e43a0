"""Reaching into a target by descriptors."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pra_agent.errors import RestoreError
from pra_agent.restorer.plan import Action, Directory
from pra_agent.restorer.target import Target, is_temporary, open_root, remove, temporary_name


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _directory(parent: int, name: bytes) -> Directory:
    return Directory(parent, name, b"", Action.CREATE)


def test_many_deep_directories_with_few_open(root: int, tmp_path: Path):
    before = _open_descriptors()
    directories = [_directory(0, b"")]
    path = tmp_path
    for level in range(200):
        path /= f"d{level}"
        path.mkdir()
        directories.append(_directory(level, b"d%d" % level))
    for wide in range(300):
        (tmp_path / f"w{wide}").mkdir()
        directories.append(_directory(0, b"w%d" % wide))
    target = Target(root, directories)
    for index in (200, 500, 1, 200, 350, 100, 0):
        inode = os.fstat(target.fd(index)).st_ino
        expected = path if index == 200 else None
        if expected is not None:
            assert inode == expected.stat().st_ino
    for index in range(501):
        target.fd(index)
    assert _open_descriptors() - before <= 128
    target.close()
    assert _open_descriptors() == before


def test_a_link_on_the_way_is_not_followed(root: int, tmp_path: Path):
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    target = Target(root, [_directory(0, b""), _directory(0, b"link"), _directory(1, b"inner")])
    with pytest.raises(NotADirectoryError):
        target.fd(2)
    target.close()


def test_removing_a_tree_leaves_what_links_lead_to(root: int, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"x")
    deep = tmp_path / "gone"
    for level in range(50):
        deep /= f"d{level}"
    deep.mkdir(parents=True)
    for directory in (deep, deep.parent, tmp_path / "gone"):
        (directory / "file").write_bytes(b"x")
        (directory / "link").symlink_to(outside)
    before = _open_descriptors()
    remove(root, b"gone")
    remove(root, b"never there")
    assert not (tmp_path / "gone").exists()
    assert (outside / "victim").exists()
    assert _open_descriptors() == before


def test_removing_a_link_or_a_file(root: int, tmp_path: Path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    remove(root, b"link")
    assert (tmp_path / "directory").exists()
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_mounted_file_system_is_never_emptied(root: int, tmp_path: Path):
    mounted = tmp_path / "gone/mounted"
    mounted.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", mounted], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        (mounted / "file").write_bytes(b"x")
        with pytest.raises(OSError, match="another file system"):
            remove(root, b"gone")
        assert (mounted / "file").exists()
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_the_target_itself(tmp_path: Path):
    assert open_root(os.fsencode(tmp_path / "new"), create=False) is None
    descriptor = open_root(os.fsencode(tmp_path / "new/deep"), create=True)
    assert descriptor is not None
    os.close(descriptor)
    assert (tmp_path / "new/deep").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for create in (True, False):
        with pytest.raises(RestoreError, match="cannot restore to"):
            open_root(os.fsencode(tmp_path / "file"), create=create)


def test_temporary_names_are_known_again():
    assert is_temporary(temporary_name())
    assert temporary_name() != temporary_name()
    assert not is_temporary(b".pra-agent-restore-notes")
