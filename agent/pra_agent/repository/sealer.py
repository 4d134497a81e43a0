"""Sealing blobs: the part of storing that workers do. Needs no index, no threads and no backend."""

from pra_agent.model.ids import BlobType
from pra_agent.repository.codec import OVERHEAD, Buffer, Codec, content_id
from pra_agent.repository.pack import PackEntry, SealedBlob

__all__ = ["SealedBlob", "Sealer"]

#: Below this many bytes zstd's own header eats what it saves.
_TINY = 32


class Sealer:
    """Compresses, encrypts and authenticates blobs; from any thread, and after a fork."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def seal(self, blob_type: BlobType, plaintext: Buffer, blob_id: bytes | None = None) -> SealedBlob:
        """Seal a blob; the id is computed when it is not given.

        Data that does not shrink is stored as it is; trees are always compressed, since stock prune repacks
        uncompressed ones.
        """
        blob_id = blob_id or content_id(plaintext)
        length = len(plaintext)
        if blob_type is BlobType.TREE and length:
            return SealedBlob(blob_type, blob_id, length, self._codec.seal(self._codec.compress(plaintext)), True)
        if length > _TINY:
            compressed = self._codec.compress(plaintext)
            if len(compressed) < length:
                return SealedBlob(blob_type, blob_id, length, self._codec.seal(compressed), True)
        return SealedBlob(blob_type, blob_id, length, self._codec.seal(plaintext), False)


def still_sealed(entry: PackEntry, stored: bytes) -> SealedBlob:
    """Take a stored blob over into another pack as it is, without unsealing it."""
    return SealedBlob(
        entry.type,
        entry.id,
        entry.uncompressed_length or entry.length - OVERHEAD,
        stored,
        bool(entry.uncompressed_length),
    )
