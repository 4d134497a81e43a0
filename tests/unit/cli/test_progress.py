"""Progress: lines now and then, rate and ETA, JSON at most once a second, failures told but not endlessly."""

import json

import pytest

from pra_agent.cli.output import Output
from pra_agent.cli.progress import FAILURES_SHOWN, LINE_EVERY, Pace, describe, showing
from pra_agent.model.events import FileFailed, Notice, Progress


class Ticking:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Ticking()


def test_rate_and_time_left(clock):
    pace = Pace(clock)
    assert describe(Progress("archive", 0, 10, 0, 400 << 20), pace) == "archive  0/10 files  0 B of 400.0 MiB (0%)"
    clock.seconds = 2.0
    line = describe(Progress("archive", 5, 10, 100 << 20, 400 << 20), pace)
    assert line == "archive  5/10 files  100.0 MiB of 400.0 MiB (25%)  50.0 MiB/s  ETA 6s"
    clock.seconds = 100.0
    assert describe(Progress("upload", bytes_done=1 << 20), pace) == "upload  1.0 MiB"  # a new stage, a new start


def test_lines_come_now_and_then(clock, capsys):
    with showing(Output(), clock) as report:
        for second in range(25):
            clock.seconds = float(second)
            report(Progress("archive", files_done=second))
        report(Progress("upload", files_done=1))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["archive"],
        ["archive", f"{int(LINE_EVERY)} files"],
        ["archive", "20 files"],
        ["upload", "1 files"],
    ]


def test_json_events_at_most_once_a_second(clock, capsys):
    with showing(Output(json=True), clock) as report:
        for tenth in range(21):
            clock.seconds = tenth / 10
            report(Progress("archive", files_done=tenth))
        report(FileFailed("/a", "why"))
        report(Notice("well"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event.get("files_done") for event in events] == [0, 10, 20, None, None]
    assert events[-2] == {"type": "file_failed", "path": "/a", "reason": "why"}


def test_failures_are_told_up_to_a_number(clock, capsys):
    with showing(Output(quiet=True), clock) as report:
        for n in range(FAILURES_SHOWN + 5):
            report(FileFailed(f"/{n}", "gone"))
        report(Notice("careful", "warning"))
        report(Notice("by the way"))
        report(Progress("archive"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == FAILURES_SHOWN + 2
    assert lines[0] == "failed: /0: gone"
    assert lines[-1] == "warning: careful"
