"""The journal: what ran, how it ended, and what follows from it; SQLite in WAL mode.

A write is durable when its method returns (`synchronous=FULL`), so what was acknowledged survives a kill -9 and a power
cut. One object may be used from any thread; other processes may have the same file open (a run's child writes its
state-before there). Counters, histograms and data instants do not depend on old records, which `prune` removes.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import cast

from pra_agent.daemon import records
from pra_agent.daemon.journal_store import Store, instant_of, microseconds
from pra_agent.daemon.state_before import JobStateBefore, jobs_with_state
from pra_agent.model.runs import JobState, Operation, Outcome, RunCount, RunRecord, StageHistogram

#: Upper bounds in seconds of the duration histograms.
BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0, inf)
#: The stage that stands for a run as a whole.
WHOLE = "total"
#: The gauge that says when the newest run began that read every byte.
LAST_FULL = "backup_last_full_timestamp_seconds"
#: The job name that stands for the host: its hold holds every job.
HOST = ""

_WITH_SENSE = frozenset({Outcome.SUCCESS, Outcome.PARTIAL})
_SET_GAUGE = "INSERT OR REPLACE INTO gauges VALUES (?, ?, ?)"
_INSERT = "INSERT INTO runs (id, operation, job, destination, outcome, started, record) VALUES (?, ?, ?, ?, ?, ?, ?)"
_SUCCESSES = (
    "SELECT record FROM runs WHERE job = ? AND operation = ? AND outcome = ? AND destination = '' AND started >= ?"
    " ORDER BY seq DESC LIMIT ?"
)
_ACCEPTED = "accepted_bytes"
_ACCEPTED_AT = "accepted_timestamp_seconds"
#: The note with the id of a job's accepted snapshot starts with this.
_ACCEPTED_SNAPSHOT = "accepted snapshot "
_ADD_COUNT = (
    "INSERT INTO counts VALUES (?, ?, ?, 1) ON CONFLICT (job, operation, outcome) DO UPDATE SET count = count + 1"
)
_ADD_STAGE = (
    "INSERT INTO stages VALUES (?, ?, ?, 1) ON CONFLICT (operation, stage)"
    " DO UPDATE SET total = total + excluded.total, count = count + 1"
)
_ADD_BUCKET = (
    "INSERT INTO buckets VALUES (?, ?, ?, ?) ON CONFLICT (operation, stage, bound)"
    " DO UPDATE SET count = count + excluded.count"
)
_LAST_WITH = (
    "SELECT seq, record FROM runs WHERE job = ? AND operation = ? AND outcome = ? AND destination = ?"
    " ORDER BY seq DESC LIMIT 1"
)
_ADVANCE = (
    "INSERT INTO instants VALUES (?, ?, ?, ?) ON CONFLICT (job, destination) DO UPDATE"
    " SET off_host = excluded.off_host, instant = max(instant, excluded.instant)"
)


class Journal:
    """An open journal; implements `model.runs.JournalReader` and the writing half."""

    def __init__(self, path: Path) -> None:
        """Open or create it; raises `DamagedError`, or `PraError` when it is newer than this program."""
        self._store = Store(path)
        self._progress: dict[str, Mapping[str, object]] = {}
        self.path = path

    def close(self) -> None:
        """Give the file back; harmless when closed."""
        self._store.close()

    # ------------------------------------------------------------ runs
    def start(self, record: RunRecord) -> None:
        """Note that a run begins; it counts as running until `finish`."""
        with self._store.writing() as db:
            db.execute(_INSERT, _row_of(record, None))

    def finish(self, record: RunRecord, *, advances: bool = False) -> None:
        """Note how a run ended, count it, and let the data instant advance when `advances`; one transaction.

        A suspect backup marks its job; only `accept` clears that. Finishing a run twice changes nothing.
        """
        if record.outcome is None or record.finished is None:
            message = f"run {record.id} has not ended"
            raise ValueError(message)
        with self._store.writing() as db:
            changed = db.execute(
                "UPDATE runs SET outcome = ?, destination = ?, record = ? WHERE id = ? AND outcome IS NULL",
                (record.outcome.value, record.destination, records.dumps(record), record.id),
            ).rowcount
            if changed:
                self._account(db, record)
                if advances and record.data_instant is not None:
                    self._advance(db, record.job, record.destination, record.data_instant, off_host=record.off_host)
                if record.full and record.operation is Operation.BACKUP and record.outcome in _WITH_SENSE:
                    db.execute(_SET_GAUGE, (LAST_FULL, record.job, record.started.timestamp()))
                if record.outcome is Outcome.SUSPECT:
                    self._set_job(db, record.job, "suspect", 1)
        self._progress.pop(record.id, None)

    def seed(self, record: RunRecord) -> None:
        """Take in a run that another journal knew (from its snapshot), uncounted; known runs are left as they are."""
        outcome = record.outcome.value if record.outcome is not None else None
        with self._store.writing() as db:
            db.execute(_INSERT + " ON CONFLICT (id) DO NOTHING", _row_of(record, outcome))
            if record.outcome is Outcome.SUCCESS and record.data_instant is not None:
                self._advance(db, record.job, record.destination, record.data_instant, off_host=record.off_host)

    def fail_unfinished(self, now: datetime, reason: str) -> Sequence[RunRecord]:
        """End what a dead process left running as failed; for a starting daemon that alone owns the journal."""
        ended: list[RunRecord] = []
        for record in self.running():
            dead = replace(record, finished=now, outcome=Outcome.FAILED, error=reason)
            self.finish(dead)
            ended.append(dead)
        return ended

    def prune(self, *, keep: int) -> int:
        """Remove all but the newest `keep` records; the newest of each kind and outcome stays. Returns how many."""
        with self._store.writing() as db:
            return db.execute(
                "DELETE FROM runs WHERE outcome IS NOT NULL"
                " AND seq NOT IN (SELECT seq FROM runs ORDER BY seq DESC LIMIT ?)"
                " AND seq NOT IN (SELECT max(seq) FROM runs GROUP BY job, operation, destination, outcome)",
                (keep,),
            ).rowcount

    def last_run(self, job: str, operation: Operation) -> RunRecord | None:
        return self._store.record(
            "SELECT record FROM runs WHERE job = ? AND operation = ? ORDER BY seq DESC LIMIT 1", job, operation.value
        )

    def last_with(
        self, job: str, operation: Operation, outcomes: Iterable[Outcome], destination: str = ""
    ) -> RunRecord | None:
        newest: tuple[int, str] | None = None
        for outcome in outcomes:
            row = self._store.row(_LAST_WITH, job, operation.value, outcome.value, destination)
            if row is not None and (newest is None or cast("int", row[0]) > newest[0]):
                newest = (cast("int", row[0]), cast("str", row[1]))
        return records.loads(newest[1]) if newest is not None else None

    def running(self) -> Sequence[RunRecord]:
        return self._store.records("SELECT record FROM runs WHERE outcome IS NULL ORDER BY seq")

    def runs(self, *, job: str | None = None, limit: int = 100) -> Sequence[RunRecord]:
        if job is None:
            return self._store.records("SELECT record FROM runs ORDER BY seq DESC LIMIT ?", limit)
        return self._store.records("SELECT record FROM runs WHERE job = ? ORDER BY seq DESC LIMIT ?", job, limit)

    def run(self, run_id: str) -> RunRecord | None:
        return self._store.record("SELECT record FROM runs WHERE id = ?", run_id)

    def usual_bytes(self, job: str, *, of: int = 10) -> int:
        """The median size in bytes of the newest successful backups of a job; 0 when there is none.

        What was accepted is usual from then on: what was before it counts no more.
        """
        since = self.gauge(_ACCEPTED_AT, job) or 0.0
        rows = self._store.records(_SUCCESSES, job, Operation.BACKUP.value, Outcome.SUCCESS.value, since * 1e6, of)
        sizes = sorted(record.bytes for record in rows)
        return sizes[len(sizes) // 2] if sizes else int(self.gauge(_ACCEPTED, job) or 0)

    def accept(self, record: RunRecord) -> None:
        """Take a suspect backup for good: its data instant advances, and its size is usual from now on."""
        with self._store.writing() as db:
            self._set_job(db, record.job, "suspect", 0)
            db.execute(_SET_GAUGE, (_ACCEPTED, record.job, float(record.bytes)))
            db.execute(_SET_GAUGE, (_ACCEPTED_AT, record.job, record.started.timestamp()))
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (_ACCEPTED_SNAPSHOT + record.job, record.snapshot))
            if record.data_instant is not None:
                self._advance(db, record.job, record.destination, record.data_instant, off_host=record.off_host)

    def accepted_snapshot(self, job: str) -> str:
        """The id under which the job's newest accepted backup was stored; "" when none was accepted."""
        return self.note(_ACCEPTED_SNAPSHOT + job) or ""

    # ------------------------------------------------------------ progress, in memory only
    def set_progress(self, run_id: str, progress: Mapping[str, object]) -> None:
        """Keep the newest progress of a run until it ends."""
        self._progress[run_id] = progress

    def progress(self, run_id: str) -> Mapping[str, object] | None:
        return self._progress.get(run_id)

    # ------------------------------------------------------------ jobs
    def job_state(self, job: str) -> JobState:
        row = self._store.row("SELECT next_run, missed, hold, suspect FROM jobs WHERE job = ?", job)
        held = self._store.row("SELECT hold FROM jobs WHERE job = ? AND hold", HOST) is not None
        if row is None:
            return JobState(job, on_hold=held)
        next_run = cast("int | None", row[0])
        return JobState(
            job,
            next_run=instant_of(next_run) if next_run is not None else None,
            missed_runs=cast("int", row[1]),
            on_hold=bool(row[2]) or held,
            suspect=bool(row[3]),
        )

    def set_next_run(self, job: str, when: datetime | None) -> None:
        """Note when the job is due next."""
        with self._store.writing() as db:
            self._set_job(db, job, "next_run", microseconds(when) if when is not None else None)

    def add_missed(self, job: str, number: int) -> None:
        """Count fires that led to no run of their own."""
        if number:
            with self._store.writing() as db:
                self._set_job(db, job, "missed", self.job_state(job).missed_runs + number)

    def set_hold(self, on: bool, job: str = HOST) -> None:
        """Hold or release the scheduled runs of one job, or of the host (which releases the jobs as well)."""
        with self._store.writing() as db:
            self._set_job(db, job, "hold", int(on))
            if job == HOST and not on:
                db.execute("UPDATE jobs SET hold = 0")

    def set_suspect(self, job: str, on: bool) -> None:
        """Mark or accept a job's newest backup."""
        with self._store.writing() as db:
            self._set_job(db, job, "suspect", int(on))

    def due(self, operation: Operation, job: str = HOST) -> datetime | None:
        """When an upkeep operation is due; None when it was never planned."""
        row = self._store.row("SELECT next_run FROM due WHERE operation = ? AND job = ?", operation.value, job)
        return instant_of(cast("int", row[0])) if row is not None else None

    def set_due(self, operation: Operation, when: datetime | None, job: str = HOST) -> None:
        """Note when an upkeep operation is due; None: it is no longer planned."""
        with self._store.writing() as db:
            if when is None:
                db.execute("DELETE FROM due WHERE operation = ? AND job = ?", (operation.value, job))
            else:
                db.execute("INSERT OR REPLACE INTO due VALUES (?, ?, ?)", (operation.value, job, microseconds(when)))

    # ------------------------------------------------------------ data instants, gauges, counters
    def data_instants(self, job: str) -> Mapping[str, datetime]:
        rows = self._store.rows("SELECT destination, instant FROM instants WHERE job = ?", job)
        return {cast("str", row[0]): instant_of(cast("int", row[1])) for row in rows}

    def off_host_instant(self, job: str) -> datetime | None:
        """The newest data instant that survives the loss of this host."""
        row = self._store.row("SELECT max(instant) FROM instants WHERE job = ? AND off_host", job)
        return instant_of(cast("int", row[0])) if row is not None and row[0] is not None else None

    def advance(self, job: str, destination: str, instant: datetime, *, off_host: bool) -> None:
        """Note a durable data instant at a destination; it never goes back."""
        with self._store.writing() as db:
            self._advance(db, job, destination, instant, off_host=off_host)

    def counts(self) -> Sequence[RunCount]:
        rows = self._store.rows("SELECT job, operation, outcome, count FROM counts ORDER BY job, operation, outcome")
        return [
            RunCount(
                cast("str", row[0]),
                Operation(cast("str", row[1])),
                Outcome(cast("str", row[2])),
                cast("int", row[3]),
            )
            for row in rows
        ]

    def histograms(self) -> Sequence[StageHistogram]:
        with self._store.mutex:
            stages = self._store.rows("SELECT operation, stage, total, count FROM stages ORDER BY operation, stage")
            bounds = self._store.rows("SELECT operation, stage, bound, count FROM buckets ORDER BY bound")
        buckets: dict[tuple[object, object], dict[float, int]] = {}
        for row in bounds:
            buckets.setdefault((row[0], row[1]), {})[cast("float", row[2])] = cast("int", row[3])
        return [
            StageHistogram(
                Operation(cast("str", row[0])),
                cast("str", row[1]),
                buckets.get((row[0], row[1]), {}),
                cast("float", row[2]),
                cast("int", row[3]),
            )
            for row in stages
        ]

    def gauge(self, name: str, job: str = "") -> float | None:
        row = self._store.row("SELECT value FROM gauges WHERE name = ? AND job = ?", name, job)
        return cast("float", row[0]) if row is not None else None

    def gauges(self, name: str) -> Mapping[str, float]:
        rows = self._store.rows("SELECT job, value FROM gauges WHERE name = ?", name)
        return {cast("str", row[0]): cast("float", row[1]) for row in rows}

    def add_to_gauge(self, name: str, value: float, job: str = "") -> None:
        """Add to a number that only grows."""
        with self._store.writing() as db:
            db.execute(
                "INSERT INTO gauges VALUES (?, ?, ?)"
                " ON CONFLICT (name, job) DO UPDATE SET value = value + excluded.value",
                (name, job, float(value)),
            )

    def set_gauge(self, name: str, value: float | None, job: str = "") -> None:
        """Keep a number for the exporter; None: there is no such number any more."""
        with self._store.writing() as db:
            if value is None:
                db.execute("DELETE FROM gauges WHERE name = ? AND job = ?", (name, job))
            else:
                db.execute(_SET_GAUGE, (name, job, float(value)))

    # ------------------------------------------------------------ notes and state-before
    def note(self, name: str) -> str | None:
        """A text that was kept under a name."""
        row = self._store.row("SELECT value FROM notes WHERE name = ?", name)
        return cast("str", row[0]) if row is not None else None

    def set_note(self, name: str, value: str) -> None:
        """Keep a text under a name."""
        with self._store.writing() as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))

    def state_before(self, job: str) -> JobStateBefore:
        """Where the captures of a job write down what they are about to change."""
        return JobStateBefore(self._store, job)

    def jobs_with_state(self) -> Sequence[str]:
        """The jobs that have something to undo."""
        return jobs_with_state(self._store)

    # ------------------------------------------------------------ in one transaction of another
    @staticmethod
    def _account(db: sqlite3.Connection, record: RunRecord) -> None:
        operation = record.operation.value
        outcome = record.outcome.value if record.outcome is not None else ""
        db.execute(_ADD_COUNT, (record.job, operation, outcome))
        finished = record.finished if record.finished is not None else record.started
        stages = {**record.stages, WHOLE: max(0.0, (finished - record.started).total_seconds())}
        for stage, seconds in stages.items():
            db.execute(_ADD_STAGE, (operation, stage, seconds))
            db.executemany(_ADD_BUCKET, [(operation, stage, bound, int(seconds <= bound)) for bound in BOUNDS])

    @staticmethod
    def _advance(db: sqlite3.Connection, job: str, destination: str, instant: datetime, *, off_host: bool) -> None:
        db.execute(_ADVANCE, (job, destination, microseconds(instant), int(off_host)))

    @staticmethod
    def _set_job(db: sqlite3.Connection, job: str, column: str, value: int | None) -> None:
        db.execute("INSERT INTO jobs (job) VALUES (?) ON CONFLICT (job) DO NOTHING", (job,))
        db.execute(f"UPDATE jobs SET {column} = ? WHERE job = ?", (value, job))  # noqa: S608  a column name of ours


def _row_of(record: RunRecord, outcome: str | None) -> tuple[object, ...]:
    return (
        record.id,
        record.operation.value,
        record.job,
        record.destination,
        outcome,
        microseconds(record.started),
        records.dumps(record),
    )
