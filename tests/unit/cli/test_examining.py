"""What doctor finds, each on its own."""

import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.cli import examining
from pra_agent.cli.examining import Verdict, examine
from pra_agent.clock import SystemClock
from pra_agent.config import load, read
from pra_agent.daemon.composition import new_repository
from pra_agent.errors import AccessDenied, DaemonUnreachable
from pra_agent.model.jobs import DaemonStatus, Health, JobFact, JobStatus
from pra_agent.model.runs import Operation, RunRecord
from pra_agent.model.snapshots import Snapshot

TEXT = """\
node: web-1
repository:
  url: {dir}/repository
  password: {{file: {dir}/password}}
  tuning: {{scrypt: {{n: 1024, p: 1}}}}
jobs:
  app: {{source: {{type: files, paths: [{dir}]}}}}
state: {{dir: {dir}/state}}
control: {{socket: {dir}/none.sock}}
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A configuration with a repository."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    path = tmp_path / "config.yaml"
    path.write_text(TEXT.format(dir=tmp_path))
    path.chmod(0o600)
    with new_repository(load(path), SystemClock()):
        pass
    return path


def findings(path, *verdicts):
    return [f"{one.subject}: {one.message}" for one in examine(read(path), SystemClock()) if one.verdict in verdicts]


def test_a_new_repository_has_warnings_only(place):
    warnings = findings(place, Verdict.WARN)
    assert any("no snapshot of app yet" in one for one in warnings)
    assert any("one key slot only" in one for one in warnings)
    assert any(one.startswith("daemon: ") for one in warnings)
    assert findings(place, Verdict.FAIL) == []


def test_a_disk_without_room(place):
    place.write_text(place.read_text() + "limits: {min_free: 99.9%}\n")
    assert any("less than min_free" in one for one in findings(place, Verdict.FAIL))


def test_a_repository_that_does_not_open(place):
    (place.parent / "password").write_text("wrong")
    assert any("opens none of the" in one for one in findings(place, Verdict.FAIL))


def test_rights(place, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(examining, "_capable", lambda: False)
    assert any("files of other users" in one for one in findings(place, Verdict.WARN))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert any("this user cannot read" in one for one in findings(place, Verdict.FAIL))


class FakeClient:
    """Answers in the daemon's place."""

    def __init__(self, status, jobs):
        self._answers = (status, jobs)

    def status(self):
        return self._answers[0]

    def jobs(self):
        return self._answers[1]


def answering(monkeypatch, status, jobs=()):
    monkeypatch.setattr(examining, "Client", lambda _: nullcontext(FakeClient(status, jobs)))


def test_the_daemon_and_its_jobs(place, monkeypatch):
    failed = RunRecord("r", Operation.BACKUP, "app", START, error="no space")
    status = DaemonStatus("web-1", "0.0.1", START, config_error="line 3 is bad", on_hold=True)
    jobs = [
        JobStatus(JobFact("ok", "files"), Health.OK, 60.0),
        JobStatus(JobFact("late", "files"), Health.BREACHED, 90000.0, last_attempt=failed),
        JobStatus(JobFact("small", "files"), Health.SUSPECT, 60.0),
    ]
    answering(monkeypatch, status, jobs)
    assert {
        "daemon: refused the newest configuration: line 3 is bad",
        "job late: breached, data 1d 1h old; no space",
    } == {one for one in findings(place, Verdict.FAIL) if one.startswith(("daemon", "job"))}
    warnings = findings(place, Verdict.WARN)
    assert any("is version 0.0.1" in one for one in warnings)
    assert any("is on hold" in one for one in warnings)
    assert "job small: suspect, data 1m old" in warnings
    assert "job ok: ok, data 1m old" in findings(place, Verdict.OK)


@pytest.mark.parametrize(
    ("error", "verdict"), [(DaemonUnreachable("nobody listens"), Verdict.WARN), (AccessDenied("not you"), Verdict.FAIL)]
)
def test_a_daemon_that_does_not_answer(place, monkeypatch, error, verdict):
    def refuse(_path):
        raise error

    monkeypatch.setattr(examining, "Client", refuse)
    assert f"daemon: {error.message}" in findings(place, verdict)


def test_snapshots(place):
    now = datetime(2026, 6, 1, tzinfo=UTC)
    config = load(place)
    own = Snapshot(now - timedelta(hours=1), b"t" * 32, ["/a"], "web-1", tags=("pra-agent", "job=app"), id="a" * 64)
    old = replace(own, time=now - timedelta(days=1))
    future = replace(own, time=now + timedelta(hours=1))
    foreign = replace(own, hostname="web-2")

    def found(*snapshots):
        return [(one.verdict, one.message) for one in examining._snapshots(list(snapshots), config, "repository", now)]

    assert found(own) == [(Verdict.OK, "app: 1 snapshot, the newest is 1h old")]
    assert found(old) == [(Verdict.WARN, "app: 1 snapshot, the newest is 1d old")]
    assert (Verdict.FAIL, "1 snapshot from the future") in found(own, future)
    assert (Verdict.WARN, "also has snapshots of web-2") in found(own, foreign)
