"""A table of the index: the blobs of one type as sorted arrays, 48 bytes a blob.

The first 8 bytes of the ids are big-endian numbers, sorted, so that a lookup is a bisection in C; the other 24 bytes
and pack number, offset, length and plaintext length lie beside them.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from pra_agent.model.ids import ID_BYTES, BlobType
from pra_agent.repository.pack import PackEntry

PREFIX = 8
REST = ID_BYTES - PREFIX
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Columns:
    """Rows of one blob type in no order. `plain` is 0 for a blob that is not compressed."""

    prefix: U64
    rest: Bytes
    pack: U32
    offset: U32
    length: U32
    plain: U32

    @classmethod
    def build(
        cls, ids: bytes, pack: Sequence[int], offset: Sequence[int], length: Sequence[int], plain: Sequence[int]
    ) -> "Columns":
        """Make columns from joined raw ids and numbers; `OverflowError` when a number has over 32 bits."""
        raw = np.frombuffer(ids, np.uint8).reshape(-1, ID_BYTES)
        return cls(
            prefix=np.ascontiguousarray(raw[:, :PREFIX]).view(">u8").reshape(-1).astype(np.uint64),
            rest=np.ascontiguousarray(raw[:, PREFIX:]),
            pack=np.array(pack, np.uint32),
            offset=np.array(offset, np.uint32),
            length=np.array(length, np.uint32),
            plain=np.array(plain, np.uint32),
        )


class Table:
    """Sorted rows of one blob type; immutable, so row numbers serve for bitmaps. A blob may have several rows."""

    def __init__(self, blob_type: BlobType, parts: list[Columns]) -> None:
        """Sort the parts into one table; empties `parts`, so that little is held twice."""
        self.type = blob_type
        prefix = np.concatenate([part.prefix for part in parts]) if parts else np.empty(0, np.uint64)
        order = np.argsort(prefix, kind="stable").astype(np.uint32)
        self.prefix: U64 = prefix[order]
        del prefix
        self._count = len(order)
        place = np.empty(self._count, np.uint32)
        place[order] = np.arange(self._count, dtype=np.uint32)
        del order
        rests = [part.rest for part in parts]
        packs = [part.pack for part in parts]
        offsets = [part.offset for part in parts]
        lengths = [part.length for part in parts]
        plains = [part.plain for part in parts]
        parts.clear()
        self.rest: Bytes = np.empty((self._count, REST), np.uint8)
        _scatter(rests, place, self.rest)
        self.pack = _scattered(packs, place)
        self.offset = _scattered(offsets, place)
        self.length = _scattered(lengths, place)
        self.plain = _scattered(plains, place)
        # A memoryview gives plain integers, several times as fast as the array does.
        self._keys = self.prefix.data
        self._tails = self.rest.reshape(-1).data
        self._numbers = (self.offset.data, self.length.data, self.plain.data)
        self._packs = self.pack.data

    def __len__(self) -> int:
        return self._count

    def has(self, blob_id: bytes) -> bool:
        """Whether the blob is here; as quick as can be."""
        keys = self._keys
        key = int.from_bytes(blob_id[:PREFIX], "big")
        row = bisect_left(keys, key)
        while row < self._count and keys[row] == key:
            if bytes(self._tails[row * REST : (row + 1) * REST]) == blob_id[PREFIX:]:
                return True
            row += 1
        return False

    def rows(self, blob_id: bytes) -> Iterator[int]:
        """Find all rows of a blob."""
        keys = self._keys
        key = int.from_bytes(blob_id[:PREFIX], "big")
        row = bisect_left(keys, key)
        while row < self._count and keys[row] == key:
            if bytes(self._tails[row * REST : (row + 1) * REST]) == blob_id[PREFIX:]:
                yield row
            row += 1

    def row(self, blob_id: bytes) -> int:
        """Find the first row of a blob, -1 when it is not here."""
        return next(self.rows(blob_id), -1)

    def rows_of(self, ids: bytes) -> list[int]:
        """Find the first row of each of many blobs (joined raw ids); -1 where a bisection alone does not find it."""
        raw = np.frombuffer(ids, np.uint8).reshape(-1, ID_BYTES)
        if not self._count:
            return [-1] * len(raw)
        keys = np.ascontiguousarray(raw[:, :PREFIX]).view(">u8").reshape(-1).astype(np.uint64)
        rows = np.minimum(np.searchsorted(self.prefix, keys), self._count - 1)
        found = (self.prefix[rows] == keys) & (self.rest[rows] == raw[:, PREFIX:]).all(axis=1)
        rows[~found] = -1
        return cast("list[int]", rows.tolist())

    def id(self, row: int) -> bytes:
        """Give the raw id of a row."""
        return self._keys[row].to_bytes(PREFIX, "big") + bytes(self._tails[row * REST : (row + 1) * REST])

    def entry(self, row: int) -> PackEntry:
        """Give the pack entry of a row."""
        offset, length, plain = self._numbers
        return PackEntry(self.type, self.id(row), offset[row], length[row], plain[row])

    def place(self, row: int) -> tuple[int, int, int, int]:
        """Give pack number, offset, length and plaintext length (0: not compressed) of a row."""
        offset, length, plain = self._numbers
        return self._packs[row], offset[row], length[row], plain[row]

    def pack_number(self, row: int) -> int:
        """Give the pack number of a row."""
        return self._packs[row]

    def entries(self, rows: npt.NDArray[np.intp]) -> list[PackEntry]:
        """Give the pack entries of many rows."""
        ids = np.empty((len(rows), ID_BYTES), np.uint8)
        ids[:, :PREFIX] = self.prefix[rows].astype(">u8").view(np.uint8).reshape(-1, PREFIX)
        ids[:, PREFIX:] = self.rest[rows]
        raw = ids.tobytes()
        return [
            PackEntry(self.type, raw[i * ID_BYTES : (i + 1) * ID_BYTES], offset, length, plain)
            for i, (offset, length, plain) in enumerate(
                zip(self.offset[rows].tolist(), self.length[rows].tolist(), self.plain[rows].tolist(), strict=True)
            )
        ]

    def columns(self) -> Columns:
        """Give the rows as columns, to be merged into another table."""
        return Columns(self.prefix, self.rest, self.pack, self.offset, self.length, self.plain)


def _scatter(parts: "list[U32] | list[Bytes]", place: U32, out: "U32 | Bytes") -> None:
    start = 0
    for part in parts:
        out[place[start : start + len(part)]] = part
        start += len(part)
    parts.clear()


def _scattered(parts: list[U32], place: U32) -> U32:
    out = np.empty(len(place), np.uint32)
    _scatter(parts, place, out)
    return out
