"""The journal's file: SQLite in WAL mode, its transactions, and its errors in our words."""

import contextlib
import sqlite3
import threading
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from pra_agent.daemon import journal_schema
from pra_agent.daemon import records as records_json
from pra_agent.errors import DamagedError, StorageError, StorageFull
from pra_agent.model.runs import RunRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Store:
    """An open file; any thread may use it, one at a time. What `writing` wrote is durable when it has been left."""

    def __init__(self, path: Path) -> None:
        """Open or create it; raises `DamagedError`, or `PraError` when it is newer than this program."""
        self.path = path
        self.mutex = threading.RLock()
        with _told(path):
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                journal_schema.migrate(self._db, str(path))
            except BaseException:
                self._db.close()
                raise
        path.chmod(0o600)

    def close(self) -> None:
        """Give the file back; harmless when closed."""
        with self.mutex:
            self._db.close()

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """One transaction: all of it is durable at its end, or none of it happened."""
        with self.mutex, _told(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """All rows that a question finds."""
        with self.mutex, _told(self.path):
            return self._db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: object) -> tuple[object, ...] | None:
        """The first row."""
        rows = self.rows(sql, *values)
        return rows[0] if rows else None

    def records(self, sql: str, *values: object) -> list[RunRecord]:
        """All run records; the question asks for the column `record` alone."""
        return [records_json.loads(cast("str", row[0])) for row in self.rows(sql, *values)]

    def record(self, sql: str, *values: object) -> RunRecord | None:
        """The first run record."""
        found = self.records(sql, *values)
        return found[0] if found else None


@contextlib.contextmanager
def _told(path: Path) -> Generator[None]:
    """SQLite's errors in the words of ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise DamagedError(f"{path}: the journal is damaged: {error}", advice="Move it away.") from error
        if code == sqlite3.SQLITE_FULL:
            raise StorageFull(f"{path}: {error}") from error
        raise StorageError(f"{path}: {error}") from error


def microseconds(when: datetime) -> int:
    """An instant as the tables keep it."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def instant_of(us: int) -> datetime:
    """An instant from the tables."""
    return _EPOCH + timedelta(microseconds=us)
