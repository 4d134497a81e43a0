"""Values come back from JSON as they went in."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from pra_agent.control import wire
from pra_agent.errors import Locked, PraError
from pra_agent.model.events import Event, FileFailed, Notice, Progress
from pra_agent.model.jobs import DaemonStatus, Destination, Health, JobFact, JobStatus
from pra_agent.model.runs import Failure, Operation, Outcome, RunRecord
from pra_agent.model.snapshots import Snapshot

NOW = datetime(2024, 5, 1, 12, 30, 1, 123456, tzinfo=UTC)
RUN = RunRecord(
    id="01",
    operation=Operation.BACKUP,
    job="app",
    started=NOW,
    finished=NOW + timedelta(seconds=3),
    outcome=Outcome.PARTIAL,
    snapshot="ab" * 32,
    data_instant=NOW,
    files=3,
    bytes=10,
    failures=(Failure("/srv/a\N{SNOWMAN}", "vanished"),),
    stages={"read": 1.5},
    detail={"cassandra": {"version": "4.1"}},
)


def test_a_run_record() -> None:
    assert wire.run_of(orjson.loads(orjson.dumps(wire.run_json(RUN)))) == RUN


def test_a_running_record_has_no_end() -> None:
    running = replace(RUN, finished=None, outcome=None)

    assert wire.run_of(wire.run_json(running)) == running


def test_a_job() -> None:
    status = JobStatus(
        JobFact("app", "files", "0 * * * *", 14400.0, None, (Destination(off_host=True),), (Operation.BACKUP,)),
        Health.AT_RISK,
        12.5,
        {"repository": NOW},
        RUN,
        None,
        NOW,
        2,
        on_hold=False,
        suspect=True,
        progress={"stage": "read", "bytes_done": 3},
    )

    assert wire.job_of(orjson.loads(orjson.dumps(wire.job_json(status)))) == status


def test_the_daemon() -> None:
    status = DaemonStatus("web-1", "1.0", NOW, 3, "s3://bucket/web-1", "ab", NOW, "line 3: bad", on_hold=True)

    assert wire.status_of(wire.status_json(status)) == status


def test_a_snapshot_keeps_its_nanoseconds_and_id() -> None:
    snapshot = Snapshot(
        NOW, b"\x01" * 32, ("/srv",), "web-1", tags=("pra-agent", "job=app"), id="cd" * 32, nanoseconds=789
    )

    assert wire.snapshot_of(orjson.loads(orjson.dumps(wire.snapshot_json(snapshot)))) == snapshot


@pytest.mark.parametrize(
    "event", [Progress("read", 1, 2, 3, 4, 5, "/srv/a"), FileFailed("/srv/b", "no"), Notice("n", "warning"), RUN]
)
def test_events(event: Event | RunRecord) -> None:
    line = wire.event_line(event)

    assert line.count(b"\n") == 1
    assert wire.event_of(line) == event


def test_an_error_in_a_stream_is_raised() -> None:
    with pytest.raises(Locked):
        wire.event_of(wire.error_line({"error": "x", "kind": "Locked"}))


def test_a_ping_and_events_of_a_newer_daemon_say_nothing() -> None:
    assert wire.event_of(b'{"type": "ping"}') is None
    assert wire.event_of(b'{"type": "newer", "x": 1}') is None


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'"x"', b'{"type": "progress", "odd": 1}', b'{"type": "run"}'])
def test_lines_that_are_no_events(line: bytes) -> None:
    with pytest.raises(PraError, match="not understood"):
        wire.event_of(line)


def test_an_answer_of_another_version_is_told() -> None:
    with pytest.raises(PraError, match="not understood"):
        wire.run_of({"id": 3})
