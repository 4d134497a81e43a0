"""The journal: runs, counters, instants and state survive processes, threads and the pruning of old records."""

import os
import signal
import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pra_agent.daemon import journal_schema, records
from pra_agent.daemon.journal import BOUNDS, WHOLE, Journal
from pra_agent.errors import DamagedError, PraError
from pra_agent.model.runs import Failure, Operation, Outcome, RunRecord

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HERE = ""
FULL = "backup_last_full_timestamp_seconds"


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


def begun(run_id: str = "r1", job: str = "app", operation: Operation = Operation.BACKUP, minutes: int = 0) -> RunRecord:
    return RunRecord(id=run_id, operation=operation, job=job, started=T0 + timedelta(minutes=minutes))


def ended(record: RunRecord, outcome: Outcome = Outcome.SUCCESS, seconds: int = 90, **more: Any) -> RunRecord:
    return replace(
        record,
        outcome=outcome,
        finished=record.started + timedelta(seconds=seconds),
        data_instant=record.started,
        **{"destination": HERE, **more},
    )


def add(journal: Journal, record: RunRecord, **more: Any) -> RunRecord:
    journal.start(record)
    done = ended(record, **more)
    journal.finish(done, advances=done.outcome is Outcome.SUCCESS)
    return done


def test_a_record_is_the_same_after_json():
    record = ended(
        begun(),
        files=3,
        failures=(Failure("/a\\xff", "denied"),),
        stages={"read": 1.5},
        detail={"plan": ["x"]},
        full=True,
        off_host=True,
        error="é",
    )
    assert records.loads(records.dumps(record)) == record
    assert records.loads(records.dumps(begun())) == begun()


def test_what_runs_and_what_ended(journal):
    journal.start(begun())
    assert [r.id for r in journal.running()] == ["r1"]
    assert journal.last_run("app", Operation.BACKUP) == begun()
    assert journal.last_with("app", Operation.BACKUP, [Outcome.SUCCESS]) is None
    done = ended(begun(), stages={"read": 12.0})
    journal.finish(done, advances=True)
    assert journal.running() == []
    assert journal.last_with("app", Operation.BACKUP, [Outcome.SUCCESS]) == done
    assert journal.last_with("app", Operation.BACKUP, [Outcome.SUCCESS], HERE) == done
    assert journal.last_with("app", Operation.BACKUP, [Outcome.SUCCESS], "/elsewhere") is None
    assert journal.run("r1") == done
    assert journal.run("r2") is None
    assert journal.data_instants("app") == {HERE: T0}


def test_the_newest_of_several_outcomes_is_told(journal):
    add(journal, begun("r1", minutes=1))
    add(journal, begun("r2", minutes=2), outcome=Outcome.PARTIAL)
    add(journal, begun("r3", minutes=3), outcome=Outcome.FAILED)
    newest = journal.last_with("app", Operation.BACKUP, [Outcome.SUCCESS, Outcome.PARTIAL])
    assert newest is not None
    assert newest.id == "r2"
    assert [r.id for r in journal.runs()] == ["r3", "r2", "r1"]
    assert [r.id for r in journal.runs(job="app", limit=1)] == ["r3"]
    assert journal.runs(job="other") == []


def test_a_run_is_finished_once(journal):
    done = add(journal, begun())
    journal.finish(replace(done, outcome=Outcome.FAILED))
    assert journal.run("r1") == done
    assert [(c.outcome, c.count) for c in journal.counts()] == [(Outcome.SUCCESS, 1)]
    with pytest.raises(ValueError, match="not ended"):
        journal.finish(begun())


def test_an_instant_never_goes_back(journal):
    journal.advance("app", "s3://x", T0, off_host=True)
    journal.advance("app", "s3://x", T0 - timedelta(hours=1), off_host=True)
    journal.advance("app", HERE, T0 + timedelta(hours=1), off_host=False)
    assert journal.data_instants("app") == {"s3://x": T0, HERE: T0 + timedelta(hours=1)}
    assert journal.off_host_instant("app") == T0
    assert journal.off_host_instant("other") is None


