"""Unix mode bits and Go's os.FileMode bits, which is what a tree holds."""

import stat

from pra_agent.model.nodes import NodeType

_SETUID, _SETGID, _STICKY = 1 << 23, 1 << 22, 1 << 20
_GO_TYPE = {
    NodeType.FILE: 0,
    NodeType.DIR: 1 << 31,
    NodeType.SYMLINK: 1 << 27,
    NodeType.DEV: 1 << 26,
    NodeType.CHARDEV: 1 << 26 | 1 << 21,
    NodeType.FIFO: 1 << 25,
    NodeType.SOCKET: 1 << 24,
    NodeType.IRREGULAR: 1 << 19,
}
_UNIX_TYPE = {
    NodeType.FILE: stat.S_IFREG,
    NodeType.DIR: stat.S_IFDIR,
    NodeType.SYMLINK: stat.S_IFLNK,
    NodeType.DEV: stat.S_IFBLK,
    NodeType.CHARDEV: stat.S_IFCHR,
    NodeType.FIFO: stat.S_IFIFO,
    NodeType.SOCKET: stat.S_IFSOCK,
    NodeType.IRREGULAR: 0,
}
_FROM_UNIX = {unix: kind for kind, unix in _UNIX_TYPE.items() if unix}


def go_mode(kind: NodeType, mode: int) -> int:
    """Go's bits for a file of this type with these Unix permission bits (0o7777 at most)."""
    bits = _GO_TYPE[kind] | mode & 0o777
    if mode & 0o7000:
        bits |= (mode & 0o4000 and _SETUID) | (mode & 0o2000 and _SETGID) | (mode & 0o1000 and _STICKY)
    return bits


def unix_mode(go: int) -> int:
    """Give the Unix permission bits (0o7777) in Go's bits."""
    mode = go & 0o777
    if go & (_SETUID | _SETGID | _STICKY):
        mode |= (go & _SETUID and 0o4000) | (go & _SETGID and 0o2000) | (go & _STICKY and 0o1000)
    return mode


def node_type(st_mode: int) -> NodeType:
    """Tell the node type of a Unix st_mode."""
    return _FROM_UNIX.get(stat.S_IFMT(st_mode), NodeType.IRREGULAR)


def st_mode(kind: NodeType, mode: int) -> int:
    """Give the full Unix st_mode, as mknod takes it and stat gives it."""
    return _UNIX_TYPE[kind] | mode
