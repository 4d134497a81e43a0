"""The columns of a prune against a plain reading of the same rules with dictionaries and sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.model.ids import BlobType
from pra_agent.repository.index import DecodedIndex, Index, decode_index, encode_index
from pra_agent.repository.pack import PackEntry, pack_size
from pra_agent.repository.prune_packs import Packs, hex_id, raw_ids
from pra_agent.repository.prune_plan import Listing
from pra_agent.repository.prune_usage import Usage, rows_of, shared
from pra_agent.storage.backend import Handle, Kind, ObjectInfo

#: Few first bytes, so that different ids start with the same eight, and ids that end in zeros.
IDS = st.builds(
    lambda head, tail: bytes([head] * 8) + bytes(20) + bytes([tail, 0, 0, 0]), st.integers(0, 3), st.integers(0, 5)
)


@dataclass(frozen=True)
class Made:
    """An index as files, and which of its blobs are used."""

    files: Sequence[Sequence[tuple[str, list[PackEntry]]]]
    used: frozenset[tuple[BlobType, bytes]]

    @property
    def packs(self) -> dict[str, list[PackEntry]]:
        return {pack: entries for file in self.files for pack, entries in file}


@st.composite
def indexes(draw: st.DrawFn) -> Made:
    """Packs of data or trees with blobs that repeat, in index files that may list a pack twice."""
    packs: list[tuple[str, list[PackEntry]]] = []
    for number in range(draw(st.integers(0, 6))):
        blob_type = draw(st.sampled_from(list(BlobType)))
        entries: list[PackEntry] = []
        offset = 0
        for blob in draw(st.lists(IDS, min_size=1, max_size=6, unique=True)):
            length, plain = draw(st.integers(33, 5000)), draw(st.sampled_from([0, 7000]))
            entries.append(PackEntry(blob_type, blob, offset, length, plain))
            offset += length
        packs.append((bytes([number, *[7] * 20, *[0] * 11]).hex(), entries))
    files = [packs[start : start + 2] for start in range(0, len(packs), 2)]
    files += [file for file in files if draw(st.integers(0, 3)) == 0]  # a prune was killed before the old ones went
    everything = sorted({(entry.type, entry.id) for _, entries in packs for entry in entries})
    used = draw(st.sets(st.sampled_from(everything))) if everything else set()
    return Made(files, frozenset(used))


def loaded(made: Made) -> Index:
    index = Index()
    decoded: list[tuple[str, DecodedIndex]] = [
        (f"{number:064x}", decode_index(encode_index(file))) for number, file in enumerate(made.files)
    ]
    index.load(decoded)
    return index


def measured(made: Made) -> tuple[Packs, Usage]:
    usage = Usage(loaded(made))
    for blob_type in BlobType:
        ids = b"".join(blob for kind, blob in sorted(made.used) if kind is blob_type)
        assert not usage.mark(blob_type, ids)
    return Packs(usage), usage


@given(indexes())
def test_columns_say_what_sets_say(made: Made) -> None:
    packs, usage = measured(made)
    facts = packs.table
    assert [facts.name(number) for number in range(len(facts))] == sorted(made.packs)
    everything = np.arange(len(facts))
    whole, needed = packs.pick(everything, needed=False), packs.pick(everything, needed=True)
    kept: list[tuple[BlobType, bytes]] = []
    for number in range(len(facts)):
        entries = made.packs[facts.name(number)]
        assert facts.size[number] == pack_size(entries)
        assert packs.entries(number, whole) == entries
        staying = packs.entries(number, needed)
        assert set(staying) <= set(entries)
        kept += [(entry.type, entry.id) for entry in staying]
        garbage = sum(entry.length for entry in entries if (entry.type, entry.id) not in made.used)
        used = sum(entry.length for entry in staying)
        assert facts.garbage[number] == garbage
        assert facts.used[number] == used
        assert facts.duplicate[number] == sum(entry.length for entry in entries) - garbage - used
        assert facts.blobs[number] == len(entries)
        assert facts.used_blobs[number] == len(staying)
    assert sorted(kept) == sorted(made.used)  # each once, and none but the used
    assert usage.count() == len(made.used)


@given(indexes(), st.lists(IDS, max_size=20))
def test_rows_are_found_many_at_once_as_one_by_one(made: Made, wanted: list[bytes]) -> None:
    usage = Usage(loaded(made))
    for blob_type, table in usage.tables.items():
        assert rows_of(table, b"".join(wanted)).tolist() == [table.row(blob) for blob in wanted]
        rows: dict[bytes, list[int]] = {}
        for row in range(len(table)):
            rows.setdefault(table.id(row), []).append(row)
        members, groups = shared(table)
        assert sorted(members.tolist()) == sorted(
            row for all_rows in rows.values() if len(all_rows) > 1 for row in all_rows
        )
        by_group: dict[int, list[int]] = {}
        for row, group in zip(members.tolist(), groups.tolist(), strict=True):
            by_group.setdefault(group, []).append(row)
        assert all(all_rows == rows[table.id(all_rows[0])] for all_rows in by_group.values())
        assert (np.diff(groups) >= 0).all()
        new, missing = usage.mark_new(blob_type, wanted)
        assert len(set(new)) == len(new)
        assert set(missing) == {blob for blob in wanted if table.row(blob) < 0}
        assert usage.mark_new(blob_type, wanted)[0] == []


@given(st.dictionaries(IDS.map(bytes.hex), st.integers(0, 1 << 40), max_size=9), st.lists(IDS.map(bytes.hex)))
def test_a_listing_tells_sizes(sizes: dict[str, int], asked: list[str]) -> None:
    infos = [ObjectInfo(Handle(Kind.DATA, name), size) for name, size in sizes.items()]
    listing = Listing.of([*infos, *infos[:2]])
    assert listing.sizes_of(raw_ids(asked)).tolist() == [sizes.get(name, -1) for name in asked]
    assert [hex_id(raw) for raw in listing.ids.tolist()] == sorted(sizes)


def test_an_index_with_blobs_added_later_counts_them() -> None:
    index = Index()
    blob = bytes(range(32))
    for number in range(40):
        index.add_pack(bytes([number + 1] * 32).hex(), [PackEntry(BlobType.DATA, blob, number, 40 + number, 0)])
        index.fold()
    usage = Usage(index)
    assert usage.mark(BlobType.DATA, blob + bytes(32)) == [bytes(32)]
    facts = Packs(usage).table
    assert len(facts) == 40
    assert facts.used_blobs.sum() == 1