def test_a_partial_run_does_not_advance_unless_told(journal):
    journal.start(begun())
    journal.finish(ended(begun(), Outcome.PARTIAL), advances=False)
    assert journal.data_instants("app") == {}


def test_counters_and_histograms_survive_pruning(journal):
    for n in range(20):
        add(journal, begun(f"r{n}", minutes=n), seconds=n * 10, stages={"read": float(n)})
    add(journal, begun("old", job="once"), outcome=Outcome.FAILED)
    add(journal, begun("new", minutes=30))
    assert journal.prune(keep=1) == 20
    assert {(c.job, c.outcome): c.count for c in journal.counts()} == {
        ("app", Outcome.SUCCESS): 21,
        ("once", Outcome.FAILED): 1,
    }
    assert {r.id for r in journal.runs()} == {"old", "new"}
    read = next(h for h in journal.histograms() if h.stage == "read")
    assert read.total == sum(range(20))
    assert read.count == 20
    assert list(read.buckets) == list(BOUNDS)
    assert read.buckets[5.0] == 6
    assert read.buckets[BOUNDS[-1]] == 20
    whole = next(h for h in journal.histograms() if h.stage == WHOLE)
    assert whole.count == 22


def test_states_of_jobs(journal):
    assert journal.job_state("app").next_run is None
    journal.set_next_run("app", T0)
    journal.add_missed("app", 3)
    journal.add_missed("app", 2)
    state = journal.job_state("app")
    assert (state.next_run, state.missed_runs, state.on_hold, state.suspect) == (T0, 5, False, False)
    journal.set_next_run("app", None)
    assert journal.job_state("app").next_run is None


def test_the_hosts_hold_holds_every_job(journal):
    journal.set_hold(True)
    assert journal.job_state("app").on_hold
    journal.set_hold(True, "app")
    journal.set_hold(False)
    assert not journal.job_state("app").on_hold
    journal.set_hold(True, "app")
    assert journal.job_state("app").on_hold
    assert not journal.job_state("other").on_hold


def test_a_suspect_backup_marks_its_job_until_it_is_accepted(journal):
    add(journal, begun(), outcome=Outcome.SUSPECT)
    add(journal, begun("r2"))
    assert journal.job_state("app").suspect
    journal.set_suspect("app", False)
    assert not journal.job_state("app").suspect


def test_gauges_notes_and_due_operations(journal):
    assert journal.gauge("snapshots") is None
    journal.set_gauge("snapshots", 4)
    journal.set_gauge("snapshots", 5, "app")
    assert (journal.gauge("snapshots"), journal.gauge("snapshots", "app")) == (4.0, 5.0)
    journal.set_gauge("snapshots", None, "app")
    assert (journal.gauge("snapshots"), journal.gauge("snapshots", "app")) == (4.0, None)
    assert journal.note("x") is None
    journal.set_note("x", "y")
    assert journal.note("x") == "y"
    assert journal.due(Operation.CHECK) is None
    journal.set_due(Operation.CHECK, T0)
    assert journal.due(Operation.CHECK) == T0


def test_progress_is_kept_while_it_runs(journal):
    journal.start(begun())
    journal.set_progress("r1", {"stage": "read"})
    assert journal.progress("r1") == {"stage": "read"}
    journal.finish(ended(begun()))
    assert journal.progress("r1") is None


def test_a_seeded_run_is_known_but_not_counted(journal):
    journal.seed(ended(begun(), off_host=True))
    journal.seed(ended(begun(), outcome=Outcome.FAILED))
    assert journal.counts() == []
    assert journal.data_instants("app") == {HERE: T0}
    assert [r.outcome for r in journal.runs()] == [Outcome.SUCCESS]


def test_the_newest_full_run_is_known(journal):
    add(journal, begun("r1"), full=True)
    add(journal, begun("r2", minutes=5))
    add(journal, begun("r3", minutes=6), full=True, outcome=Outcome.FAILED)
    assert journal.gauge(FULL, "app") == T0.timestamp()


def test_growing_gauges(journal):
    journal.add_to_gauge("storage_requests_total", 2, "put/200")
    journal.add_to_gauge("storage_requests_total", 3, "put/200")
    journal.set_gauge("storage_requests_total", 1, "get/200")
    assert journal.gauges("storage_requests_total") == {"put/200": 5.0, "get/200": 1.0}


