"""Entries of snapshots, for people and for JSON."""

import stat
from collections.abc import Mapping

from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.times import format_ns

_TYPE_BITS = {
    NodeType.FILE: stat.S_IFREG,
    NodeType.DIR: stat.S_IFDIR,
    NodeType.SYMLINK: stat.S_IFLNK,
    NodeType.DEV: stat.S_IFBLK,
    NodeType.CHARDEV: stat.S_IFCHR,
    NodeType.FIFO: stat.S_IFIFO,
    NodeType.SOCKET: stat.S_IFSOCK,
}


def entry_json(path: bytes, node: Node) -> Mapping[str, object]:
    """An entry's JSON. `path` is printable; `path_hex` has its raw bytes where the two differ."""
    text = printable(path)
    entry: dict[str, object] = {
        "path": text,
        "kind": node.type.value,
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "user": node.user,
        "group": node.group,
        "size": node.size,
        "mtime": format_ns(node.mtime),
    }
    if text.encode() != path:
        entry["path_hex"] = path.hex()
    if node.type is NodeType.SYMLINK:
        entry["target"] = printable(node.linktarget)
    return entry


def long_line(path: bytes, node: Node) -> str:
    """An entry as `ls -l` shows it; times in UTC."""
    mode = stat.filemode(_TYPE_BITS.get(node.type, 0) | node.mode)
    owner = f"{node.user or node.uid} {node.group or node.gid}"
    when = format_ns(node.mtime)[:16].replace("T", " ")
    target = f" -> {printable(node.linktarget)}" if node.type is NodeType.SYMLINK else ""
    return f"{mode} {owner:<17} {node.size:>14,} {when} {printable(path)}{target}"
