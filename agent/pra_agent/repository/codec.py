"""Sealing: encryption with authentication, and compression, as restic's format has them.

Sealed bytes are `IV(16) + AES-256-CTR ciphertext + MAC(16)`; the MAC is Poly1305-AES over the ciphertext with
the one-time key `r + AES-128_k(IV)` (doc/design.rst of restic; Bernstein, "The Poly1305-AES message-authentication
code"). Plaintext exists only above this module. Every method may be called from any thread and after a fork:
contexts are taken from a pool, so that none is used twice at once.
"""

import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from pra_agent.errors import DamagedError

Buffer = bytes | bytearray | memoryview

OVERHEAD = 32
#: The most that an unpacked file (index, snapshot, lock) may expand to, in bytes.
UNPACKED_LIMIT = 1 << 30
_IV = 16
_TAG = 16
_COMPRESSED = b"\x02"
#: Up to this many bytes level 1 is used where 2 or 3 would be: measured on text and source, it makes 2 to 3 % more in
#: half of the time, and small blobs are where a run's time goes.
_SMALL = 64 << 10
_SMALL_LEVEL = 1
_QUICK_LEVELS = (2, 3)
_CLAMP = bytes.fromhex("ffffff0ffcffff0ffcffff0ffcffff0f")


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """The keys of a repository: 32 bytes for AES-256, 16 + 16 for Poly1305-AES. Never printed."""

    encrypt: bytes
    mac_k: bytes
    mac_r: bytes

    def __repr__(self) -> str:
        return "MasterKey(...)"

    @classmethod
    def generate(cls) -> "MasterKey":
        """Make new random keys."""
        r = bytes(a & b for a, b in zip(os.urandom(16), _CLAMP, strict=True))
        return cls(os.urandom(32), os.urandom(16), r)

    @classmethod
    def split(cls, material: bytes) -> "MasterKey":
        """Cut 64 bytes of a key derivation into keys, in restic's order."""
        return cls(material[:32], material[32:48], material[48:64])

    def to_json(self) -> bytes:
        """Encode as restic does."""
        mac = {"k": b64encode(self.mac_k).decode(), "r": b64encode(self.mac_r).decode()}
        return orjson.dumps({"mac": mac, "encrypt": b64encode(self.encrypt).decode()})

    @classmethod
    def from_json(cls, data: bytes) -> "MasterKey":
        """Decode what `to_json` made; `DamagedError` when it is something else."""
        try:
            doc = orjson.loads(data)
            key = cls(
                b64decode(doc["encrypt"], validate=True),
                b64decode(doc["mac"]["k"], validate=True),
                b64decode(doc["mac"]["r"], validate=True),
            )
        except (orjson.JSONDecodeError, Base64Error, KeyError, TypeError, ValueError) as error:
            raise DamagedError("the key slot does not hold a master key") from error
        if (len(key.encrypt), len(key.mac_k), len(key.mac_r)) != (32, 16, 16):
            raise DamagedError("the key slot holds a master key of the wrong length")
        return key

    def derive(self, purpose: bytes) -> bytes:
        """Derive 32 bytes for another purpose, from which the keys cannot be had."""
        return hmac.digest(self.encrypt + self.mac_k + self.mac_r, purpose, "sha256")


