"""A node: the metadata of one file, as a tree lists it. JSON is in `model.trees`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class NodeType(StrEnum):
    """Kinds of files, in restic's words."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    DEV = "dev"
    CHARDEV = "chardev"
    FIFO = "fifo"
    SOCKET = "socket"
    IRREGULAR = "irregular"


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of a tree. Names and link targets are raw bytes; times are nanoseconds since the epoch.

    `mode` is the Unix st_mode (file type bits left out: 0o7777 at most); `model.modes` turns it into Go's
    bits and back.
    `content` are raw blob ids, None unless a file. `subtree` is a raw blob id, None unless a directory.
    `extra` holds keys of the JSON that we do not know, so that they survive a re-encoding.
    """

    name: bytes
    type: NodeType
    mode: int = 0
    mtime: int = 0
    atime: int = 0
    ctime: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: dict[bytes, bytes]())
    device: int = 0
    content: Sequence[bytes] | None = None
    subtree: bytes | None = None
    error: str = ""
    extra: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())
