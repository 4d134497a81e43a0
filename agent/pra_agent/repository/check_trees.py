"""Walking trees: each tree once, many in one request, without holding more than what is still to be visited."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event

import orjson

from pra_agent.errors import DamagedError, Interrupted
from pra_agent.model.ids import ID_BYTES, BlobHandle, BlobType
from pra_agent.repository.repository import Repository

_BATCH = 1024

#: Takes tree ids, gives those that were not seen before.
Enter = Callable[[Sequence[bytes]], Sequence[bytes]]
#: Takes a tree's id and content, gives the subtrees to go on with.
Visit = Callable[[bytes, bytes], Sequence[bytes]]
#: Takes a tree that cannot be read, and why.
Broken = Callable[[bytes, DamagedError], None]


def walk(
    repository: Repository,
    roots: Iterable[bytes],
    *,
    enter: Enter,
    visit: Visit,
    broken: Broken | None = None,
    stop: Event | None = None,
) -> None:
    """Visit all trees below the roots once. A tree that cannot be read is given to `broken`, or raises `DamagedError`.

    `Interrupted` when `stop` is set.
    """
    waiting = list(enter(list(roots)))
    while waiting:
        if stop is not None and stop.is_set():
            raise Interrupted("stopped while the trees were walked")
        batch, waiting = waiting[-_BATCH:], waiting[:-_BATCH]
        for tree, data in read_trees(repository, batch, broken):
            try:
                waiting += enter(visit(tree, data))
            except DamagedError as error:
                if broken is None:
                    raise
                broken(tree, error)


def read_trees(
    repository: Repository, trees: Sequence[bytes], broken: Broken | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield trees with their content; those that cannot be read are given to `broken`, or raise `DamagedError`."""
    rest = dict.fromkeys(trees)
    try:
        for handle, data in repository.read(BlobHandle(BlobType.TREE, tree) for tree in trees):
            del rest[handle.id]
            yield handle.id, data
    except DamagedError:
        if broken is None:
            raise
    for tree in rest:
        try:
            data = repository.read_blob(BlobHandle(BlobType.TREE, tree))
        except DamagedError as error:
            if broken is None:
                raise
            broken(tree, error)
        else:
            yield tree, data


def references(tree: bytes, data: bytes) -> tuple[bytes, list[bytes]]:
    """What a tree refers to: the ids of its files' blobs, joined, and its subtrees. `DamagedError` when it is none."""
    try:
        nodes = orjson.loads(data)["nodes"] or ()
        contents = [blob for node in nodes if node.get("content") for blob in node["content"]]
        subtrees = [bytes.fromhex(node["subtree"]) for node in nodes if node.get("subtree")]
        content = bytes.fromhex("".join(contents))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"tree {tree.hex()} is not one: {error}") from error
    whole = all(len(blob) == 2 * ID_BYTES for blob in contents) and all(len(each) == ID_BYTES for each in subtrees)
    if not whole or len(content) != ID_BYTES * len(contents):
        raise DamagedError(f"tree {tree.hex()} has an id of the wrong length")
    return content, subtrees
