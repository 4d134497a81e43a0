"""What captures are about to change, written down in the journal so that a crash can be undone."""

import json
from collections.abc import Mapping, Sequence
from typing import cast

from pra_agent.daemon.journal_store import Store


class JobStateBefore:
    """`sources.StateBefore` of one job."""

    def __init__(self, store: Store, job: str) -> None:
        self._store = store
        self._job = job

    def remember(self, key: str, data: Mapping[str, object]) -> None:
        with self._store.writing() as db:
            db.execute("INSERT OR REPLACE INTO state_before VALUES (?, ?, ?)", (self._job, key, json.dumps(data)))

    def forget(self, key: str) -> None:
        with self._store.writing() as db:
            db.execute("DELETE FROM state_before WHERE job = ? AND key = ?", (self._job, key))

    def pending(self) -> Mapping[str, Mapping[str, object]]:
        rows = self._store.rows("SELECT key, data FROM state_before WHERE job = ? ORDER BY key", self._job)
        return {cast("str", row[0]): cast("Mapping[str, object]", json.loads(cast("str", row[1]))) for row in rows}


def jobs_with_state(store: Store) -> Sequence[str]:
    """Name the jobs that have something to undo."""
    return [cast("str", row[0]) for row in store.rows("SELECT DISTINCT job FROM state_before ORDER BY job")]
