"""The index: where every blob lies. A few sorted tables per blob type, and a dictionary of the newest blobs.

Lookups work from any thread, and after a fork without copying. Index files: doc/design.rst of restic, "Indexing".
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from pra_agent.errors import DamagedError
from pra_agent.kernel import trim_memory
from pra_agent.model.ids import ID_BYTES, BlobHandle, BlobType
from pra_agent.repository.codec import OVERHEAD
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.table import Columns, Table

_NO_FILE = 0xFFFFFFFF


class Location(NamedTuple):
    """Where a blob lies: the pack's hex id and the entry in it."""

    pack: str
    entry: PackEntry


@dataclass(slots=True)
class DecodedIndex:
    """An index file: raw pack ids joined, and rows whose pack numbers count from 0."""

    packs: bytes
    columns: dict[BlobType, Columns]


class Index:
    """What is known to be stored. Blobs under way are `reserve`d, so that nothing is stored twice."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._tables: dict[BlobType, tuple[Table, ...]] = dict.fromkeys(BlobType, ())
        self._added: dict[BlobType, dict[bytes, tuple[int, int, int, int]]] = {t: {} for t in BlobType}
        self._reserved: dict[BlobType, set[bytes]] = {t: set() for t in BlobType}
        self._packs = bytearray()
        self._pack_files = array("I")
        self._lock = Lock()

    # ---------------------------------------------------------------- lookups
    def has(self, handle: BlobHandle) -> bool:
        """Whether the blob is stored, or under way."""
        blob_type, blob_id = handle
        # In the order in which a blob moves on, so that a look without the lock never falls between two places.
        if blob_id in self._reserved[blob_type] or blob_id in self._added[blob_type]:
            return True
        for table in self._tables[blob_type]:  # noqa: SIM110 - a generator would cost as much as the lookup
            if table.has(blob_id):
                return True
        return False

    def find(self, handle: BlobHandle) -> Location | None:
        """Where a stored blob lies; any place, when there are several."""
        return next(self._find_all(handle), None)

    def find_many(self, blob_type: BlobType, ids: Sequence[bytes]) -> list[tuple[int, int, int, int] | None]:
        """Where many blobs lie: pack number, offset, length and plaintext length (0: not compressed) of each."""
        tables = self._tables[blob_type]
        # Blobs that were added lately, later tables and ids that start alike are left to the lookup of one.
        rows = tables[0].rows_of(b"".join(ids)) if tables else [-1] * len(ids)
        return [
            tables[0].place(row) if row >= 0 else self._place(BlobHandle(blob_type, blob_id))
            for row, blob_id in zip(rows, ids, strict=True)
        ]

    def _place(self, handle: BlobHandle) -> tuple[int, int, int, int] | None:
        added = self._added[handle.type].get(handle.id)
        if added:
            return added
        for table in self._tables[handle.type]:
            row = table.row(handle.id)
            if row >= 0:
                return table.place(row)
        return None

    def find_all(self, handle: BlobHandle) -> list[Location]:
        """All places of a stored blob."""
        return list(dict.fromkeys(self._find_all(handle)))

    def _find_all(self, handle: BlobHandle) -> Iterator[Location]:
        blob_type, blob_id = handle
        added = self._added[blob_type].get(blob_id)
        if added:
            yield Location(self.pack_id(added[0]), PackEntry(blob_type, blob_id, *added[1:]))
        for table in self._tables[blob_type]:
            for row in table.rows(blob_id):
                yield Location(self.pack_id(table.pack_number(row)), table.entry(row))

    def tables(self, blob_type: BlobType) -> Sequence[Table]:
        """The tables of a type, for work on whole columns; call `fold` first."""
        return self._tables[blob_type]

    def pack_id(self, number: int) -> str:
        """Give the hex id of a pack number (the `pack` column of tables)."""
        return self._packs[number * ID_BYTES : (number + 1) * ID_BYTES].hex()

    def __len__(self) -> int:
        return sum(sum(map(len, self._tables[t])) + len(self._added[t]) for t in BlobType)

    # ---------------------------------------------------------------- packs
    def pack_ids(self) -> set[str]:
        """All packs that are known, in hex."""
        return {self.pack_id(number) for number in range(len(self._pack_files))}

    def packs(self) -> Iterator[tuple[str, list[PackEntry]]]:
        """Yield each pack once, by ascending id, with its entries by ascending offset."""
        self.fold()
        numbers_of_all = np.arange(len(self._pack_files) + 1, dtype=np.uint32)
        sorted_tables = [
            (table, order, np.searchsorted(table.pack[order], numbers_of_all).tolist())
            for blob_type in BlobType
            for table in self._tables[blob_type]
            for order in (_rows_by_pack(table),)
        ]
        for pack, numbers in self._numbers():
            entries: list[PackEntry] = []
            for table, order, starts in sorted_tables:
                for number in numbers:
                    if starts[number] < starts[number + 1]:
                        entries += table.entries(order[starts[number] : starts[number + 1]])
            if len(numbers) > 1 or len(sorted_tables) > 1:
                entries = sorted(set(entries), key=lambda entry: entry.offset)
            yield pack, entries

    def memberships(self) -> Iterator[tuple[str, str]]:
        """Yield (pack, index file) for each pack that an index file lists; a pack may be in several."""
        for number, file in enumerate(self._pack_files):
            if file != _NO_FILE:
                yield self.pack_id(number), self.files[file]

    def _numbers(self) -> Iterator[tuple[str, list[int]]]:
        """Yield each pack's id and its numbers (several, when several index files list it)."""
        ids = np.frombuffer(bytes(self._packs), "S32")
        previous, numbers = "", list[int]()
        for number in np.argsort(ids, kind="stable").tolist():
            pack = self.pack_id(number)
            if pack != previous and numbers:
                yield previous, numbers
                numbers = []
            previous = pack
            numbers.append(number)
        if numbers:
            yield previous, numbers

    # ---------------------------------------------------------------- changes
    def reserve(self, handle: BlobHandle) -> bool:
        """Claim a blob for storing; False when it is stored or under way already."""
        with self._lock:
            if self.has(handle):
                return False
            self._reserved[handle.type].add(handle.id)
            return True

    def release(self, handle: BlobHandle) -> None:
        """Give up a claim."""
        with self._lock:
            self._reserved[handle.type].discard(handle.id)

    def release_all(self) -> None:
        """Give up all claims; for the end of a writer."""
        with self._lock:
            for reserved in self._reserved.values():
                reserved.clear()

    def add_pack(self, pack: str, entries: Iterable[PackEntry], *, file: str = "") -> None:
        """Know a pack that is stored now, and the index file that lists it, if one does yet."""
        with self._lock:
            number = len(self._pack_files)
            self._packs += bytes.fromhex(pack)
            if file and file not in self.files[-1:]:
                self.files.append(file)
            self._pack_files.append(len(self.files) - 1 if file else _NO_FILE)
            for blob_type, blob_id, offset, length, plain in entries:
                self._added[blob_type][blob_id] = (number, offset, length, plain)
                self._reserved[blob_type].discard(blob_id)

    def fold(self) -> None:
        """Move what was added into tables; called at each flush, so that the dictionaries stay small."""
        with self._lock:
            for blob_type, added in self._added.items():
                if not added:
                    continue
                numbers = list(zip(*added.values(), strict=True))
                columns = Columns.build(b"".join(added), numbers[0], numbers[1], numbers[2], numbers[3])
                tables = [*self._tables[blob_type], Table(blob_type, [columns])]
                while len(tables) > 1 and len(tables[-1]) * 2 >= len(tables[-2]):
                    last, before = tables.pop(), tables.pop()
                    tables.append(Table(blob_type, [before.columns(), last.columns()]))
                # See `has`: the tables know the blobs before the dictionary forgets them.
                self._tables[blob_type] = tuple(tables)
                self._added[blob_type] = {}

    def load(self, decoded: Iterable[tuple[str, DecodedIndex]]) -> None:
        """Take over index files (their hex ids and content); only for a new index."""
        parts: dict[BlobType, list[Columns]] = {t: [] for t in BlobType}
        for name, part in decoded:
            base = len(self._pack_files)
            count = len(part.packs) // ID_BYTES
            self._packs += part.packs
            self._pack_files.extend([len(self.files)] * count)
            self.files.append(name)
            for blob_type, columns in part.columns.items():
                columns.pack += np.uint32(base)
                parts[blob_type].append(columns)
        # What decoding has left in the heap would be held beside the tables.
        trim_memory()
        for blob_type, columns_list in parts.items():
            if columns_list:
                self._tables[blob_type] = (Table(blob_type, columns_list),)
        trim_memory()


