"""Paths for people."""

import pytest

from pra_agent.model.printability import is_printable
from pra_agent.model.printable import printable


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"/srv/a b", "/srv/a b"),
        (b"/caf\xc3\xa9", "/café"),
        (b"/new\nline\x1b[31m", "/new\\nline\\x1b[31m"),
        (b"/\xff\xfe", "/\\xff\\xfe"),
        (b"/\xe2\x80\xa8", "/\\u2028"),
        (b"/\xe2\x80\x8b", "/\\u200b"),
    ],
)
def test_one_line_without_surprises(raw: bytes, text: str):
    assert printable(raw) == text


def test_what_go_calls_printable():
    assert all(is_printable(char) for char in " ~é漢😀\ufffd\U00031350")  # the last one since Unicode 15
    assert not any(is_printable(char) for char in "\0\x7f\xa0\xad\u200b\u2028\ue000\ufffe\U0002ebf0\U0010ffff")
