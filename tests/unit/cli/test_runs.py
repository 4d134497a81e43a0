"""Exit codes of runs, and their lines."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.cli.output import Output
from pra_agent.cli.runs import describe, exit_code, show_runs
from pra_agent.model.runs import Failure, Operation, Outcome, RunRecord

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(outcome: Outcome | None, code: int = 0, **more: object) -> RunRecord:
    fields: dict[str, object] = {"finished": START + timedelta(seconds=2), "snapshot": "ab" * 32, **more}
    return RunRecord("r", Operation.BACKUP, "app", START, outcome=outcome, detail={"exit_code": code}, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ([], 0),
        ([run(Outcome.SUCCESS)], 0),
        ([run(Outcome.SUCCESS), run(Outcome.PARTIAL)], 3),
        ([run(Outcome.SUSPECT)], 3),
        ([run(Outcome.PARTIAL), run(Outcome.FAILED)], 1),
        ([run(Outcome.FAILED, 11)], 11),
        ([run(Outcome.FAILED, 11), run(Outcome.FAILED, 12)], 1),
        ([run(None)], 1),
    ],
)
def test_exit_codes(runs, code):
    assert exit_code(runs) == code


def test_a_line():
    record = run(Outcome.PARTIAL, files=1200, bytes=3 << 20, bytes_added=1 << 20, bytes_stored=1 << 19, files_failed=2)
    assert describe(record) == (
        "backup app: partial, snapshot abababab, 1,200 files, 3.0 MiB (1.0 MiB new, 512.0 KiB stored), "
        "2 files failed, 2.0s"
    )
    assert describe(run(Outcome.FAILED, snapshot="", error="no\nway")) == "backup app: failed, 2.0s, no\\nway"


def test_failures_and_what_to_do_about_a_suspect(capsys):
    failures = [Failure(f"/{n}", "why") for n in range(30)]
    show_runs(Output(), [run(Outcome.SUSPECT, failures=failures)])
    out = capsys.readouterr().out
    assert "  /19: why\n  and 10 more" in out
    assert "pra-agent accept app" in out


def test_what_to_do_about_a_failure(capsys):
    failed = run(Outcome.FAILED, error="no room")
    show_runs(Output(), [replace(failed, detail={"advice": "Free some room."})])
    assert capsys.readouterr().out.endswith("no room\n  Free some room.\n")
