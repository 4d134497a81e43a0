"""Options on either side of the verb, and what is not touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.cli.options import arrange

VERBS = frozenset({"backup", "restore", "config", "find"})


@pytest.mark.parametrize(
    ("words", "arranged", "verb"),
    [
        (["backup", "--json"], ["--json", "backup"], "backup"),
        (["--json", "backup"], ["--json", "backup"], "backup"),
        (["backup", "app", "-c", "x.yaml", "--full"], ["-c", "x.yaml", "backup", "app", "--full"], "backup"),
        (["backup", "--config=x.yaml"], ["--config=x.yaml", "backup"], "backup"),
        (["--full", "backup", "app"], ["backup", "--full", "app"], "backup"),
        (["--target", "/x", "restore", "app", "--direct"], ["--direct", "restore", "--target", "/x", "app"], "restore"),
        (["config", "check", "--debug"], ["--debug", "config", "check"], "config"),
        (["find", "--", "--json"], ["find", "--", "--json"], "find"),
        (["find", "restore"], ["find", "restore"], "find"),
        (["--help"], ["--help"], ""),
        (["nonsense", "--json"], ["--json", "nonsense"], ""),
        (["backup", "-c"], ["-c", "backup"], "backup"),
        ([], [], ""),
    ],
)
def test_arranged(words, arranged, verb):
    assert arrange(words, VERBS) == (arranged, verb)


@given(st.lists(st.sampled_from(["backup", "app", "--json", "-c", "f", "--", "--full", "--config=x", "-q"])))
def test_no_word_is_lost(words):
    arranged, _ = arrange(words, VERBS)
    assert sorted(arranged) == sorted(words)
    if "--" in words:
        tail = words[words.index("--") :]
        if words.index("--") == 0 or words[words.index("--") - 1] != "-c":
            assert arranged[-len(tail) :] == tail
