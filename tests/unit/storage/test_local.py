import errno
import hashlib
import os
import secrets
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.clock import FakeClock

from pra_agent.errors import AccessDenied, AlreadyExists, NotFound, StorageError, StorageFull, TransientStorageError
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.local import LocalBackend


def new(size: int = 100, kind: Kind = Kind.DATA) -> tuple[Handle, bytes]:
    data = secrets.token_bytes(size)
    return Handle(kind, hashlib.sha256(data).hexdigest()), data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "repository"


@pytest.fixture
def backend(root: Path) -> LocalBackend:
    made = LocalBackend(root)
    made.create()
    return made


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_reads_what_is_stored(backend, root):
    old = os.umask(0)
    try:
        for kind in Kind:
            handle, data = (Handle(kind), b"config") if kind is Kind.CONFIG else new(kind=kind)
            backend.put(handle, data)
            assert mode_of(root / handle.path) == 0o600
            assert mode_of((root / handle.path).parent) == 0o700
    finally:
        os.umask(old)
    assert mode_of(root) == 0o700


def test_data_folders_are_made_when_they_are_needed(backend, root):
    assert list((root / "data").iterdir()) == []
    handle, data = new()
    backend.put(handle, data)
    assert [path.name for path in (root / "data").iterdir()] == [handle.name[:2]]


def test_a_layout_without_its_folders_is_completed(root):
    root.mkdir(parents=True)
    backend = LocalBackend(root)
    assert list(backend.list(Kind.LOCK)) == []
    for kind in Kind:
        if kind is not Kind.CONFIG:
            handle, data = new(kind=kind)
            backend.put(handle, data)
            assert backend.get(handle) == data


def test_a_directory_that_is_gone_is_no_empty_repository(root):
    backend = LocalBackend(root)
    handle, data = new()
    for ask in (
        lambda: list(backend.list(Kind.SNAPSHOT)),
        lambda: backend.put(handle, data),
        lambda: backend.get(handle),
    ):
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(NotFound):
        backend.put(Handle(Kind.CONFIG), b"x")
    assert not root.exists()


def test_left_over_temporary_files_are_ignored_and_old_ones_removed(root):
    clock = FakeClock(datetime(2024, 5, 1, tzinfo=UTC))
    backend = LocalBackend(root, clock=clock)
    backend.create()
    for folder in ("data/ab", "index"):
        (root / folder).mkdir(exist_ok=True)
        for name, age in (("old", timedelta(hours=25)), ("new", timedelta(hours=23))):
            path = root / folder / f".tmp-{name}"
            path.write_bytes(b"half")
            when = (clock.now() - age).timestamp()
            os.utime(path, (when, when))
    assert list(backend.list(Kind.DATA)) == list(backend.list(Kind.INDEX)) == []
    assert sorted(path.name for path in root.rglob(".tmp-*")) == [".tmp-new", ".tmp-new"]


def test_links_and_folders_with_an_objects_name_are_no_objects(backend, root):
    (root / "index" / ("a" * 64)).mkdir()
    (root / "index" / ("b" * 64)).symlink_to("nowhere")
    assert list(backend.list(Kind.INDEX)) == []


def test_what_is_acknowledged_was_synced_in_order(backend, root, monkeypatch):
    """File, then its name, then the folder of the name; and the folder of a new folder before all."""
    steps: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    link = Path.hardlink_to

    def hardlink_to(self: Path, target: Path) -> None:
        steps.append("link")
        link(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)
    handle, data = new()
    backend.put(handle, data)
    folder, temporary, named, last = steps
    assert (folder, named, last) == ("data", "link", handle.name[:2])
    assert temporary.startswith(".tmp-")
    steps.clear()
    backend.put(handle, data)
    assert steps == [handle.name[:2]]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EROFS, AccessDenied),
        (errno.EACCES, AccessDenied),
        (errno.ESTALE, TransientStorageError),
        (errno.EIO, StorageError),
    ],
)
def test_the_systems_errors_have_their_names_and_leave_nothing(backend, root, monkeypatch, number, error):
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    handle, data = new()
    (root / "data" / handle.name[:2]).mkdir()
    with pytest.raises(error) as caught:
        backend.put(handle, data)
    assert type(caught.value) is error
    assert handle.path in str(caught.value)
    assert list((root / "data").rglob("*")) == [root / "data" / handle.name[:2]]


def test_a_file_system_without_hard_links(backend, root, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    handle, data = new()
    backend.put(handle, data)
    backend.put(handle, data)
    assert backend.get(handle) == data
    assert list(root.rglob(".tmp-*")) == []


def test_a_name_that_appears_meanwhile_is_not_replaced(backend, root, monkeypatch):
    handle, data = new()
    link = Path.hardlink_to

    def overtaken(self: Path, target: Path) -> None:
        self.write_bytes(b"other")
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", overtaken)
    with pytest.raises(AlreadyExists):
        backend.put(handle, data)
    assert (root / handle.path).read_bytes() == b"other"
    assert list(root.rglob(".tmp-*")) == []


def test_what_it_says_of_itself(root):
    backend = LocalBackend(root, connections=3, off_host=True)
    assert (backend.location, backend.connections, backend.off_host) == (str(root), 3, True)
    assert not LocalBackend(root).off_host
    assert backend.store_time() is None
    backend.extend_retention(new()[0], datetime(2030, 1, 1, tzinfo=UTC))
    backend.close()


_WRITER = """
import hashlib, os, sys
from pathlib import Path
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.local import LocalBackend
backend = LocalBackend(Path(sys.argv[1]))
while True:
    data = os.urandom(200_000)
    handle = Handle(Kind.DATA, hashlib.sha256(data).hexdigest())
    backend.put(handle, data)
    print(handle.name, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 20])
def test_a_killed_writer_loses_nothing_and_leaves_nothing_half(backend, root, acknowledged):
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(root)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        names = [writer.stdout.readline().strip() for _ in range(acknowledged)]
        writer.send_signal(signal.SIGKILL)
        names += [line.strip() for line in writer.stdout if line.endswith("\n")]
    stored = {info.handle.name for info in backend.list(Kind.DATA)}
    assert set(names) <= stored
    for name in stored:
        assert hashlib.sha256(backend.get(Handle(Kind.DATA, name))).hexdigest() == name


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system of 1 MiB at tmp_path/disk; call it to mount it anew with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options: str) -> int:
        argv = ["mount", "-t", "tmpfs", "-o", ",".join(["size=1m", *options]), "tmpfs", str(disk)]
        return subprocess.run(argv, capture_output=True, check=False).returncode

    if os.geteuid() != 0 or mount() != 0:
        pytest.skip("mounting a small disk needs root")
    yield lambda option: None if mount("remount", option) == 0 else pytest.skip("remounting is not allowed here")
    subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


def test_a_full_disk_and_a_read_only_one(small_disk, tmp_path):
    root = tmp_path / "disk" / "repository"
    backend = LocalBackend(root)
    backend.create()
    kept = [new(200_000) for _ in range(3)]
    for handle, data in kept:
        backend.put(handle, data)
    handle, data = new(600_000)
    with pytest.raises(StorageFull, match="No space left"):
        backend.put(handle, data)
    assert list(root.rglob(".tmp-*")) == []
    assert {info.handle for info in backend.list(Kind.DATA)} == {known for known, _ in kept}
    small_disk("ro")
    with pytest.raises(AccessDenied):
        backend.put(*new(10))
    with pytest.raises(AccessDenied):
        backend.delete(kept[0][0])
    assert backend.get(*kept[0][:1]) == kept[0][1]
