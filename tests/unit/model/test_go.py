"""Go's own answers: quoting, JSON strings and times, as Go 1.26 gave them (`go_vectors.json`)."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from pra_agent.model import gojson
from pra_agent.model.quoting import go_quote, go_unquote
from pra_agent.model.times import format_ns, parse_ns

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("go_vectors.json").read_text())


def test_quoting_and_strings():
    assert len(VECTORS["strings"]) > 300
    for encoded, quoted, quoted_json, raw_json in VECTORS["strings"]:
        raw = base64.b64decode(encoded)
        assert go_quote(raw) == quoted
        assert go_unquote(quoted) == raw
        assert gojson.dumps(quoted) == quoted_json.encode()
        assert gojson.dumps(gojson.lossy(raw)) == raw_json.encode()


def test_times():
    for ns, text in VECTORS["times"]:
        assert format_ns(ns) == text
        assert parse_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "\\",
        "\\q",
        "\\x4",
        "\\xg0",
        "\\u12",
        "\\ud800",
        "\\U00110000",
        "\\777",
        "\\12",
        '"',
        'a"b',
        '\\\\"',
        "a\nb",
        "\\'",
    ],
)
def test_what_go_refuses_to_unquote(text: str):
    with pytest.raises(ValueError, match="not a"):
        go_unquote(text)


def test_octal_and_escaped_quotes_are_understood():
    assert go_unquote('\\101\\\\\\"\\u00e9\\U0001f600') == 'A\\"é😀'.encode()


def test_dumps_refuses_what_json_lacks():
    with pytest.raises(TypeError):
        gojson.dumps({"a": object()})
    assert gojson.dumps({"b": [1, True, None], "a": {}}) == b'{"b":[1,true,null],"a":{}}'