class Codec:
    """Seals and compresses under one master key."""

    def __init__(self, key: MasterKey, *, level: int = 3) -> None:
        self._algorithm = algorithms.AES(key.encrypt)
        self._mac_algorithm = algorithms.AES(key.mac_k)
        self._r = key.mac_r
        self._level = level
        self._streams: list[Any] = []
        self._macs: list[CipherContext] = []
        self._small_level = _SMALL_LEVEL if level in _QUICK_LEVELS else level
        self._compressors: list[zstandard.ZstdCompressor] = []
        self._small_compressors: list[zstandard.ZstdCompressor] = []
        self._decompressors: list[zstandard.ZstdDecompressor] = []

    def seal(self, plaintext: Buffer) -> bytes:
        """Encrypt and authenticate; `OVERHEAD` bytes longer than the plaintext."""
        iv = os.urandom(_IV)
        ciphertext = self._crypt(iv, plaintext)
        return b"".join((iv, ciphertext, Poly1305.generate_tag(self._one_time_key(iv), ciphertext)))

    def unseal(self, sealed: Buffer) -> bytes:
        """Verify, then decrypt; `DamagedError` when a single bit differs from what was sealed."""
        view = memoryview(sealed)
        if len(view) < OVERHEAD:
            raise DamagedError(f"{len(view)} bytes are too short for sealed data")
        iv = bytes(view[:_IV])
        ciphertext = view[_IV:-_TAG]
        try:
            Poly1305.verify_tag(self._one_time_key(iv), ciphertext, bytes(view[-_TAG:]))
        except InvalidSignature:
            raise DamagedError("the authentication code does not match") from None
        return self._crypt(iv, ciphertext)

    def compress(self, plaintext: Buffer) -> bytes:
        """One zstd frame with content size and without checksum."""
        small = len(plaintext) <= _SMALL
        pool = self._small_compressors if small else self._compressors
        try:
            compressor = pool.pop()
        except IndexError:
            level = self._small_level if small else self._level
            compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
        compressed = compressor.compress(plaintext)
        pool.append(compressor)
        return compressed

    def decompress(self, frame: Buffer, length: int) -> bytes:
        """Expand a frame that must give exactly `length` bytes; never makes more than that."""
        try:
            declared = zstandard.frame_content_size(frame)
            if declared not in (-1, length):
                raise DamagedError(f"compressed data says {declared} bytes where {length} are expected")
            plaintext = self._expand(frame, length)
        except zstandard.ZstdError as error:
            raise DamagedError("compressed data cannot be expanded") from error
        if len(plaintext) != length:
            raise DamagedError(f"compressed data gives {len(plaintext)} bytes where {length} are expected")
        return plaintext

    def seal_unpacked(self, document: bytes) -> bytes:
        """Seal a JSON document that is a file of its own (index, snapshot, lock)."""
        return self.seal(_COMPRESSED + self.compress(document))

    def unseal_unpacked(self, sealed: Buffer) -> bytes:
        """Open what `seal_unpacked` made, or an uncompressed document."""
        plaintext = self.unseal(sealed)
        if plaintext[:1] in (b"{", b"["):
            return plaintext
        if plaintext[:1] != _COMPRESSED:
            raise DamagedError("sealed data is of an unknown encoding")
        try:
            with zstandard.ZstdDecompressor().stream_reader(plaintext[1:]) as reader:
                document = reader.read(UNPACKED_LIMIT + 1)
        except zstandard.ZstdError as error:
            raise DamagedError("compressed data cannot be expanded") from error
        if len(document) > UNPACKED_LIMIT:
            raise DamagedError("compressed data is larger than any such file may be")
        return document

    def _crypt(self, iv: bytes, data: Buffer) -> bytes:
        try:
            stream = self._streams.pop()
            stream.reset_nonce(iv)
        except IndexError:
            stream = Cipher(self._algorithm, modes.CTR(iv)).encryptor()
        out: bytes = stream.update(data)
        self._streams.append(stream)
        return out

    def _one_time_key(self, iv: bytes) -> bytes:
        try:
            context = self._macs.pop()
        except IndexError:
            # ECB over a single block is AES itself, which is what Poly1305-AES asks for.
            context = Cipher(self._mac_algorithm, modes.ECB()).encryptor()  # noqa: S305 - see above
        encrypted = context.update(iv)
        self._macs.append(context)
        return self._r + encrypted

    def _expand(self, frame: Buffer, length: int) -> bytes:
        try:
            decompressor = self._decompressors.pop()
        except IndexError:
            decompressor = zstandard.ZstdDecompressor()
        if length:
            plaintext = decompressor.decompress(frame, max_output_size=length, allow_extra_data=False)
        else:
            plaintext = decompressor.decompressobj().decompress(frame)
        self._decompressors.append(decompressor)
        return plaintext


def content_id(data: Buffer) -> bytes:
    """Name bytes by their SHA-256, raw."""
    return hashlib.sha256(data).digest()
