"""The repository's config: its id and version. Sealed, never compressed (doc/design.rst of restic, "Config")."""

import os
import secrets
from dataclasses import dataclass

import orjson

from pra_agent.errors import DamagedError, PraError
from pra_agent.repository.codec import Codec

VERSION = 2
_DEGREE = 53


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """What the config file says. The polynomial is for restic's own chunker, which refuses a reducible one."""

    id: str
    polynomial: int
    version: int = VERSION

    @classmethod
    def generate(cls) -> "RepositoryConfig":
        """Make a new id and a random irreducible polynomial."""
        return cls(os.urandom(32).hex(), random_polynomial())

    def seal(self, codec: Codec) -> bytes:
        """Give the bytes to store."""
        document = {"version": self.version, "id": self.id, "chunker_polynomial": f"{self.polynomial:x}"}
        return codec.seal(orjson.dumps(document))

    @classmethod
    def unseal(cls, codec: Codec, sealed: bytes) -> "RepositoryConfig":
        """Read stored bytes; `DamagedError` when they are no config, `PraError` for another version."""
        try:
            doc = orjson.loads(codec.unseal(sealed))
            config = cls(str(doc["id"]), int(doc["chunker_polynomial"], 16), int(doc["version"]))
        except DamagedError as error:
            raise DamagedError(f"config: {error.message}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise DamagedError("config: it is not a repository's config") from error
        if config.version != VERSION:
            raise PraError(
                f"the repository has format version {config.version}, and this program writes version {VERSION}",
                advice="Migrate it with stock restic: restic migrate upgrade_repo_v2.",
            )
        return config


def random_polynomial() -> int:
    """Draw a random irreducible polynomial of degree 53 over GF(2); bit i is the coefficient of x^i."""
    while True:
        candidate = 1 << _DEGREE | secrets.randbits(_DEGREE) | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Whether a polynomial of prime degree p has no factors.

    Rabin's test ("Probabilistic Algorithms in Finite Fields", 1980): f divides x^(2^p) - x, and is prime to x^2 - x.
    """
    degree = polynomial.bit_length() - 1
    power = 0b10
    for _ in range(degree):
        power = _remainder(_square(power), polynomial)
    return power == 0b10 and _gcd(polynomial, 0b110) == 1


def _square(a: int) -> int:
    # Squaring over GF(2) puts a zero between the bits: read the binary digits as base 4.
    return int(f"{a:b}", 4)


def _remainder(a: int, b: int) -> int:
    while a.bit_length() >= b.bit_length():
        a ^= b << (a.bit_length() - b.bit_length())
    return a


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, _remainder(a, b)
    return a
