"""The listening socket: made here with its rights before anybody can connect, or inherited from systemd."""

import errno
import os
import socket
import stat
import struct
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pra_agent.errors import ConfigError, RefusedError

#: sun_path holds 108 bytes with the final NUL.
_LONGEST = 107
_FIRST_INHERITED = 3
_ACL_VERSION = 2
_ACL_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and its file (None when systemd owns that)."""

    sock: socket.socket
    path: Path | None = None
    inode: int = 0

    def remove(self) -> None:
        """Remove the file, unless a successor has put its own there."""
        if self.path is None:
            return
        with suppress(OSError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


def bind(path: Path, groups: Collection[int]) -> Listener:
    """Listen at that path: mode 0660 in a directory of mode 0750, open to these groups by an access list.

    A socket that nobody listens at any more is replaced. Raises `RefusedError` when somebody does, `ConfigError` when
    the path cannot be used.
    """
    if len(os.fsencode(path)) > _LONGEST - len(".new"):
        raise ConfigError(f"control.socket: the path is longer than {_LONGEST - len('.new')} bytes: {path}")
    _refuse_second(path)
    try:
        _prepare(path.parent, groups)
        return _listen(path, groups)
    except OSError as error:
        raise ConfigError(f"control.socket: cannot listen at {path}: {error.strerror}") from error


def inherited(environment: Mapping[str, str]) -> Listener | None:
    """Take the listening Unix socket that systemd handed over, None when it did not.

    Its path, mode and groups are the socket unit's affair.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return None
    for fd in range(_FIRST_INHERITED, _FIRST_INHERITED + int(environment.get("LISTEN_FDS", "0"))):
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            continue
        candidate = socket.socket(fileno=fd)
        if candidate.family == socket.AF_UNIX and candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            candidate.set_inheritable(False)
            candidate.setblocking(False)
            return Listener(candidate)
        candidate.detach()
    return None


def _refuse_second(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(os.fsencode(path))
        except FileNotFoundError:
            return
        except (ConnectionRefusedError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT) and not isinstance(error, TimeoutError):
                raise ConfigError(f"control.socket: cannot use {path}: {error.strerror}") from error
    raise RefusedError(
        f"another daemon listens at {path}", advice="Stop it first, or give this one another control.socket."
    )


def _prepare(directory: Path, groups: Collection[int]) -> None:
    if not directory.is_dir():
        directory.mkdir(parents=True, mode=0o750)
        directory.chmod(0o750)
    if directory.stat().st_mode & stat.S_IWOTH:
        raise ConfigError(f"control.socket: everybody may write in {directory}; a socket there could be replaced")
    if groups and directory.stat().st_uid == os.geteuid():
        _allow(directory, groups, 0o5)


def _listen(path: Path, groups: Collection[int]) -> Listener:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Nobody can connect before listen(), so the rights are there before the first peer is.
        sock.bind(os.fsencode(new))
        new.chmod(0o660)
        if groups:
            _allow(new, groups, 0o6)
        sock.listen(128)
        inode = new.stat().st_ino
        new.rename(path)
    except BaseException:
        sock.close()
        new.unlink(missing_ok=True)
        raise
    return Listener(sock, path, inode)


def _allow(path: Path, groups: Collection[int], rights: int) -> None:
    """Add entries for the groups to the path's access list; the owner may do that without being in them."""
    mode = path.stat().st_mode
    entries = [(_USER_OBJ, mode >> 6 & 7, _NO_ID), (_GROUP_OBJ, mode >> 3 & 7, _NO_ID)]
    entries += [(_GROUP, rights, gid) for gid in sorted(groups)]
    entries += [(_MASK, mode >> 3 & 7 | rights, _NO_ID), (_OTHER, mode & 7, _NO_ID)]
    data = struct.pack("<I", _ACL_VERSION) + b"".join(_ACL_ENTRY.pack(*entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", data)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP or len(groups) > 1:
            raise
        os.chown(path, -1, next(iter(groups)))
