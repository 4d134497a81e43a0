"""Copies of SQLite databases by the backup API, which sees one committed state whatever writers do meanwhile."""

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from pra_agent.errors import SourceError
from pra_agent.sources.scratch import Room

MAGIC = b"SQLite format 3\x00"
_PAGES = 4096
_BUSY_SECONDS = 60


@contextmanager
def copied(path: Path, scratch: Room, name: str) -> Generator[BinaryIO]:
    """Copy a database into scratch, check the copy, and open that; it is gone on leaving.

    Raises `SourceError`, and `StorageFull` when scratch has no room for it.
    """
    try:
        scratch.claim(_size(path))
        with scratch.held(f"{name}.copy") as copy:
            _copy(path, copy, scratch)
            with copy.open("rb") as file:
                yield file
    except OSError as error:
        raise SourceError(f"sqlite {path}: cannot be copied to {scratch.directory}: {error.strerror}") from error


def _size(path: Path) -> int:
    """How large a copy may become: what is committed may still be in the write-ahead log."""
    return sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())


def _copy(path: Path, copy: Path, scratch: Room) -> None:
    def look(_status: int, _remaining: int, _total: int) -> None:
        scratch.claim(0)

    try:
        with (
            closing(sqlite3.connect(_uri(path), uri=True, timeout=_BUSY_SECONDS)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target, pages=_PAGES, progress=look)
            found = target.execute("PRAGMA quick_check(1)").fetchone()
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        advice = "Check the file with sqlite3's .recover."
        raise SourceError(f"sqlite {path}: {error}", advice=advice) from error
    if found is None or found[0] != "ok":
        raise SourceError(f"sqlite {path}: the database is damaged: {found}")


def _uri(path: Path) -> str:
    if not path.is_file():
        raise SourceError(f"sqlite {path}: there is no such file", advice="Correct the job's paths.")
    # Without a -wal file nobody has it open in WAL mode; then nothing needs to be written beside it, which an
    # agent that may only read could not do.
    lone = not Path(f"{path}-wal").exists() and not os.access(path.parent, os.W_OK)
    return f"{path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if lone and _is_wal(path) else "")


def _is_wal(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(20)[18:20] == b"\x02\x02"


def backup(source: Path, target: Path) -> None:
    """Copy a database over another, which its users see at once; makes the other when there is none."""
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise SourceError(f"sqlite {target}: {error}") from error
