"""Basic auth for the exporter: a file of NAME:HASH lines, the hash by scrypt.

A line's hash is `scrypt$N$r$p$SALT$KEY` with salt and key in base64; `hash_password` makes one. Lines that are empty or
begin with # are skipped.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pra_agent.errors import ConfigError

_N, _R, _P = 2**14, 8, 1
_KEY_BYTES: Final = 32
_MEMORY: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Hash:
    n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    def matches(self, password: str) -> bool:
        return hmac.compare_digest(self.key, _scrypt(password, self.salt, self.n, self.r, self.p))


class Users:
    """Who may look. Costs a tenth of a second for a password's first use, and next to nothing after it."""

    def __init__(self, hashes: Mapping[str, _Hash]) -> None:
        self._hashes = dict(hashes)
        self._nobody = _parse(hash_password(""))
        self._seen_key = os.urandom(32)
        self._seen: set[bytes] = set()

    @classmethod
    def load(cls, path: Path) -> "Users":
        """Read the file; raises `ConfigError` with its line."""
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        hashes: dict[str, _Hash] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, text = line.strip().partition(":")
            try:
                hashes[name] = _parse(text)
            except ValueError as error:
                raise ConfigError(f"{path}:{number}: not NAME:scrypt$N$r$p$SALT$KEY") from error
            if not colon or not name:
                raise ConfigError(f"{path}:{number}: a name is missing")
        return cls(hashes)

    def admits(self, authorization: str) -> bool:
        """Judge the value of an Authorization header. May take a tenth of a second: not for an event loop."""
        token = hmac.digest(self._seen_key, authorization.encode("utf-8", "surrogateescape"), "sha256")
        if token in self._seen:
            return True
        name, password = _credentials(authorization)
        known = self._hashes.get(name)
        # An unknown name costs as much as a known one, so that the time tells nothing.
        good = (known or self._nobody).matches(password) and known is not None
        if good:
            self._seen.add(token)
        return good


def hash_password(password: str) -> str:
    """Make the hash for a line of the file."""
    salt = os.urandom(16)
    key = _scrypt(password, salt, _N, _R, _P)
    return f"scrypt${_N}${_R}${_P}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    secret = password.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY, dklen=_KEY_BYTES)


def _parse(text: str) -> _Hash:
    kind, n, r, p, salt, key = text.split("$")
    if kind != "scrypt" or not (2 <= int(n) <= 2**15 and 1 <= int(r) <= 8 and 1 <= int(p) <= 4):
        raise ValueError(kind)
    return _Hash(int(n), int(r), int(p), base64.b64decode(salt, validate=True), base64.b64decode(key, validate=True))


def _credentials(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return "", ""
    name, _, password = decoded.partition(":")
    return name, password
