"""From words to an exit code: overview, unknown things, defects, completion."""

import json
import os
import sys

import pytest

from pra_agent import __version__
from pra_agent.cli import app, main
from pra_agent.cli.app import run
from pra_agent.cli.verb_table import VERBS


def ended(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_the_overview_names_every_verb(capsys):
    assert ended("--help") == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert ended() == 2


def test_the_version(capsys):
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"pra-agent {__version__}\n"


def test_the_overview_needs_nothing_slow():
    code = "import sys; from pra_agent.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    slow = {"typer", "rich", "pydantic", "numpy", "boto3", "aiohttp"}
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"{code}assert not {slow} & sys.modules.keys()"],
        {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    assert run([verb, "--help"]) == 0
    assert f"Usage: pra-agent {verb}" in capsys.readouterr().out


def test_a_defect_is_a_line(monkeypatch, capsys):
    def broken(_verb, *, completing):
        raise ZeroDivisionError(f"oh {completing}")

    monkeypatch.setattr(app, "build", broken)
    assert run(["status"]) == 1
    err = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: oh False" in err
    assert "Traceback" not in err
    assert run(["status", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert run(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["exit_code"] == 1


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt, 130), (FileNotFoundError(2, "No such file", "/x"), 1), (SystemExit(5), 5)],
)
def test_other_ends(monkeypatch, capsys, raised, code):
    def broken(_verb, *, completing):
        raise raised

    monkeypatch.setattr(app, "build", broken)
    assert run(["status"]) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [("pra-agent sta", "status"), ("pra-agent config sh", "show"), ("pra-agent restore --in-p", "--in-place")],
)
def test_completion(monkeypatch, capsys, words, offered):
    monkeypatch.setenv("_PRA_AGENT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert run([]) == 0
    assert offered in capsys.readouterr().out.split()


def test_completion_of_jobs(monkeypatch, capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "node: n\nrepository: {url: /r, password: {env: X}}\n"
        "jobs: {app: {source: {type: files, paths: [/a]}}, db: {source: {type: files, paths: [/b]}}}\n"
    )
    monkeypatch.setenv("PRA_AGENT_CONFIG", str(config))
    monkeypatch.setenv("_PRA_AGENT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "pra-agent backup a")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run([]) == 0
    assert capsys.readouterr().out.split() == ["app"]
