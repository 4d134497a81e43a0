"""Scale by a synthetic index: what ten million blobs (about 10 TB) cost in memory and time.

    PYTHONPATH=agent:. python -m tests.bench.scale [millions]

Measures in a child process of its own: bytes a blob after loading and at the peak while loading, blobs loaded a
second, lookups a second (known and unknown ids), and the memory of a prune plan over all of it.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.repository.index import DecodedIndex, Index, decode_index, encode_index
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.prune_packs import Packs
from pra_agent.repository.prune_plan import Listing, PrunePlan, PruneSettings, make_plan
from pra_agent.repository.prune_usage import Usage
from pra_agent.repository.table import Columns

#: Of blobs in a pack and in an index file, as a repository of large files has them.
BLOBS_A_PACK = 16
BLOBS_AN_INDEX = 50_000
BLOB = 1 << 20
TREES = 20  # one blob in so many is a tree


@dataclass(frozen=True)
class Scale:
    """The figures; memory in bytes, rates a second."""

    blobs: int
    packs: int
    bytes_per_blob: float
    peak_bytes_per_blob: float
    load_rate: float
    decode_rate: float
    lookup_rate: float
    miss_rate: float
    plan_seconds: float
    plan_peak_bytes: int
    plan_repacked: int
    plan_removed: int


def scale(blobs: int = 10_000_000) -> Scale:
    """Measure in a fresh process, so that its memory is that of the index and the plan alone."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(blobs, send))
    child.start()
    send.close()
    try:
        return Scale(**receive.recv())
    finally:
        child.join()
        receive.close()


def _measure(blobs: int, send: Connection) -> None:
    base = _resident()
    index = Index()
    start = time.perf_counter()
    index.load(_index_files(blobs))
    loaded = time.perf_counter() - start
    after, peak = _resident(), _peak()
    known, unknown = _lookups(index)
    rate = _decode_rate()
    _forget_peak()
    start = time.perf_counter()
    plan = _plan(index)
    send.send(
        asdict(
            Scale(
                blobs=len(index),
                packs=len(plan.packs.table),
                bytes_per_blob=(after - base) / blobs,
                peak_bytes_per_blob=(peak - base) / blobs,
                load_rate=blobs / loaded,
                decode_rate=rate,
                lookup_rate=known,
                miss_rate=unknown,
                plan_seconds=time.perf_counter() - start,
                plan_peak_bytes=_peak(),
                plan_repacked=plan.figures.packs_repacked,
                plan_removed=plan.figures.packs_removed,
            )
        )
    )
    send.close()


def _index_files(blobs: int) -> Iterator[tuple[str, DecodedIndex]]:
    """Decoded index files with random ids, one after the other."""
    rng = np.random.default_rng(1)
    for number, start in enumerate(range(0, blobs, BLOBS_AN_INDEX)):
        count = min(BLOBS_AN_INDEX, blobs - start)
        packs = -(-count // BLOBS_A_PACK)
        raw = rng.bytes(count * 32)
        trees = count // TREES
        place = np.arange(count)
        columns = {}
        for blob_type, part in ((BlobType.TREE, slice(0, trees)), (BlobType.DATA, slice(trees, count))):
            rows = place[part]
            size = len(rows)
            columns[blob_type] = Columns.build(
                raw[part.start * 32 : part.stop * 32],
                (rows // BLOBS_A_PACK).tolist(),
                (rows % BLOBS_A_PACK * BLOB).tolist(),
                [BLOB] * size,
                [2 * BLOB] * size,
            )
        yield f"{number:064x}", DecodedIndex(rng.bytes(packs * 32), columns)


def _lookups(index: Index) -> tuple[float, float]:
    """Lookups a second of known and of unknown ids."""
    table = index.tables(BlobType.DATA)[0]
    rng = np.random.default_rng(2)
    count = 200_000
    known = [BlobHandle(BlobType.DATA, table.id(int(row))) for row in rng.integers(0, len(table), count)]
    unknown = [BlobHandle(BlobType.DATA, rng.bytes(32)) for _ in range(count)]
    rates = []
    for handles, there in ((known, True), (unknown, False)):
        start = time.perf_counter()
        found = sum(map(index.has, handles))
        rates.append(count / (time.perf_counter() - start))
        if found != (count if there else 0):
            raise AssertionError("the index does not know what was put into it")
    return rates[0], rates[1]


def _decode_rate() -> float:
    """Blobs a second from the JSON of one index file to columns."""
    rng = np.random.default_rng(3)
    document = encode_index(
        (
            rng.bytes(32).hex(),
            [PackEntry(BlobType.DATA, rng.bytes(32), n * BLOB, BLOB, 2 * BLOB) for n in range(BLOBS_A_PACK)],
        )
        for _ in range(BLOBS_AN_INDEX // BLOBS_A_PACK)
    )
    start = time.perf_counter()
    decode_index(document)
    return BLOBS_AN_INDEX / (time.perf_counter() - start)


def _plan(index: Index) -> PrunePlan:
    """A prune plan in which four packs in five are needed as a whole, and one in ten in part."""
    usage = Usage(index)
    for blob_type, used in usage.used.items():
        pack = usage.tables[blob_type].pack
        used[:] = pack % 10 < 8
        used[(pack % 10 == 8) & (usage.tables[blob_type].offset < 8 * BLOB)] = True
    packs = Packs(usage)
    listing = Listing(packs.table.ids, packs.table.size.copy())
    return make_plan(packs, listing, PruneSettings(), pack_size=BLOBS_A_PACK * BLOB)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def _peak() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024


def _forget_peak() -> None:
    """Let the peak be what is held now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def _main() -> None:
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(json.dumps(asdict(scale(int(millions * 1_000_000))), indent=2))


if __name__ == "__main__":
    _main()
