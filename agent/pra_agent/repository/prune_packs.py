"""What each pack holds of use: bytes needed, bytes of garbage, bytes that lie elsewhere as well. Whole columns at once.

A blob that lies in several packs is kept in one of them: there where the least garbage lies beside it, then in the
largest. After a prune that was killed this finds what had been repacked already, and drops the rest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from pra_agent.errors import RefusedError
from pra_agent.model.ids import ID_BYTES, BlobType
from pra_agent.repository.codec import OVERHEAD
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.prune_usage import Flags, Rows, Usage, shared
from pra_agent.repository.table import Table

Int = npt.NDArray[np.int64]
Ids = npt.NDArray[np.bytes_]
_STEP = 1 << 21
_PLAIN_ENTRY, _COMPRESSED_ENTRY, _TRAILER = 37, 41, OVERHEAD + 4
_BITS = {BlobType.DATA: 1, BlobType.TREE: 2}
MIXED = _BITS[BlobType.DATA] | _BITS[BlobType.TREE]


@dataclass(slots=True)
class PackTable:
    """One element per pack, by ascending raw id; sizes in stored bytes.

    `size` is what the index says the pack's file must have. `types` has bit 1 for data and bit 2 for trees.
    """

    ids: Ids
    size: Int
    used: Int
    garbage: Int
    duplicate: Int
    used_blobs: Int
    blobs: Int
    types: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, number: int) -> str:
        """The hex id of a pack."""
        return hex_id(self.ids[number])

    def numbers(self, ids: Ids) -> Int:
        """The numbers of packs, -1 for those that are not here."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1)


@dataclass(frozen=True, slots=True)
class Picked:
    """Rows of tables, sorted by pack and offset, and the pack of each."""

    rows: Mapping[BlobType, Rows]
    packs: Mapping[BlobType, npt.NDArray[np.int32]]


