"""Key derivations that were made already: scrypt takes half a second, and every run of a daemon opens the repository.

They are kept in memory only, in the process that made them and in those that were given them: the daemon hands what
one run derived to the runs after it. They open key slots, so they are as secret as the passwords.
"""

import hashlib
from collections.abc import Mapping

_MOST = 32
_BYTES = 64
#: By a digest of the password and all parameters: another password or another slot finds nothing here.
_known: dict[bytes, bytes] = {}


def derive(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """The 64 bytes of scrypt (RFC 7914); at once when they were derived before."""
    secret = password.encode("utf-8")
    digest = hashlib.sha256(b"%d %d %d %d " % (n, r, p, len(salt)) + salt + secret).digest()
    material = _known.get(digest)
    if material is None:
        memory = 128 * r * (n + p + 2) + (1 << 20)
        material = hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=_BYTES)
        adopt({digest: material})
    return material


def known() -> Mapping[bytes, bytes]:
    """What this process knows, to hand on."""
    return dict(_known)


def adopt(derivations: Mapping[bytes, bytes]) -> None:
    """Take what another process derived; the oldest are forgotten when there are too many."""
    _known.update(derivations)
    while len(_known) > _MOST:
        del _known[next(iter(_known))]
