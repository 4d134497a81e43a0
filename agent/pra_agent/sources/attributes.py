"""Metadata of files as nodes have it: types, owners' names, link targets, extended attributes (ACLs among them)."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Mapping

from pra_agent.model.nodes import Node, NodeType

_TYPES = {
    stat.S_IFREG: NodeType.FILE,
    stat.S_IFDIR: NodeType.DIR,
    stat.S_IFLNK: NodeType.SYMLINK,
    stat.S_IFBLK: NodeType.DEV,
    stat.S_IFCHR: NodeType.CHARDEV,
    stat.S_IFIFO: NodeType.FIFO,
    stat.S_IFSOCK: NodeType.SOCKET,
}
_NO_XATTRS: Mapping[bytes, bytes] = {}
_NO_EXTRA: Mapping[str, object] = {}
#: The file system has none, will not show this one, or it went away between the list and the reading.
_XATTR_ABSENT = frozenset((errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES, errno.ENOSYS))


class Names:
    """Names of users and groups, each looked up once. "" for ids without a name."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._pairs: dict[tuple[int, int], tuple[str, str]] = {}

    def both(self, uid: int, gid: int) -> tuple[str, str]:
        """Name a user and a group."""
        names = self._pairs.get((uid, gid))
        if names is None:
            names = self._pairs[uid, gid] = (self.user(uid), self.group(gid))
        return names

    def user(self, uid: int) -> str:
        """Name a user."""
        name = self._users.get(uid)
        if name is None:
            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = ""
            self._users[uid] = name
        return name

    def group(self, gid: int) -> str:
        """Name a group."""
        name = self._groups.get(gid)
        if name is None:
            try:
                name = grp.getgrgid(gid).gr_name
            except KeyError:
                name = ""
            self._groups[gid] = name
        return name


def node_type(mode: int) -> NodeType:
    """Tell the type from an st_mode."""
    return _TYPES.get(stat.S_IFMT(mode), NodeType.IRREGULAR)


def make_node(
    name: bytes, st: os.stat_result, names: Names, xattrs: Mapping[bytes, bytes] = _NO_XATTRS, linktarget: bytes = b""
) -> Node:
    """Make the node of a file from its status; atime = mtime, as stock restic writes it."""
    mode, uid, gid, mtime, links = st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_nlink
    kind = _TYPES.get(mode & 0o170000, NodeType.IRREGULAR)
    user, group = names.both(uid, gid)
    size = device = 0
    if kind is NodeType.FILE:
        size = st.st_size
    elif kind is NodeType.DIR:
        links = 0
    elif kind is NodeType.DEV or kind is NodeType.CHARDEV:
        device = st.st_rdev
    return Node(
        name,
        kind,
        mode & 0o7777,
        mtime,
        mtime,
        st.st_ctime_ns,
        uid,
        gid,
        user,
        group,
        st.st_ino,
        st.st_dev if links > 1 else 0,
        size,
        links,
        linktarget,
        xattrs,
        device,
        None,
        None,
        "",
        _NO_EXTRA,
    )


def read_xattrs(target: int | bytes) -> Mapping[bytes, bytes]:
    """Read all extended attributes of an open descriptor, or of a path (a symlink's own). Raises OSError."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _XATTR_ABSENT:
            return _NO_XATTRS
        raise
    if not names:
        return _NO_XATTRS
    found: dict[bytes, bytes] = {}
    for name in sorted(names):
        try:
            found[os.fsencode(name)] = os.getxattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _XATTR_ABSENT:
                raise
    return found
