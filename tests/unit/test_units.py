"""Durations, sizes and rates: both ways, and what is refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pra_agent.units import (
    Duration,
    Rate,
    Size,
    format_duration,
    format_size,
    human_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("4h", 14400), ("30d", 2592000), ("1h30m", 5400), ("2w", 1209600), ("1.5h", 5400), ("250ms", 0.25)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "4", "h", "4 hours", "-1h", "4h-", "1y", "99999999d"])
def test_no_durations(text):
    with pytest.raises(ValueError, match=r"no duration|longer"):
        parse_duration(text)


@given(st.integers(0, 10**11))
def test_durations_come_back(milliseconds):
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GiB", 20 << 30), ("64K", 65536), ("500MB", 500_000_000), ("1.5 MiB", 3 << 19), ("42", 42), ("42B", 42)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "5XB", "1 2"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


@given(st.integers(0, 1 << 62))
def test_sizes_come_back(size):
    assert parse_size(format_size(size)) == size


def test_rates():
    assert parse_rate("50MiB/s") == parse_rate("50MiB") == 50 << 20
    with pytest.raises(ValueError, match="no rate"):
        parse_rate("50 apples/s")
    with pytest.raises(ValueError, match="no limit"):
        parse_rate("0")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 50, "5.0 PiB")])
def test_for_people(size, text):
    assert human_size(size) == text


class Everything(BaseModel):
    wait: Duration
    room: Size
    speed: Rate


def test_as_fields_of_a_model():
    model = Everything.model_validate({"wait": "90m", "room": "1GiB", "speed": "2MiB/s"})
    assert model.model_dump(mode="json") == {"wait": "1h30m", "room": "1GiB", "speed": "2MiB/s"}
    assert Everything.model_validate(model.model_dump(mode="json")) == model
    assert Everything.model_validate(model.model_dump()) == model
    assert Everything.model_json_schema()["properties"]["wait"]["type"] == "string"


@pytest.mark.parametrize(
    ("field", "value"),
    [("wait", 5), ("wait", "soon"), ("room", -1), ("room", True), ("room", [1]), ("speed", 0), ("speed", 1.5)],
)
def test_wrong_fields(field, value):
    good = {"wait": "1s", "room": "1B", "speed": "1B/s"}
    with pytest.raises(ValidationError):
        Everything.model_validate({**good, field: value})
