"""Durations, sizes and rates as people write them (4h, 30d, 20GiB, 50MiB/s), and as pydantic types.

`Duration` is a timedelta, `Size` an int of bytes, `Rate` an int of bytes per second; all three are written back in
the same notation by a dump to JSON. The bottom of the house, so that every module's Settings can use it.
"""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[wdhms])")
_PREFIXES = "KMGTPE"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTPE]?)(i?)(B?)", re.IGNORECASE)

MAX_DURATION = timedelta(days=36500)


def parse_duration(text: str) -> timedelta:
    """Read "1h30m", "90m", "30d" ...; units are w d h m s ms. Raises ValueError."""
    compact = text.strip()
    pieces = _DURATION.findall(compact)
    if not pieces or _DURATION.sub("", compact).strip():
        raise ValueError(f"{text!r} is no duration; write it like 30s, 90m, 4h, 1h30m or 30d")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in pieces)
    if seconds > MAX_DURATION.total_seconds():
        raise ValueError(f"{text!r} is longer than a hundred years")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it back; at most milliseconds."""
    rest = round(value.total_seconds() * 1000)
    if rest <= 0:
        return "0s"
    parts: list[str] = []
    for unit, milliseconds in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, milliseconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Read "20GiB", "500MB", "64K" (= KiB) or plain bytes. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write it like 500MiB or 20GiB")
    number, prefix, binary, byte = found.groups()
    decimal = byte and not binary
    power = _PREFIXES.index(prefix.upper()) + 1 if prefix else 0
    return int(float(number) * (1000 if decimal else 1024) ** power)


def format_size(value: int) -> str:
    """Write a size with the largest binary unit that divides it, so that nothing is lost."""
    for power in range(len(_PREFIXES), 0, -1):
        if value and value % 1024**power == 0:
            return f"{value // 1024**power}{_PREFIXES[power - 1]}iB"
    return f"{value}B"


def human_size(value: float) -> str:
    """Write a size for people, three digits or so."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def parse_rate(text: str) -> int:
    """Read "50MiB/s" (the "/s" may be left out); bytes per second. Raises ValueError."""
    try:
        rate = parse_size(text.strip().removesuffix("/s"))
    except ValueError:
        raise ValueError(f"{text!r} is no rate; write it like 50MiB/s") from None
    if rate < 1:
        raise ValueError("a rate of 0 would never end; leave the key out for no limit")
    return rate


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration needs a unit; write it like 30s, 90m, 4h or 30d")


def _size(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        return parse_size(value)
    raise ValueError("no size; write it like 500MiB or 20GiB")


def _rate(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        return parse_rate(value)
    raise ValueError("no rate; write it like 50MiB/s")


def _format_rate(value: int) -> str:
    return f"{format_size(value)}/s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|[wdhms]))+$", "examples": ["90m", "4h", "30d"]}),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["500MiB", "20GiB"]}),
]
Rate = Annotated[
    int,
    BeforeValidator(_rate),
    PlainSerializer(_format_rate, return_type=str, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["50MiB/s"]}),
]
