"""Which paths a restore is about."""

import pytest

from pra_agent.errors import UsageError
from pra_agent.restorer.selection import Selection, Verdict, above, split


@pytest.mark.parametrize(
    ("path", "normal"), [(b"/", b""), (b"", b""), (b"/srv/", b"/srv"), (b"//srv/./app", b"/srv/app"), (b"srv", b"/srv")]
)
def test_paths_have_one_form(path: bytes, normal: bytes):
    assert split(path) == normal


def test_what_lies_above():
    assert above([b"/srv/app/data", b"/etc"]) == {b"", b"/srv", b"/srv/app"}
    assert above([b"/srv", b"/srv/app"]) == {b""}
    assert above([]) == frozenset()


@pytest.mark.parametrize(
    ("path", "directory", "verdict"),
    [
        (b"/srv", True, Verdict.ABOVE),
        (b"/srv", False, Verdict.NO),
        (b"/srv/app", True, Verdict.YES),
        (b"/srv/other", True, Verdict.NO),
        (b"/etc", True, Verdict.NO),
    ],
)
def test_chosen_paths(path: bytes, directory: bool, verdict: Verdict):
    selection = Selection([b"/srv/app/"], (), ())
    assert selection.root() is Verdict.ABOVE
    assert selection.judge(path, directory=directory, within=False) is verdict


def test_within_a_chosen_path_patterns_decide():
    selection = Selection([b"/srv"], ["*.conf"], ["/srv/old/"])
    assert selection.chosen(b"/srv", within=False)
    assert not selection.chosen(b"/etc", within=False)
    assert selection.judge(b"/srv/a.conf", directory=False, within=True) is Verdict.YES
    assert selection.judge(b"/srv/a.txt", directory=False, within=True) is Verdict.NO
    assert selection.judge(b"/srv/sub", directory=True, within=True) is Verdict.ABOVE
    assert selection.judge(b"/srv/old", directory=True, within=True) is Verdict.NO
    assert selection.judge(b"/srv/caf\xe9.conf", directory=False, within=True) is Verdict.YES


def test_the_root_is_everything():
    assert Selection([b"/"], (), ()).everything
    assert Selection((), (), ()).root() is Verdict.YES
    assert not Selection((), ["a"], ()).everything


def test_a_pattern_that_is_none():
    with pytest.raises(UsageError, match="not a pattern"):
        Selection((), ["!"], ())
