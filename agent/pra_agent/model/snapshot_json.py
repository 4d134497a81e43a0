"""A snapshot's JSON, with the keys in restic's order and empty values left out."""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from pra_agent.errors import DamagedError
from pra_agent.model import gojson
from pra_agent.model.ids import ID_BYTES
from pra_agent.model.snapshots import Snapshot
from pra_agent.model.times import format_time, parse_time

# fmt: off
_KNOWN = frozenset((
    "time", "parent", "tree", "paths", "hostname", "username", "uid", "gid", "excludes", "tags", "original",
    "program_version", "summary",
))
# fmt: on


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Encode a snapshot; its own id is not part of it."""
    json: dict[str, object] = {"time": format_time(snapshot.time, snapshot.nanoseconds)}
    if snapshot.parent:
        json["parent"] = snapshot.parent
    json["tree"] = snapshot.tree.hex()
    json["paths"] = [_text(path) for path in snapshot.paths]
    optional: dict[str, object] = {
        "hostname": _text(snapshot.hostname),
        "username": _text(snapshot.username),
        "uid": snapshot.uid,
        "gid": snapshot.gid,
        "excludes": [_text(pattern) for pattern in snapshot.excludes],
        "tags": list(snapshot.tags),
        "original": snapshot.original,
        "program_version": snapshot.program_version,
        "summary": dict(snapshot.summary),
    }
    json.update((key, value) for key, value in optional.items() if value)
    json.update(snapshot.extra)
    return gojson.dumps(json)


def _text(text: str) -> object:
    return gojson.lossy(text.encode("utf-8", "surrogateescape"))


def decode_snapshot(id: str, data: bytes) -> Snapshot:  # noqa: A002 - the name that the format gives it
    """Decode a snapshot that is stored under this hex id; raises DamagedError when it is none."""
    try:
        json = orjson.loads(data)
        time, nanoseconds = parse_time(json["time"])
        return Snapshot(
            time=time,
            nanoseconds=nanoseconds,
            tree=_tree_id(json["tree"]),
            paths=_strings(json, "paths"),
            hostname=_string(json, "hostname"),
            username=_string(json, "username"),
            uid=_number(json, "uid"),
            gid=_number(json, "gid"),
            excludes=_strings(json, "excludes"),
            tags=_strings(json, "tags"),
            parent=_string(json, "parent"),
            original=_string(json, "original"),
            program_version=_string(json, "program_version"),
            summary=_mapping(json, "summary"),
            id=id,
            extra={key: value for key, value in json.items() if key not in _KNOWN},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"snapshot {id[:8]} is not readable: {error}") from error


def _tree_id(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != ID_BYTES:
        raise ValueError(f"not an id: {text!r}")
    return raw


def _string(json: Mapping[str, Any], key: str) -> str:
    value = json.get(key) or ""
    if not isinstance(value, str):
        raise TypeError(f"{key} is not text")
    return value


def _strings(json: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values: object = json.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in cast("list[object]", values)):
        raise TypeError(f"{key} is not a list of texts")
    return tuple(cast("list[str]", values))


def _number(json: Mapping[str, Any], key: str) -> int:
    value = json.get(key) or 0
    if not isinstance(value, int):
        raise TypeError(f"{key} is not a number")
    return value


def _mapping(json: Mapping[str, Any], key: str) -> dict[str, object]:
    value: object = json.get(key) or {}
    if not isinstance(value, dict):
        raise TypeError(f"{key} is not an object")
    return cast("dict[str, object]", value)