def encode_index(packs: Iterable[tuple[str, Sequence[PackEntry]]]) -> bytes:
    """Encode an index file, not sealed yet."""
    return orjson.dumps(
        {"packs": [{"id": pack, "blobs": [_blob_json(entry) for entry in entries]} for pack, entries in packs]}
    )


def _blob_json(entry: PackEntry) -> dict[str, object]:
    blob: dict[str, object] = {
        "id": entry.id.hex(),
        "type": entry.type.value,
        "offset": entry.offset,
        "length": entry.length,
    }
    if entry.uncompressed_length:
        blob["uncompressed_length"] = entry.uncompressed_length
    return blob


def decode_index(document: bytes) -> DecodedIndex:
    """Decode an index file; `DamagedError` when it is not one."""
    try:
        packs: list[Any] = orjson.loads(document)["packs"] or []
        pack_ids = _raw_ids([pack["id"] for pack in packs])
        rows: dict[str, list[tuple[int, Any]]] = {t.value: [] for t in BlobType}
        for number, pack in enumerate(packs):
            for blob in pack["blobs"] or ():
                rows[blob["type"]].append((number, blob))
        return DecodedIndex(pack_ids, {t: _columns(rows.pop(t.value)) for t in BlobType})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DamagedError("it is not an index") from error


def _columns(rows: list[tuple[int, Any]]) -> Columns:
    columns = Columns.build(
        _raw_ids([blob["id"] for _, blob in rows]),
        [number for number, _ in rows],
        [blob["offset"] for _, blob in rows],
        [blob["length"] for _, blob in rows],
        [blob.get("uncompressed_length", 0) for _, blob in rows],
    )
    if len(columns.length) and int(columns.length.min()) < OVERHEAD:
        raise ValueError
    return columns


def _raw_ids(ids: list[str]) -> bytes:
    joined = "".join(ids)
    raw = bytes.fromhex(joined)
    if len(joined) != 2 * ID_BYTES * len(ids) or len(raw) * 2 != len(joined):
        raise ValueError
    return raw


def _rows_by_pack(table: Table) -> npt.NDArray[np.intp]:
    """Order a table's rows by pack number and offset."""
    return np.argsort(table.pack.astype(np.uint64) << np.uint64(32) | table.offset)
