"""Go's JSON is JSON: any reader gets the value back, and nothing in it can end a script or a line."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pra_agent.model import gojson
from pra_agent.model.times import SECOND, format_ns, parse_ns

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_any_reader_gets_the_value_back(value: object):
    data = gojson.dumps(value)
    assert json.loads(data) == value
    assert not {"<", ">", "&", "\u2028", "\u2029", "\n"} & set(data.decode())


@given(st.binary(max_size=40))
def test_a_lossy_string_is_what_go_reads(raw: bytes):
    assert json.loads(gojson.dumps(gojson.lossy(raw))) == "".join(
        "\ufffd" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in raw.decode("utf-8", "surrogateescape")
    )


@given(st.integers(-62_167_219_200 * SECOND, 253_402_300_800 * SECOND - 1))
def test_times_round_trip(ns: int):
    assert parse_ns(format_ns(ns)) == ns


@given(st.integers(-(2**70), 2**70))
def test_every_time_can_be_said(ns: int):
    assert format_ns(parse_ns(format_ns(ns))) == format_ns(ns)
