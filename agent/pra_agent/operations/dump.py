"""Dump: one file of a snapshot as a stream of bytes, a directory as a tar stream."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pra_agent.errors import DamagedError, UsageError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.model.trees import is_component
from pra_agent.operations.browse import Listed, find_node, list_entries

#: Blobs come in the provider's order, and are put into the file's within a window of this many bytes.
_WINDOW_BYTES = 64 * 1024 * 1024
_SECOND = 1_000_000_000
_TAR_TYPES = {
    NodeType.FILE: tarfile.REGTYPE,
    NodeType.DIR: tarfile.DIRTYPE,
    NodeType.SYMLINK: tarfile.SYMTYPE,
    NodeType.FIFO: tarfile.FIFOTYPE,
    NodeType.DEV: tarfile.BLKTYPE,
    NodeType.CHARDEV: tarfile.CHRTYPE,
}


def read_content(reader: SnapshotReader, content: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the blobs of a file in its order, with bounded memory. Raises DamagedError for one that is lost."""
    handles = [BlobHandle(BlobType.DATA, blob) for blob in content]
    sizes = reader.sizes(set(handles))
    window: list[BlobHandle] = []
    size = 0
    for handle in handles:
        if handle not in sizes:
            raise DamagedError(f"blob {handle} is missing from the repository")
        window.append(handle)
        size += sizes[handle]
        if size >= _WINDOW_BYTES:
            yield from _in_order(reader, window)
            window, size = [], 0
    yield from _in_order(reader, window)


def _in_order(reader: SnapshotReader, handles: Sequence[BlobHandle]) -> Iterator[bytes]:
    blobs = dict(reader.read(set(handles))) if handles else {}
    for handle in handles:
        yield blobs[handle]


def dump_file(reader: SnapshotReader, snapshot: Snapshot, path: bytes) -> Iterator[bytes]:
    """Yield a file's bytes. Raises UsageError when the path is not a file of the snapshot."""
    node = find_node(reader, snapshot, path).node
    if node.type is not NodeType.FILE:
        raise UsageError(f"{printable(path)} is not a file", advice="Use --archive tar for a directory.")
    return read_content(reader, node.content or ())


def dump_tar(reader: SnapshotReader, snapshot: Snapshot, path: bytes, out: BinaryIO) -> int:
    """Write a directory, or a file, and all below it as a tar stream (pax); the number of entries.

    Hard links, extended attributes, owners and nanosecond times are kept; sockets cannot be.
    """
    start = find_node(reader, snapshot, path)
    entries = list_entries(reader, snapshot, path, recursive=True)
    count = 0
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        if start.node.subtree is not None and start.path:
            tar.addfile(_member(start))
            count += 1
        for entry in entries:
            if entry.node.type in _TAR_TYPES and is_component(entry.node.name):
                _add(tar, reader, entry, links)
                count += 1
    return count


def _add(tar: tarfile.TarFile, reader: SnapshotReader, entry: Listed, links: dict[tuple[int, int], str]) -> None:
    member, node = _member(entry), entry.node
    if node.links > 1 and node.inode and node.type is NodeType.FILE:
        first = links.setdefault((node.device_id, node.inode), member.name)
        if first != member.name:
            member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
    if member.type == tarfile.REGTYPE:
        tar.addfile(member, _Stream(read_content(reader, node.content or ())))
    else:
        tar.addfile(member)


def _member(entry: Listed) -> tarfile.TarInfo:
    node = entry.node
    member = tarfile.TarInfo(_text(entry.path[1:]))
    member.type = _TAR_TYPES[node.type]
    member.mode, member.uid, member.gid = node.mode, node.uid, node.gid
    member.uname, member.gname = node.user, node.group
    member.size = node.size if node.type is NodeType.FILE else 0
    member.linkname = _text(node.linktarget)
    member.devmajor, member.devminor = _device(node)
    seconds, fraction = divmod(node.mtime, _SECOND)
    member.mtime = seconds
    headers: dict[str, str] = {}
    if fraction:
        headers["mtime"] = f"{seconds}.{fraction:09}" if seconds >= 0 else f"{node.mtime / _SECOND:.9f}"
    for name, value in node.xattrs.items():
        headers[f"SCHILY.xattr.{_text(name)}"] = _text(value)
    member.pax_headers = headers
    return member


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _device(node: Node) -> tuple[int, int]:
    return os.major(node.device), os.minor(node.device)


class _Stream(io.RawIOBase):
    """An iterator of blobs as the file that tarfile wants."""

    def __init__(self, blobs: Iterator[bytes]) -> None:
        self._blobs = blobs
        self._blob: memoryview = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts: list[bytes] = []
        while size:
            if not self._blob:
                self._blob = memoryview(next(self._blobs, b""))
                if not self._blob:
                    break
            part, self._blob = self._blob[:size], self._blob[size:]
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)
