"""Reading a snapshot's trees, many at a time, since each request may be a round trip."""

from collections.abc import Iterator, Sequence
from itertools import islice

from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node
from pra_agent.model.snapshots import SnapshotReader
from pra_agent.model.trees import decode_tree
from pra_agent.restorer.fetching import fetch

#: How many trees are in memory at once.
_BATCH = 512


def read_trees(reader: SnapshotReader, ids: Sequence[bytes]) -> Iterator[tuple[int, list[Node] | DamagedError]]:
    """Yield (position in `ids`, nodes or why there are none) in the order of `ids`, each id read once a batch."""
    positions = iter(enumerate(ids))
    while batch := list(islice(positions, _BATCH)):
        trees: dict[bytes, list[Node] | DamagedError] = {}
        for handle, data in fetch(reader, {BlobHandle(BlobType.TREE, id_) for _, id_ in batch}):
            trees[handle.id] = data if isinstance(data, DamagedError) else _decode(data)
        for position, id_ in batch:
            yield position, trees[id_]


def _decode(data: bytes) -> list[Node] | DamagedError:
    try:
        return decode_tree(data)
    except DamagedError as error:
        return error