def test_the_usual_size_is_the_median_of_the_newest(journal):
    assert journal.usual_bytes("app") == 0
    for n, size in enumerate([1, 100, 110, 120]):
        add(journal, begun(f"r{n}"), bytes=size, destination="")
    assert journal.usual_bytes("app", of=3) == 110


def test_what_was_accepted_is_usual_from_then_on(journal):
    for n in range(3):
        add(journal, begun(f"r{n}", minutes=n), bytes=1000)
    small = add(journal, begun("small", minutes=5), outcome=Outcome.SUSPECT, bytes=10)
    assert journal.usual_bytes("app") == 1000
    journal.accept(small)
    assert not journal.job_state("app").suspect
    assert journal.data_instants("app") == {"": small.data_instant}
    assert journal.usual_bytes("app") == 10
    add(journal, begun("next", minutes=6), bytes=14)
    assert journal.usual_bytes("app") == 14


def test_state_before_is_seen_by_another_process(journal, tmp_path):
    state = journal.state_before("app")
    state.remember("paused", {"container": "db"})
    other = Journal(tmp_path / "journal.db")
    try:
        assert other.state_before("app").pending() == {"paused": {"container": "db"}}
        other.state_before("app").remember("second", {})
        assert other.jobs_with_state() == ["app"]
        other.state_before("app").forget("paused")
    finally:
        other.close()
    assert state.pending() == {"second": {}}


def test_what_was_finished_survives_kill_9(tmp_path):
    path = tmp_path / "journal.db"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child = Journal(path)
        add(child, begun("done"))
        child.start(begun("open", minutes=1))
        os.write(writer, b".")
        signal.pause()
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"."
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    again = Journal(path)
    try:
        failed = again.fail_unfinished(T0 + timedelta(hours=1), "the daemon died")
        assert [(r.id, r.outcome) for r in failed] == [("open", Outcome.FAILED)]
        done = again.run("done")
        assert done is not None
        assert done.outcome is Outcome.SUCCESS
        assert again.running() == []
        assert again.fail_unfinished(T0, "again") == []
    finally:
        again.close()


def test_threads_share_a_journal(journal):
    def work(name):
        for n in range(20):
            add(journal, begun(f"{name}-{n}", job=name))
            journal.add_missed("shared", 1)

    threads = [threading.Thread(target=work, args=(f"job{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(c.count for c in journal.counts()) == 80
    assert journal.job_state("shared").missed_runs == 80


def test_the_newest_run_is_found_by_index_among_many(journal):
    """Cheap means: SQLite searches by index for every question a scrape asks."""
    questions = [
        ("SELECT record FROM runs WHERE job = ? AND operation = ? ORDER BY seq DESC LIMIT 1", 2),
        (
            """SELECT seq, record FROM runs WHERE job = ? AND operation = ? AND outcome = ? AND destination = ?
            ORDER BY seq DESC LIMIT 1""",
            4,
        ),
        ("SELECT record FROM runs WHERE job = ? ORDER BY seq DESC LIMIT ?", 2),
        ("SELECT record FROM runs WHERE outcome IS NULL ORDER BY seq", 0),
    ]
    for sql, number in questions:
        plan = " ".join(str(row[3]) for row in journal._store.rows("EXPLAIN QUERY PLAN " + sql, *["x"] * number))
        assert "USING INDEX" in plan, (sql, plan)
        assert "TEMP B-TREE" not in plan, (sql, plan)


def test_a_newer_journal_is_refused(tmp_path):
    path = tmp_path / "journal.db"
    Journal(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {journal_schema.VERSION + 1}")
    database.close()
    with pytest.raises(PraError, match="knows up to"):
        Journal(path)


def test_a_damaged_journal_is_told(tmp_path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is no database, and long enough to be looked at as one." * 20)
    with pytest.raises(DamagedError, match="damaged"):
        Journal(path)


def test_only_its_owner_reads_the_journal(journal):
    assert journal.path.stat().st_mode & 0o077 == 0
