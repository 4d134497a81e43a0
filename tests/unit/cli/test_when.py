"""Moments as people write them."""

from datetime import UTC, datetime

import pytest

from pra_agent.cli.when import parse_when

NOW = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29", "2026-11-29T23:59:59.999999+00:00"),
        ("2026-11-29 14:05", "2026-11-29T14:05:00+00:00"),
        ("2026-11-29T14:05:30+01:00", "2026-11-29T13:05:30+00:00"),
        ("2026-11-29T14:05:30Z", "2026-11-29T14:05:30+00:00"),
        ("3h ago", "2026-11-30T06:00:00+00:00"),
        (" 1d12h ago ", "2026-11-28T21:00:00+00:00"),
    ],
)
def test_read(text, moment):
    assert parse_when(text, NOW).isoformat() == moment


@pytest.mark.parametrize("text", ["", "yesterday", "3h", "ago", "2026-13-01", "soon ago"])
def test_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_when(text, NOW)
