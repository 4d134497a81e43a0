"""What the last run of a job knew: which tree a directory had, by digests of what is in it. A short cut, never needed.

An unchanged run need not read, decode and compare the parent's trees then. A directory has two digests: that of its
files (`sources.source.Listing`), and that of all of it, with its directories' nodes. The file is believed only if its
checksum is right, its snapshot is the parent, and no index file that was there has gone since (a prune or a repair may
have removed blobs); without it, or in a `full` run, the way through the trees is taken.

Layout: magic, length of a JSON head (u32), head, four arrays, SHA-256 of all that. The arrays are the first 8 bytes of
the digests of files (u64, ascending) and their rows (the other 8 bytes, tree id), and the same for whole directories.
All numbers are little-endian.
"""

import hashlib
import json
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_MAGIC = b"pra-agent seen 1\n"
_HEAD = struct.Struct("<I")
_DIGEST = 16
_ID = 32
_ROW = 8 + _ID
_RECORD = _DIGEST + _ID


@dataclass(slots=True)
class _Half:
    """A map from digests to trees: sorted keys, and a row for each."""

    keys: memoryview
    rows: memoryview

    def find(self, digest: bytes) -> bytes | None:
        """Find the tree of a digest."""
        key = int.from_bytes(digest[:8], "little")
        place = bisect_left(self.keys, key)
        while place < len(self.keys) and self.keys[place] == key:
            row = bytes(self.rows[place * _ROW : (place + 1) * _ROW])
            if row[:8] == digest[8:]:
                return row[8:]
            place += 1
        return None


_EMPTY = _Half(memoryview(b"").cast("Q"), memoryview(b""))


class Memory:
    """Answers from the last run, and records for the next one."""

    def __init__(self, files: _Half = _EMPTY, whole: _Half = _EMPTY) -> None:
        self._files = files
        self._whole = whole
        self._new_files = bytearray()
        self._new_whole = bytearray()

    @classmethod
    def load(cls, path: Path, snapshot: str, indexes: Iterable[str]) -> Self:
        """Read what was kept, if it can be believed; else know nothing. `snapshot` is the parent's id."""
        with suppress(OSError, ValueError, KeyError, TypeError, struct.error):
            data = memoryview(path.read_bytes())
            if sys.byteorder == "little" and hashlib.sha256(data[:-32]).digest() == bytes(data[-32:]):
                return cls._parse(data, snapshot, frozenset(indexes))
        return cls()

    @classmethod
    def _parse(cls, data: memoryview, snapshot: str, indexes: frozenset[str]) -> Self:
        start = len(_MAGIC) + _HEAD.size
        if bytes(data[: len(_MAGIC)]) != _MAGIC:
            return cls()
        (length,) = _HEAD.unpack_from(data, len(_MAGIC))
        head = json.loads(bytes(data[start : start + length]))
        if head["snapshot"] != snapshot or not indexes.issuperset(head["indexes"]):
            return cls()
        count = int(head["directories"])
        position = start + length
        halves: list[_Half] = []
        for _ in range(2):
            keys = data[position : position + 8 * count].cast("Q")
            position += 8 * count
            halves.append(_Half(keys, data[position : position + _ROW * count]))
            position += _ROW * count
        return cls(*halves)

    def files_tree(self, digest: bytes) -> bytes | None:
        """Find a tree in which exactly these files are, as they are."""
        return self._files.find(digest)

    def whole_tree(self, digest: bytes) -> bytes | None:
        """Find the tree of exactly this directory."""
        return self._whole.find(digest)

    def remember(self, files: bytes, whole: bytes, tree: bytes) -> None:
        """Record a directory of this run."""
        self._new_files += files + tree
        self._new_whole += whole + tree

    def save(self, path: Path, snapshot: str, indexes: Iterable[str]) -> None:
        """Keep what was recorded, for the run after `snapshot`. An OSError is swallowed: it is only a short cut."""
        count = len(self._new_whole) // _RECORD
        head = json.dumps({"snapshot": snapshot, "indexes": sorted(indexes), "directories": count}).encode()
        # The arrays must be aligned to 8 bytes, since they are used where they lie.
        head += b" " * (-(len(_MAGIC) + _HEAD.size + len(head)) % 8)
        data = _MAGIC + _HEAD.pack(len(head)) + head + _sorted(self._new_files) + _sorted(self._new_whole)
        temporary = path.with_name(path.name + ".new")
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(data + hashlib.sha256(data).digest())
            temporary.replace(path)

    @staticmethod
    def forget(path: Path) -> None:
        """Drop what was kept."""
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _sorted(records: bytearray) -> bytes:
    """Sort records (digest, tree) by the number that their first 8 bytes make; keys, then rows."""
    count = len(records) // _RECORD
    keys = [int.from_bytes(records[at : at + 8], "little") for at in range(0, len(records), _RECORD)]
    order = sorted(range(count), key=keys.__getitem__)
    rows = b"".join(records[number * _RECORD + 8 : (number + 1) * _RECORD] for number in order)
    return array("Q", (keys[number] for number in order)).tobytes() + rows
