"""Asking the person at the terminal, and what happens when there is none."""

import getpass
import io
import sys

import pytest

from pra_agent.cli import asking
from pra_agent.errors import RefusedError, SecretError


@pytest.fixture
def terminal(monkeypatch):
    """A terminal at which these answers are typed."""

    def type_in(*answers):
        monkeypatch.setattr(asking, "at_terminal", lambda: True)
        typed = iter(answers)
        monkeypatch.setattr(getpass, "getpass", lambda *_, **__: next(typed))
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{answer}\n" for answer in answers)))

    return type_in


def test_nobody_is_there():
    assert not asking.at_terminal()
    with pytest.raises(SecretError, match="no terminal"):
        asking.ask_secret("password")
    with pytest.raises(RefusedError, match="Nobody is there") as caught:
        asking.confirm("Really?", option="--force")
    assert "--force" in caught.value.advice


def test_a_new_secret_is_typed_twice(terminal):
    terminal("a", "a")
    assert asking.ask_new_secret("password") == "a"
    terminal("a", "b")
    with pytest.raises(SecretError, match="differ"):
        asking.ask_new_secret("password")


@pytest.mark.parametrize("answer", ["y", "YES", " yes "])
def test_yes(terminal, answer, capsys):
    terminal(answer)
    asking.confirm("Really?")
    assert capsys.readouterr().err == "Really? [y/N] "


@pytest.mark.parametrize("answer", ["", "n", "yess"])
def test_anything_else_is_no(terminal, answer):
    terminal(answer)
    with pytest.raises(RefusedError, match="nothing was changed"):
        asking.confirm("Really?")
