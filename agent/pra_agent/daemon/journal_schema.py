"""The journal's tables, and the steps from one version of them to the next.

`PRAGMA user_version` carries the version. A step is one transaction; a crash between two
of them leaves a valid journal.
"""

import sqlite3

from pra_agent.errors import PraError

_V1 = """
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    operation TEXT NOT NULL,
    job TEXT NOT NULL,
    destination TEXT NOT NULL,
    outcome TEXT,
    started INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX runs_last ON runs (job, operation, seq);
CREATE INDEX runs_outcome ON runs (job, operation, outcome, destination, seq);
CREATE INDEX runs_job ON runs (job, seq);
CREATE INDEX runs_open ON runs (seq) WHERE outcome IS NULL;
CREATE TABLE counts (
    job TEXT NOT NULL, operation TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (job, operation, outcome)
) STRICT, WITHOUT ROWID;
CREATE TABLE stages (
    operation TEXT NOT NULL, stage TEXT NOT NULL, total REAL NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (operation, stage)
) STRICT, WITHOUT ROWID;
CREATE TABLE buckets (
    operation TEXT NOT NULL, stage TEXT NOT NULL, bound REAL NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (operation, stage, bound)
) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
    job TEXT PRIMARY KEY, next_run INTEGER, missed INTEGER NOT NULL DEFAULT 0,
    hold INTEGER NOT NULL DEFAULT 0, suspect INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE due (
    operation TEXT NOT NULL, job TEXT NOT NULL, next_run INTEGER NOT NULL,
    PRIMARY KEY (operation, job)
) STRICT, WITHOUT ROWID;
CREATE TABLE gauges (
    name TEXT NOT NULL, job TEXT NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (name, job)
) STRICT, WITHOUT ROWID;
CREATE TABLE instants (
    job TEXT NOT NULL, destination TEXT NOT NULL, instant INTEGER NOT NULL, off_host INTEGER NOT NULL,
    PRIMARY KEY (job, destination)
) STRICT, WITHOUT ROWID;
CREATE TABLE state_before (
    job TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (job, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

#: The step at position n leads from version n to n + 1.
STEPS = (_V1,)
VERSION = len(STEPS)


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the tables to `VERSION`; raises `PraError` when they are newer than this program knows."""
    found = version_of(connection)
    if found > VERSION:
        raise PraError(
            f"{path}: journal version {found}, this pra-agent knows up to {VERSION}",
            advice="Install the newer pra-agent again, or move the journal away: it is seeded from the snapshots.",
        )
    while (found := version_of(connection)) < VERSION:
        connection.executescript(f"BEGIN IMMEDIATE; {STEPS[found]} PRAGMA user_version = {found + 1}; COMMIT;")


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the tables that are there; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
