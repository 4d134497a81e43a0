"""Packs: sealed blobs one after the other, then a sealed header that lists them, then its length.

Data and trees never share a pack. Offsets are implied by the order. Layout: doc/design.rst of restic, "Pack Format".
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobType
from pra_agent.repository.codec import OVERHEAD, Buffer, Codec
from pra_agent.storage.backend import Backend, Handle, Kind

MAX_HEADER = 16 << 20
_LENGTH = struct.Struct("<I")
_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_CODES = {(BlobType.DATA, False): 0, (BlobType.TREE, False): 1, (BlobType.DATA, True): 2, (BlobType.TREE, True): 3}
_TYPES = {code: key for key, code in _CODES.items()}
#: Header bytes that are read along with the length, so that most packs take one request.
_EAGER = 64 << 10


class PackEntry(NamedTuple):
    """One blob in a pack: where its sealed bytes lie. `uncompressed_length` is 0 when it is not compressed."""

    type: BlobType
    id: bytes
    offset: int
    length: int
    uncompressed_length: int = 0

    @property
    def size(self) -> int:
        """The length of the plaintext in bytes."""
        return self.uncompressed_length or self.length - OVERHEAD


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A blob as it is stored: `length` is that of the plaintext, `stored` the sealed bytes. May cross processes."""

    type: BlobType
    id: bytes
    length: int
    stored: bytes
    compressed: bool


@dataclass(frozen=True, slots=True)
class FinishedPack:
    """A pack that is ready to be stored under its id."""

    id: str
    data: memoryview
    entries: Sequence[PackEntry]

    @property
    def handle(self) -> Handle:
        """Where it is stored."""
        return Handle(Kind.DATA, self.id)


class OpenPack:
    """A pack that is being filled; not safe for threads."""

    def __init__(self, blob_type: BlobType) -> None:
        self.type = blob_type
        self.entries: list[PackEntry] = []
        self._data = bytearray()
        self._header = 0

    def __len__(self) -> int:
        """Tell the bytes of sealed blobs in it."""
        return len(self._data)

    def add(self, blob: SealedBlob) -> None:
        """Append a blob of the pack's type."""
        plain = blob.length if blob.compressed else 0
        self.entries.append(PackEntry(blob.type, blob.id, len(self._data), len(blob.stored), plain))
        self._data += blob.stored
        self._header += _COMPRESSED.size

    def absorb(self, other: "OpenPack") -> None:
        """Append all blobs of another pack of this type."""
        base = len(self._data)
        self.entries += [entry._replace(offset=entry.offset + base) for entry in other.entries]
        self._data += other._data  # noqa: SLF001 - of the same class
        self._header += other._header  # noqa: SLF001 - of the same class

    def full(self, target: int) -> bool:
        """Whether it has the target size in bytes, or no room for more header."""
        return len(self._data) >= target or self._header + OVERHEAD + _COMPRESSED.size > MAX_HEADER

    def finish(self, codec: Codec) -> FinishedPack:
        """Append the header and name the pack; it must not be added to afterwards."""
        header = codec.seal(encode_header(self.entries))
        self._data += header
        self._data += _LENGTH.pack(len(header))
        data = memoryview(self._data)
        return FinishedPack(hashlib.sha256(data).hexdigest(), data, self.entries)


def encode_header(entries: Sequence[PackEntry]) -> bytes:
    """Encode a header, not sealed yet."""
    return b"".join(
        _COMPRESSED.pack(_CODES[entry.type, True], entry.length, entry.uncompressed_length, entry.id)
        if entry.uncompressed_length
        else _PLAIN.pack(_CODES[entry.type, False], entry.length, entry.id)
        for entry in entries
    )


def parse_header(header: bytes) -> list[PackEntry]:
    """Decode an unsealed header; `DamagedError` when it is not one."""
    entries: list[PackEntry] = []
    position = offset = 0
    while position < len(header):
        kind = _TYPES.get(header[position])
        if kind is None:
            raise DamagedError(f"the pack's header has an entry of the unknown type {header[position]}")
        blob_type, compressed = kind
        try:
            if compressed:
                _, length, plain, blob_id = _COMPRESSED.unpack_from(header, position)
                position += _COMPRESSED.size
            else:
                _, length, blob_id = _PLAIN.unpack_from(header, position)
                plain = 0
                position += _PLAIN.size
        except struct.error:
            raise DamagedError("the pack's header ends within an entry") from None
        entries.append(PackEntry(blob_type, blob_id, offset, length, plain))
        offset += length
    return entries


def read_header(backend: Backend, codec: Codec, pack: str, size: int) -> list[PackEntry]:
    """Read the entries of a stored pack of `size` bytes, in their order; `DamagedError` names the pack."""
    try:
        return _read_header(backend, codec, Handle(Kind.DATA, pack), size)
    except DamagedError as error:
        raise DamagedError(f"pack {pack}: {error.message}") from error


def _read_header(backend: Backend, codec: Codec, handle: Handle, size: int) -> list[PackEntry]:
    tail = backend.get(handle, max(0, size - _EAGER), min(size, _EAGER))
    if len(tail) < _LENGTH.size + OVERHEAD:
        raise DamagedError(f"{size} bytes are too few")
    (length,) = _LENGTH.unpack(tail[-_LENGTH.size :])
    if not OVERHEAD < length <= min(MAX_HEADER, size - _LENGTH.size):
        raise DamagedError(f"a header of {length} bytes cannot be")
    start = size - _LENGTH.size - length
    if length <= len(tail) - _LENGTH.size:
        sealed = tail[len(tail) - _LENGTH.size - length : -_LENGTH.size]
    else:
        sealed = backend.get(handle, start, length)
    entries = parse_header(codec.unseal(sealed))
    if sum(entry.length for entry in entries) != start:
        raise DamagedError("the header's lengths do not add up to the pack's size")
    return entries


def pack_size(entries: Sequence[PackEntry]) -> int:
    """Tell the size in bytes that a pack with exactly these entries has."""
    header = sum(_COMPRESSED.size if entry.uncompressed_length else _PLAIN.size for entry in entries)
    return sum(entry.length for entry in entries) + header + OVERHEAD + _LENGTH.size


def open_blob(codec: Codec, pack: str, entry: PackEntry, sealed: Buffer) -> bytes:
    """Unseal one blob and prove that it is the one that was asked for; `DamagedError` names blob and pack.

    The authentication code covers neither id nor place, so the hash of the plaintext is the only proof.
    """
    try:
        plaintext = codec.unseal(sealed)
        if entry.uncompressed_length:
            plaintext = codec.decompress(plaintext, entry.uncompressed_length)
    except DamagedError as error:
        raise DamagedError(f"blob {entry.type}/{entry.id.hex()} in pack {pack}: {error.message}") from error
    if hashlib.sha256(plaintext).digest() != entry.id:
        raise DamagedError(f"blob {entry.type}/{entry.id.hex()} in pack {pack}: it holds other content")
    return plaintext
