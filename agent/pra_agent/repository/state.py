"""What a host keeps of a repository outside of it: keyed by repository id, and never needed to restore."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def repository_state(state: Path | None, repository_id: str) -> Path | None:
    """Make and name the directory of one repository below the state directory; None when it cannot be made."""
    if state is None:
        return None
    path = state / "repositories" / repository_id
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file as a whole; not synced, since all of this can be lost without harm."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def try_lock(descriptor: int) -> bool:
    """Take a POSIX lock on an open file: it dies with the process, and forked workers do not inherit it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
