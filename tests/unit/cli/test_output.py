"""What is printed: JSON, tables, ages, errors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.cli.output import Output, _rich_table, age, count, duration, printable_text, report_error, to_json
from pra_agent.model.runs import Operation, Outcome, RunRecord

MOMENT = datetime(2026, 11, 30, 10, 0, tzinfo=timezone(timedelta(hours=1)))


@dataclass(frozen=True, slots=True)
class Thing:
    name: str
    raw: bytes = b"\x01\xff"
    wait: timedelta = timedelta(minutes=1)
    when: datetime = MOMENT
    path: Path = Path("/a")
    kinds: frozenset[str] = frozenset({"x"})
    more: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"n": 1}))


@pytest.mark.parametrize("name", ["plain", "no UTF-8: \udcff"])
def test_values_become_json(name):
    assert json.loads(to_json(Thing(name))) == {
        "name": "plain" if name == "plain" else "no UTF-8: \\xff",
        "raw": "01ff",
        "wait": 60.0,
        "when": "2026-11-30T10:00:00+01:00" if name == "plain" else "2026-11-30T09:00:00Z",
        "path": "/a",
        "kinds": ["x"],
        "more": {"n": 1},
    }


def test_a_run_becomes_json():
    run = RunRecord("r", Operation.BACKUP, "j", datetime(2026, 1, 1, tzinfo=UTC), outcome=Outcome.SUCCESS)
    data = json.loads(to_json({"run": run}))["run"]
    assert (data["operation"], data["outcome"], data["started"]) == ("backup", "success", "2026-01-01T00:00:00Z")


def test_what_has_no_json_is_an_error():
    with pytest.raises(TypeError):
        to_json(object())


@given(st.text())
def test_printable_is_one_line_for_any_text(text):
    assert printable_text(text).isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (59, "59s"), (3600, "1h"), (3661, "1h 1m"), (90061, "1d 1h"), (-60, "-1m")],
)
def test_ages(seconds, text):
    assert age(seconds) == text


def test_durations_and_counts():
    assert (duration(0.44), duration(75), count(1, "job"), count(2000, "job")) == (
        "0.4s",
        "1m 15s",
        "1 job",
        "2,000 jobs",
    )


def test_a_table_is_aligned_and_silent_with_json(capsys):
    rows = [("a", "1"), ("longer", "22")]
    Output().table(("NAME", "N"), rows, right=("N",))
    assert capsys.readouterr().out == "NAME     N\na        1\nlonger  22\n"
    Output(json=True).table(("NAME", "N"), rows)
    Output().table(("NAME", "N"), [])
    assert capsys.readouterr().out == "NAME  N\n"


def test_lines_are_for_people_and_data_for_json(capsys):
    for output in (Output(), Output(json=True), Output(quiet=True)):
        output.line("line")
        output.data({"a": 1})
        output.note("note")
    captured = capsys.readouterr()
    assert captured.out == 'line\n{"a":1}\nline\n'
    assert captured.err == "note\n"


def test_errors(capsys):
    report_error("first\nsecond \x1b[31m", "do this", 2)
    assert capsys.readouterr().err == "pra-agent: first\npra-agent: second \\x1b[31m\n  do this\n"
    report_error("m", "a", 12, as_json=True)
    assert json.loads(capsys.readouterr().err) == {"type": "error", "message": "m", "advice": "a", "exit_code": 12}


def test_sentences_in_the_last_column_fold_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [("817ee338", "hourly snapshot, daily snapshot, weekly snapshot, minimum count"), ("d3beaa32", "pinned")]
    _rich_table(("SNAPSHOT", "WHY"), rows, ())
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 60
    assert " ".join(" ".join(line.split()) for line in lines).count("minimum count") == 1
    # A long name is left to the terminal: what is folded cannot be copied.
    _rich_table(("SNAPSHOT", "PATH"), [("817ee338", "/" + "long" * 40)], ())
    assert any("long" * 40 in line for line in capsys.readouterr().out.splitlines())
