"""The repository as the archiver, its workers and its trees see it."""

from collections.abc import Sequence
from typing import cast

from pra_agent.archiver.reading import Buffer, Chunker
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node
from pra_agent.repository.repository import BlobWriter, Repository, SealedBlob


class BlobStore:
    """Implements `worker.Tools` (also after a fork), `trees.TreeStore` and `pool.Sink`."""

    def __init__(self, repository: Repository, writer: BlobWriter) -> None:
        self._repository = repository
        self._writer = writer
        self._sealer = repository.sealer()
        self.chunker: Chunker = repository.chunker()
        # In a first backup nobody need be asked; what is stored twice is found by the writer.
        self._first = len(repository.index) == 0

    def known(self, blob: bytes) -> bool:
        """Whether a data blob is stored, or under way; in a first backup it may say no where it is."""
        return not self._first and self._repository.has(BlobHandle(BlobType.DATA, blob))

    def seal(self, data: Buffer, blob: bytes) -> SealedBlob:
        """Compress and encrypt a data blob."""
        return self._sealer.seal(BlobType.DATA, data, blob)

    def put(self, blob: bytes, length: int, stored: Buffer, compressed: bool) -> bool:
        """Hand a sealed data blob to the writer, which has copied it when this returns; whether it was new."""
        sealed = SealedBlob(BlobType.DATA, blob, length, cast("bytes", stored), compressed)
        return self._writer.add_sealed(sealed)

    def read_tree(self, tree: bytes) -> Sequence[Node]:
        """Read a tree of the parent snapshot."""
        return self._repository.read_tree(tree)

    def has_tree(self, tree: bytes) -> bool:
        """Whether a tree is stored."""
        return self._repository.has(BlobHandle(BlobType.TREE, tree))

    def add_tree(self, data: bytes) -> bytes:
        """Store a tree."""
        return self._writer.add(BlobType.TREE, data)