class Packs:
    """The packs of an index under a usage; rows that are to stay are flagged in `keep`."""

    def __init__(self, usage: Usage) -> None:
        index = usage.index
        known = max((int(table.pack.max()) + 1 for table in usage.tables.values() if len(table)), default=0)
        numbered = raw_ids(index.pack_id(number) for number in range(known))
        ids, first, inverse = np.unique(numbered, return_index=True, return_inverse=True)
        self._of_number: npt.NDArray[np.int32] = inverse.astype(np.int32)
        self._first = first
        self._tables = usage.tables
        self._live: dict[BlobType, Flags | None] = dict.fromkeys(BlobType)
        if len(ids) < len(numbered):
            self._skip_repeated_listings(len(numbered))
        count = len(ids)
        self.table = PackTable(
            ids=ids,
            size=np.full(count, _TRAILER, np.int64),
            used=np.zeros(count, np.int64),
            garbage=np.zeros(count, np.int64),
            duplicate=np.zeros(count, np.int64),
            used_blobs=np.zeros(count, np.int64),
            blobs=np.zeros(count, np.int64),
            types=np.zeros(count, np.uint8),
        )
        self.keep: dict[BlobType, Flags] = {}
        self._chosen: dict[BlobType, Rows] = {}
        for blob_type, table in self._tables.items():
            self._measure(blob_type, table, usage.used[blob_type])

    def pick(self, packs: Int, *, needed: bool) -> Picked:
        """The rows of these packs; only those that are to stay when `needed` is set."""
        wanted = np.zeros(len(self.table), np.bool_)
        wanted[packs] = True
        picked: dict[BlobType, Rows] = {}
        owners: dict[BlobType, npt.NDArray[np.int32]] = {}
        for blob_type, table in self._tables.items():
            inside = wanted[self._of_number[table.pack]]
            choice = self.keep[blob_type] if needed else self._live[blob_type]
            rows = np.flatnonzero(inside if choice is None else inside & choice)
            owner = self._of_number[table.pack[rows]]
            order = np.lexsort((table.offset[rows], owner))
            picked[blob_type], owners[blob_type] = rows[order], owner[order]
        return Picked(picked, owners)

    def copies(self) -> Iterator[tuple[int, list[PackEntry]]]:
        """Yield the needed blobs that lie in several packs, where they are to stay: pack by pack."""
        places = [
            (int(self._of_number[table.pack[row]]), blob_type, row)
            for blob_type, table in self._tables.items()
            for row in self._chosen.get(blob_type, np.zeros(0, np.int64)).tolist()
        ]
        for pack, members in groupby(sorted(places, key=itemgetter(0)), key=itemgetter(0)):
            rows: dict[BlobType, list[int]] = {}
            for _, blob_type, row in members:
                rows.setdefault(blob_type, []).append(row)
            yield pack, [entry for t, found in rows.items() for entry in self._tables[t].entries(np.array(found))]

    def entries(self, pack: int, picked: Picked) -> list[PackEntry]:
        """The entries that were picked of one pack, by offset."""
        found: list[PackEntry] = []
        for blob_type, rows in picked.rows.items():
            start, stop = np.searchsorted(picked.packs[blob_type], [pack, pack + 1])
            found += self._tables[blob_type].entries(rows[start:stop])
        return sorted(found, key=lambda entry: entry.offset)

    def _measure(self, blob_type: BlobType, table: Table, used: Flags) -> None:
        live = self._live[blob_type]
        pack = self._of_number[table.pack]
        lengths = table.length
        header = np.where(table.plain != 0, np.uint8(_COMPRESSED_ENTRY), np.uint8(_PLAIN_ENTRY))
        everywhere = used.copy()  # used, at whichever of a blob's rows
        members, groups = shared(table)
        if len(members):
            first = np.concatenate(([True], groups[1:] != groups[:-1]))
            everywhere[members] = used[members[first]][np.cumsum(first) - 1]
        if live is not None:
            everywhere &= live
        garbage = ~everywhere if live is None else live & ~everywhere
        facts = self.table
        facts.size += _sums(pack, lengths + header, live, len(facts))
        facts.garbage += _sums(pack, lengths, garbage, len(facts))
        keep = everywhere.copy()
        if len(members):
            self._chosen[blob_type] = self._choose(keep, members, groups, pack)
        duplicate = everywhere & ~keep
        facts.duplicate += _sums(pack, lengths, duplicate, len(facts))
        facts.used += _sums(pack, lengths, keep, len(facts))
        facts.used_blobs += np.bincount(pack[keep], minlength=len(facts))
        facts.blobs += np.bincount(pack if live is None else pack[live], minlength=len(facts))
        facts.types[np.unique(pack)] |= _BITS[blob_type]
        self.keep[blob_type] = keep

    def _choose(self, keep: Flags, members: Rows, groups: Int, pack: npt.NDArray[np.int32]) -> Rows:
        """Of each blob in several places leave one flagged; returns those."""
        candidates = keep[members]
        rows, groups = members[candidates], groups[candidates]
        packs = pack[rows]
        facts = self.table
        share = facts.garbage[packs] / facts.size[packs]
        order = np.lexsort((packs, -facts.size[packs], share, groups))
        ordered = groups[order]
        chosen = rows[order[np.concatenate(([True], ordered[1:] != ordered[:-1]))]] if len(order) else rows
        keep[rows] = False
        keep[chosen] = True
        return chosen

    def _skip_repeated_listings(self, numbers: int) -> None:
        """A pack that several index files list counts once; refuse when they disagree about what is in it."""
        prints = np.zeros(numbers, np.uint64)
        for table in self._tables.values():
            with np.errstate(over="ignore"):
                place = (table.offset.astype(np.uint64) << np.uint64(32)) | table.length
                np.add.at(prints, table.pack, (table.prefix ^ place) * np.uint64(0x9E3779B97F4A7C15))
        lead = self._first[self._of_number]
        differing = np.flatnonzero(prints != prints[lead])
        if len(differing):
            raise RefusedError(
                f"{len(differing)} packs are listed differently in two index files",
                advice="Run pra-agent repair, which makes a new index from the packs.",
            )
        leads = np.zeros(numbers, np.bool_)
        leads[self._first] = True
        self._live = {blob_type: leads[table.pack] for blob_type, table in self._tables.items()}


def _sums(pack: npt.NDArray[np.int32], values: npt.NDArray[np.generic], where: Flags | None, count: int) -> Int:
    """Sum values per pack, where flagged; in parts, so that no large array of floats is made."""
    total = np.zeros(count, np.int64)
    for start in range(0, len(pack), _STEP):
        part = slice(start, start + _STEP)
        weights = values[part].astype(np.float64)  # exact up to 2^53
        if where is not None:
            weights *= where[part]
        total += np.bincount(pack[part], weights=weights, minlength=count).astype(np.int64)
    return total


def raw_ids(names: Iterable[str]) -> Ids:
    """Hex ids as an array of raw ones, 32 bytes each."""
    return np.frombuffer(b"".join(map(bytes.fromhex, names)), f"S{ID_BYTES}")


def hex_id(raw: bytes) -> str:
    """An element of such an array as a hex id; numpy drops zeros at the end."""
    return raw.ljust(ID_BYTES, b"\0").hex()
