"""SQLite databases as dumps: each file's copy is a stream."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.dump.preset import file_name
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.scratch import Room
from pra_agent.sources.source import ReinstateContext
from pra_agent.sources.sqlite import MAGIC, backup, copied

SUFFIX = ".sqlite"


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
        return Demand(f"sqlite {self.path}", head=MAGIC, min_bytes=512)

    def opened(self, scratch: Room, name: str) -> AbstractContextManager[BinaryIO]:
        """Copy it into scratch, check the copy, and open that; it is gone on leaving."""
        return copied(self.path, scratch, name)


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
            backup(target, kept)
            done.append(f"sqlite: what was there is kept as {kept}")
        backup(stored, target)
        done.append(f"sqlite: restored {target}")
    return done
