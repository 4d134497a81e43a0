"""Ids: the SHA-256 of what they name. Raw (32 bytes) for blobs, hex where they name files."""

from enum import StrEnum
from typing import NamedTuple

ID_BYTES = 32


class BlobType(StrEnum):
    """What a blob holds: a run of a file's bytes, or a directory's listing."""

    DATA = "data"
    TREE = "tree"


class BlobHandle(NamedTuple):
    """The address of one blob: its type and the raw SHA-256 of its plaintext."""

    type: BlobType
    id: bytes

    def __str__(self) -> str:
        return f"{self.type}/{self.id.hex()}"
