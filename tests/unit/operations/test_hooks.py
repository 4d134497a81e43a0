"""Hooks run in their order, and what they do to a run."""

import pytest

from pra_agent.errors import CommandError, SourceError
from pra_agent.model.events import Event, Notice
from pra_agent.operations.hooks import Hooks, around


def _hook(path, text: str) -> dict[str, object]:
    return {"command": ["sh", "-c", f'echo "{text} $PRA_JOB $PRA_OUTCOME $PRA_ERROR" >>"$0"', str(path)]}


def _lines(path):
    return [" ".join(line.split()) for line in path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def hooks(log):
    return Hooks.model_validate(
        {
            "before": [_hook(log, "before")],
            "after": [_hook(log, "after")],
            "on_failure": [_hook(log, "failure")],
        }
    )


def test_a_good_run(hooks, log):
    with around(hooks, job="j", run="r"):
        log.write_text(log.read_text() + "run\n")
    assert _lines(log) == ["before j", "run", "after j success"]


def test_a_failed_run(hooks, log):
    with pytest.raises(SourceError), around(hooks, job="j", run="r"):
        raise SourceError("no luck")
    assert _lines(log) == ["before j", "failure j failed no luck", "after j failed no luck"]


def test_before_that_fails_is_the_runs_failure(log):
    failing = Hooks.model_validate(
        {"before": [{"command": ["sh", "-c", "echo why >&2; exit 3"]}], "after": [_hook(log, "after")]}
    )
    ran = False
    with pytest.raises(CommandError, match=r"hook before: .*why"), around(failing, job="j", run="r"):
        ran = True
    assert not ran
    assert _lines(log)[0].startswith("after j failed hook before")


def test_after_that_fails_or_hangs_is_told_only():
    told: list[Event] = []
    failing = Hooks.model_validate(
        {"after": [{"command": ["sleep", "60"], "timeout": "200ms"}, {"command": ["no-such-program"]}]}
    )
    with around(failing, job="j", run="r", report=told.append):
        pass
    assert [
        ("took longer" in one.message or "cannot be started" in one.message) for one in told if isinstance(one, Notice)
    ] == [True, True]


def test_output_is_told():
    told: list[Event] = []
    with around(
        Hooks.model_validate({"before": [{"command": ["echo", "hello"]}]}), job="j", run="r", report=told.append
    ):
        pass
    assert [one.message for one in told if isinstance(one, Notice)] == ["hook before echo: hello"]


def test_no_shell_sees_what_a_hook_says(tmp_path):
    told: list[Event] = []
    said = f"a; touch {tmp_path}/x $(touch {tmp_path}/x) `touch {tmp_path}/x` | tee {tmp_path}/x"
    hooks = Hooks.model_validate({"before": [{"command": ["printf", "%s", said]}]})
    with around(hooks, job="a; rm -rf /", run="../r", report=told.append):
        pass
    assert list(tmp_path.iterdir()) == []
    assert [one.message for one in told if isinstance(one, Notice)] == [f"hook before printf: {said}"]
