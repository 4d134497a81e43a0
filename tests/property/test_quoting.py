"""Quoting is reversible for every name, and its result is what Go would read."""

from hypothesis import given
from hypothesis import strategies as st

from pra_agent.model.printability import is_printable
from pra_agent.model.quoting import go_quote, go_unquote

NAMES = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")))


@given(NAMES)
def test_unquoting_undoes_quoting(name: bytes):
    quoted = go_quote(name)
    assert go_unquote(quoted) == name
    assert all(is_printable(char) for char in quoted)


@given(st.text(max_size=30))
def test_unquoting_any_text_gives_bytes_or_says_why_not(text: str):
    try:
        raw = go_unquote(text)
    except ValueError:
        return
    assert go_unquote(go_quote(raw)) == raw
