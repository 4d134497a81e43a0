"""SQLite: a copy by the backup API, which sees one committed state whatever writers do meanwhile."""

import contextlib
import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.dump.preset import file_name
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.source import ReinstateContext

SUFFIX = ".sqlite"
_MAGIC = b"SQLite format 3\x00"
_PAGES = 4096


@dataclass(frozen=True, slots=True)
class Database:
    """One database file and its place in the dump."""

    path: Path

    @property
    def name(self) -> str:
        """Its file name below the dump's directory: the whole path, as one component."""
        return file_name(str(self.path), SUFFIX)

    @property
    def demand(self) -> Demand:
        """What its copy must look like."""
        return Demand(f"sqlite {self.path}", head=_MAGIC, min_bytes=512)

    @contextlib.contextmanager
    def opened(self, scratch: str, name: str) -> Generator[BinaryIO, None, None]:
        """Copy it into scratch, check the copy, and open that; it is gone on leaving."""
        copy = Path(scratch) / f"{name}.copy"
        try:
            self._copy(copy)
            with copy.open("rb") as file:
                yield file
        finally:
            for leftover in (copy, Path(f"{copy}-wal"), Path(f"{copy}-shm"), Path(f"{copy}-journal")):
                leftover.unlink(missing_ok=True)

    def _copy(self, copy: Path) -> None:
        try:
            with (
                contextlib.closing(sqlite3.connect(self._uri(), uri=True, timeout=60)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target, pages=_PAGES)
                found = target.execute("PRAGMA quick_check(1)").fetchone()
                target.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            advice = "Check the file with sqlite3's .recover."
            raise SourceError(f"sqlite {self.path}: {error}", advice=advice) from error
        if found is None or found[0] != "ok":
            raise SourceError(f"sqlite {self.path}: the database is damaged: {found}")

    def _uri(self) -> str:
        if not self.path.is_file():
            raise SourceError(f"sqlite {self.path}: there is no such file", advice="Correct the job's paths.")
        # Without a -wal file nobody has it open in WAL mode; then nothing needs to be written beside it, which an
        # agent that may only read could not do.
        wal = Path(f"{self.path}-wal")
        lone = not wal.exists() and not os.access(self.path.parent, os.W_OK)
        return f"{self.path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if lone and self._is_wal() else "")

    def _is_wal(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(20)[18:20] == b"\x02\x02"


def reinstate(databases: Sequence[Database], directory: str, context: ReinstateContext) -> Sequence[str]:
    """Copy each file back, through the backup API where the database exists, so that its users see it at once."""
    done: list[str] = []
    options: Mapping[str, str] = context.options
    for database in databases:
        stored = Path(directory) / database.name
        target = Path(options["as"]) if "as" in options else database.path
        if not stored.exists():
            raise SourceError(f"the dump holds no copy of {database.path}")
        if target.exists() and not context.force:
            advice = "Say --force to replace its content; a copy is kept beside it."
            raise RefusedError(f"{target} exists", advice=advice)
        if context.dry_run:
            done.append(f"would restore {target}")
            continue
        if target.exists():
            kept = target.with_name(f"{target.name}.before-{context.run}")
            _backup(target, kept)
            done.append(f"sqlite: what was there is kept as {kept}")
        _backup(stored, target)
        done.append(f"sqlite: restored {target}")
    return done


def _backup(source: Path, target: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
            contextlib.closing(sqlite3.connect(target, timeout=60)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise SourceError(f"sqlite {target}: {error}") from error
