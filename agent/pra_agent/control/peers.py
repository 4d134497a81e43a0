"""Who is at the other end of the socket, and what he may do. The kernel says it; nothing in a request counts."""

import errno
import grp
import os
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from socket import SO_PEERCRED, SOL_SOCKET
from typing import Protocol

import structlog

from pra_agent.control.settings import ControlSettings

_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("iII")
_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What a group may be given."""

    RUN = "run"
    READ = "read"


class HasOptions(Protocol):
    """A socket, as far as needed here (asyncio hands out a wrapper)."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """The value of an option, as bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    gids: frozenset[int]


def peer_of(sock: HasOptions) -> Peer:
    """Ask the kernel who connected; raises `OSError` when the socket is none of a connection."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid, frozenset((gid, *_groups(sock))))


def _groups(sock: HasOptions) -> Iterable[int]:
    try:
        data = sock.getsockopt(SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        data = sock.getsockopt(SOL_SOCKET, _SO_PEERGROUPS, 65536 * 4)
    return struct.unpack(f"{len(data) // 4}I", data)


class Access:
    """The decision. Root may do all, and so may the daemon's own user, who holds the keys anyway."""

    def __init__(self, settings: ControlSettings) -> None:
        self._groups = {Role.RUN: _gids(settings.run), Role.READ: _gids(settings.read)}

    @property
    def groups(self) -> frozenset[int]:
        """All groups that may do something."""
        return self._groups[Role.RUN] | self._groups[Role.READ]

    def owns(self, peer: Peer) -> bool:
        """Whether it is root, or the daemon's own user: for what no group can be given."""
        return peer.uid in (0, os.geteuid())

    def roles(self, peer: Peer) -> frozenset[Role]:
        """Tell what this peer may do."""
        if self.owns(peer):
            return frozenset(Role)
        return frozenset(role for role, gids in self._groups.items() if gids & peer.gids)


def _gids(names: Collection[str]) -> frozenset[int]:
    found: set[int] = set()
    for name in names:
        try:
            found.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            _log.warning("control_group_unknown", group=name)
    return frozenset(found)
