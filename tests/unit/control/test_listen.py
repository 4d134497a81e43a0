"""The socket has its rights before anybody can connect, and takes a dead one's place, never a living one's."""

import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pra_agent.control import listen
from pra_agent.errors import ConfigError, RefusedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # Socket paths are short; pytest's need not be.
    os.chdir(tmp_path)
    return Path("run/control.sock")


@pytest.fixture(autouse=True)
def _back() -> Iterator[None]:
    here = Path.cwd()
    yield
    os.chdir(here)


def test_mode_of_socket_and_directory(path: Path) -> None:
    listener = listen.bind(path, ())
    with listener.sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        assert stat.S_ISSOCK(path.stat().st_mode)


def test_groups_get_entries_on_both(path: Path) -> None:
    groups = [group.gr_gid for group in grp.getgrall() if group.gr_gid][:2]
    listener = listen.bind(path, groups)
    with listener.sock:
        for where in (path, path.parent):
            acl = os.getxattr(where, "system.posix_acl_access")
            entries = [listen._ACL_ENTRY.unpack_from(acl, at) for at in range(4, len(acl), 8)]
            assert sorted(gid for tag, _, gid in entries if tag == listen._GROUP) == sorted(groups)
            assert (listen._OTHER, 0, listen._NO_ID) in entries
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_stale_socket_is_replaced(path: Path) -> None:
    listen.bind(path, ()).sock.close()
    listener = listen.bind(path, ())
    with listener.sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_living_one_is_not(path: Path) -> None:
    first = listen.bind(path, ())
    with first.sock:
        with pytest.raises(RefusedError, match="another daemon"):
            listen.bind(path, ())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_removal_leaves_a_successors_socket(path: Path) -> None:
    first = listen.bind(path, ())
    first.sock.close()
    second = listen.bind(path, ())
    with second.sock:
        first.remove()
        assert path.exists()
        second.remove()
        assert not path.exists()


def test_a_directory_that_everybody_may_write_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)

    with pytest.raises(ConfigError, match="everybody may write"):
        listen.bind(path, ())


def test_a_path_that_is_too_long_is_told() -> None:
    with pytest.raises(ConfigError, match="longer than"):
        listen.bind(Path("/tmp") / ("x" * 120), ())


def test_a_path_that_cannot_be_is_told(path: Path) -> None:
    path.parent.parent.joinpath("file").touch()

    with pytest.raises(ConfigError, match="cannot listen"):
        listen.bind(Path("file/control.sock"), ())


def test_nothing_is_inherited_without_systemd() -> None:
    assert listen.inherited({}) is None
    assert listen.inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None


def test_the_listening_unix_socket_is_taken(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    listener = listen.bind(path, ())
    other = socket.socket(socket.AF_UNIX)
    with listener.sock, other:
        numbers = sorted((listener.sock.fileno(), other.fileno()))
        monkeypatch.setattr(listen, "_FIRST_INHERITED", numbers[0])
        count = numbers[1] - numbers[0] + 1
        found = listen.inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)})
        assert found is not None
        assert found.sock.fileno() == listener.sock.fileno()
        assert found.path is None
        found.remove()
        assert path.exists()
        found.sock.detach()
