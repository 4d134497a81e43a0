"""Log lines: key=value or JSON, no secrets, and no trace for a mistake of a user."""

import io
import json
import logging

import pytest
import structlog

from pra_agent.daemon import log
from pra_agent.errors import Locked


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def lines():
    stream = io.StringIO()
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = before


def test_key_and_value(lines):
    log.configure(stream=lines)
    structlog.get_logger().info("it runs", job="app", words="two words")
    line = lines.getvalue()
    assert line.startswith("timestamp=20")
    assert 'level=info event="it runs" job=app words="two words"' in line


def test_under_the_journal_lines_have_no_time(lines, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.configure(stream=lines)
    structlog.get_logger().info("x")
    assert lines.getvalue() == "level=info event=x\n"


def test_json(lines):
    log.configure(json=True, stream=lines)
    structlog.get_logger().warning("x", job="app")
    told = json.loads(lines.getvalue())
    assert (told["level"], told["event"], told["job"]) == ("warning", "x", "app")


def test_secrets_are_not_told(lines):
    log.configure(stream=lines)
    structlog.get_logger().info("x", password="geheim", api_token="geheim", url="https://me:geheim@host/p")
    assert "geheim" not in lines.getvalue()
    assert "host/p" in lines.getvalue()


def test_a_mistake_has_advice_and_no_trace(lines):
    log.configure(stream=lines)
    try:
        fail(Locked("somebody prunes"))
    except Locked:
        structlog.get_logger().exception("it failed")
    assert 'error="somebody prunes"' in lines.getvalue()
    assert "advice=" in lines.getvalue()
    assert "Traceback" not in lines.getvalue()


def test_a_bug_has_its_trace(lines):
    log.configure(stream=lines)
    try:
        fail(ValueError("bug"))
    except ValueError:
        structlog.get_logger().exception("it failed")
    assert "Traceback" in lines.getvalue()


def test_debug_is_told_only_when_asked_for(lines):
    log.configure(stream=lines)
    structlog.get_logger().debug("quiet")
    log.configure(verbose=True, stream=lines)
    structlog.get_logger().debug("loud")
    assert "quiet" not in lines.getvalue()
    assert "loud" in lines.getvalue()
