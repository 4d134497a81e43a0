"""Pings reach a real server, are tried again, and never raise."""

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pra_agent.config.pings import PingSettings
from pra_agent.daemon import pings
from pra_agent.daemon.pings import Pings
from pra_agent.model.runs import Operation, Outcome, RunRecord

BEGUN = RunRecord("r1", Operation.BACKUP, "app", datetime(2026, 3, 1, tzinfo=UTC))


@contextmanager
def server(*statuses: int):
    """Answers with these statuses, then with 200; gives its address and what it was asked."""
    asked: list[tuple[str, str]] = []
    answers = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append((self.path, body))
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/id", asked
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pings, "PAUSES", (0.0, 0.0))


def send(settings: PingSettings | None, *records: RunRecord) -> None:
    async def main() -> None:
        sender = Pings(lambda job: settings if job == "app" else None)
        for record in records:
            if record.outcome is None:
                sender.started(record)
            else:
                sender.ended(record, good=record.outcome is Outcome.SUCCESS)
            await sender.close(60)

    asyncio.run(main())


def test_begin_success_and_failure_have_their_addresses():
    good = replace(BEGUN, outcome=Outcome.SUCCESS, files=3)
    bad = replace(BEGUN, outcome=Outcome.FAILED, error="no such place")
    with server() as (url, asked):
        send(PingSettings(url=url), BEGUN, good, bad)
    assert [path for path, _ in asked] == ["/id/start", "/id", "/id/fail"]
    assert "3 files" in asked[1][1]
    assert "no such place" in asked[2][1]


def test_each_address_may_be_another_one():
    with server() as (url, asked):
        send(PingSettings(success=f"{url}/ok"), BEGUN, replace(BEGUN, outcome=Outcome.SUCCESS))
    assert [path for path, _ in asked] == ["/id/ok"]


def test_what_is_no_backup_or_was_skipped_is_silent():
    skipped = replace(BEGUN, outcome=Outcome.SKIPPED)
    check = replace(BEGUN, operation=Operation.CHECK)
    with server() as (url, asked):
        send(PingSettings(url=url), skipped, check, replace(BEGUN, job="other"))
        send(None, BEGUN)
    assert asked == []


def test_it_is_tried_again_and_then_left():
    with server(500, 503) as (url, asked):
        send(PingSettings(url=url), BEGUN)
    assert len(asked) == 3
    with server(500, 500, 500, 500) as (url, asked):
        send(PingSettings(url=url), BEGUN)
    assert len(asked) == 3


def test_nobody_there_is_no_error():
    with server() as (url, _):
        pass
    send(PingSettings(url=url), BEGUN)


def test_an_address_is_http():
    with pytest.raises(ValueError, match="no address"):
        PingSettings(url="file:///etc/passwd")
