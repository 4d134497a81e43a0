"""The names of objects: 64 lower-case hex digits, the SHA-256 of what is stored."""

import re

from pra_agent.errors import StorageError
from pra_agent.storage.backend import Handle, Kind

_HEX = re.compile(r"[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Whether this can be an object's name; temporary and foreign files are not."""
    return _HEX.fullmatch(text) is not None


def require_name(handle: Handle) -> None:
    """Refuse a handle that is no address, so that no name leads outside the repository.

    Raises `StorageError`.
    """
    good = handle.name == "" if handle.kind is Kind.CONFIG else is_name(handle.name)
    if not good:
        raise StorageError(f"not the name of an object: {handle.kind.value} {handle.name!r}")
