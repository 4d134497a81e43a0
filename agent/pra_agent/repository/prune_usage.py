"""Which blobs snapshots need: one byte per row of the index's tables, so that ten million blobs cost ten megabytes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pra_agent.model.ids import ID_BYTES, BlobType
from pra_agent.repository.index import Index
from pra_agent.repository.table import PREFIX, Table

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


class Usage:
    """Marks over a freshly loaded index. A blob that lies in several places is marked at the first of its rows."""

    def __init__(self, index: Index) -> None:
        index.fold()
        self.index = index
        self.tables: dict[BlobType, Table] = {}
        for blob_type in BlobType:
            tables = index.tables(blob_type)
            columns = [table.columns() for table in tables]
            self.tables[blob_type] = tables[0] if len(tables) == 1 else Table(blob_type, columns)
        self.used: dict[BlobType, Flags] = {t: np.zeros(len(table), np.bool_) for t, table in self.tables.items()}

    def mark(self, blob_type: BlobType, ids: bytes) -> list[bytes]:
        """Mark blobs, given as joined raw ids; returns the ids that the index does not know."""
        rows = rows_of(self.tables[blob_type], ids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            rows = rows[rows >= 0]
        self.used[blob_type][rows] = True
        return [ids[i * ID_BYTES : (i + 1) * ID_BYTES] for i in missing.tolist()]

    def mark_new(self, blob_type: BlobType, ids: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Mark blobs one by one; returns those that were not marked before, and those that are unknown."""
        table, used = self.tables[blob_type], self.used[blob_type]
        new: list[bytes] = []
        missing: list[bytes] = []
        for blob_id in ids:
            row = table.row(blob_id)
            if row < 0:
                missing.append(blob_id)
            elif not used[row]:
                used[row] = True
                new.append(blob_id)
        return new, missing

    def count(self) -> int:
        """How many blobs are marked."""
        return sum(int(np.count_nonzero(used)) for used in self.used.values())


def rows_of(table: Table, ids: bytes) -> Rows:
    """The first row of each blob (joined raw ids), -1 where the table does not have it."""
    if not len(table) or not ids:
        return np.full(len(ids) // ID_BYTES, -1, np.int64)
    raw = np.frombuffer(ids, np.uint8).reshape(-1, ID_BYTES)
    keys = np.ascontiguousarray(raw[:, :PREFIX]).view(">u8").reshape(-1).astype(np.uint64)
    rows = np.searchsorted(table.prefix, keys)
    rows[rows == len(table)] = 0
    alike = table.prefix[rows] == keys
    same = alike & (table.rest[rows] == raw[:, PREFIX:]).all(axis=1)
    found = np.where(same, rows, -1)
    for number in np.flatnonzero(alike & ~same).tolist():  # two ids with the same first eight bytes
        found[number] = table.row(ids[number * ID_BYTES : (number + 1) * ID_BYTES])
    return found


def shared(table: Table) -> tuple[Rows, Rows]:
    """The rows whose blob lies in other rows as well, and a number for each blob among them.

    Rows of a blob stand together, the first of the table first, which is the one that `Usage` marks.
    """
    alike = np.flatnonzero(table.prefix[1:] == table.prefix[:-1]) + 1
    step = 1 << 20  # rows at a time, so that the comparison needs no copy of the whole table
    parts = [
        (table.rest[part] == table.rest[part - 1]).all(axis=1)
        for part in (alike[start : start + step] for start in range(0, len(alike), step))
    ]
    same = np.concatenate(parts) if parts else np.zeros(0, np.bool_)
    again = alike[same]
    runs = [_run(table, row) for row in dict.fromkeys(table.prefix[alike[~same]].tolist())]
    for start, stop in runs:
        again = again[(again < start) | (again >= stop)]
    members = np.union1d(again, again - 1)
    groups = np.cumsum(~np.isin(members, again), dtype=np.int64)
    for start, stop in runs:  # different blobs with the same first eight bytes: their rows may be mixed
        by_id: dict[bytes, list[int]] = {}
        for row in range(start, stop):
            by_id.setdefault(table.id(row), []).append(row)
        for rows in by_id.values():
            if len(rows) > 1:
                number = groups[-1] + 1 if len(groups) else 0
                members = np.concatenate((members, np.array(rows, np.int64)))
                groups = np.concatenate((groups, np.full(len(rows), number, np.int64)))
    return members, groups


def _run(table: Table, prefix: int) -> tuple[int, int]:
    """The rows that start with the same eight bytes."""
    key = np.array([prefix], np.uint64)
    return (
        int(np.searchsorted(table.prefix, key, "left")[0]),
        int(np.searchsorted(table.prefix, key, "right")[0]),
    )
