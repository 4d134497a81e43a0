"""The state directory: one daemon at a time, a journal that is moved aside when it is damaged."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import structlog

from pra_agent.clock import Clock
from pra_agent.daemon.journal import Journal
from pra_agent.errors import ConfigError, DamagedError, RefusedError

_LOCK = "daemon.lock"
JOURNAL = "journal.db"

_log = structlog.get_logger()


@contextmanager
def claimed(state: Path) -> Generator[None]:
    """Make the directory, only for its owner, and hold it; raises `RefusedError` when another daemon does."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"state.dir: cannot use {state}: {error.strerror}") from error
    try:
        try:
            # A POSIX lock: forked children do not hold it on when the daemon has died.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RefusedError(
                f"another daemon uses {state}", advice="Stop it first, or give this one another state.dir."
            ) from None
        yield
    finally:
        os.close(descriptor)


def open_journal(state: Path, clock: Clock) -> Journal:
    """Open the journal; one that is damaged is moved aside, and an empty one is seeded from the snapshots."""
    path = state / JOURNAL
    try:
        return Journal(path)
    except DamagedError as error:
        aside = path.with_name(f"{JOURNAL}.damaged-{clock.now():%Y%m%dT%H%M%S}")
        _log.exception("the journal is damaged; a new one is begun", aside=str(aside), reason=error.message)
        path.replace(aside)
        for ending in ("-wal", "-shm"):
            path.with_name(JOURNAL + ending).unlink(missing_ok=True)
        return Journal(path)
