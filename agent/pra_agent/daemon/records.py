"""Run records as JSON and back: one line of the child's protocol, one row of the journal."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from pra_agent.model.runs import Failure, Operation, Outcome, RunRecord

#: More failures than this are counted but not kept by name.
MAX_FAILURES = 1000

_TIMES = ("started", "finished", "data_instant")
_TEXTS = ("id", "job", "snapshot", "destination", "error")
_NUMBERS = (
    "files",
    "files_new",
    "files_changed",
    "files_unmodified",
    "files_failed",
    "bytes",
    "bytes_added",
    "bytes_stored",
)
_FLAGS = ("off_host", "full")


def to_json(record: RunRecord) -> dict[str, object]:
    """Give every field of the record in plain JSON types; times in RFC 3339, at most `MAX_FAILURES` failures."""
    data: dict[str, object] = {
        "operation": record.operation.value,
        "outcome": record.outcome.value if record.outcome is not None else None,
        "failures": [{"path": f.path, "reason": f.reason} for f in record.failures[:MAX_FAILURES]],
        "stages": dict(record.stages),
        "detail": dict(record.detail),
    }
    for name in (*_TEXTS, *_NUMBERS, *_FLAGS):
        data[name] = getattr(record, name)
    for name in _TIMES:
        value = cast("datetime | None", getattr(record, name))
        data[name] = value.astimezone(UTC).isoformat() if value is not None else None
    return data


def from_json(data: Mapping[str, object]) -> RunRecord:
    """Make a record of what `to_json` gave; fields that are missing take their defaults.

    Raises KeyError or ValueError when it is not a record.
    """
    outcome = data.get("outcome")
    failures = cast("Sequence[Mapping[str, str]]", data.get("failures") or ())
    stages = cast("Mapping[str, float]", data.get("stages") or {})
    texts = {name: str(data.get(name) or "") for name in _TEXTS}
    numbers = {name: int(cast("int", data.get(name) or 0)) for name in _NUMBERS}
    started = _time(data["started"])
    if started is None:
        message = "a run record has no start"
        raise ValueError(message)
    return RunRecord(
        id=texts["id"],
        operation=Operation(cast("str", data["operation"])),
        job=texts["job"],
        started=started,
        finished=_time(data.get("finished")),
        outcome=Outcome(cast("str", outcome)) if outcome is not None else None,
        snapshot=texts["snapshot"],
        data_instant=_time(data.get("data_instant")),
        destination=texts["destination"],
        off_host=bool(data.get("off_host")),
        files=numbers["files"],
        files_new=numbers["files_new"],
        files_changed=numbers["files_changed"],
        files_unmodified=numbers["files_unmodified"],
        files_failed=numbers["files_failed"],
        bytes=numbers["bytes"],
        bytes_added=numbers["bytes_added"],
        bytes_stored=numbers["bytes_stored"],
        error=texts["error"],
        failures=tuple(Failure(str(f["path"]), str(f["reason"])) for f in failures),
        stages={str(name): float(seconds) for name, seconds in stages.items()},
        full=bool(data.get("full")),
        detail=dict(cast("Mapping[str, object]", data.get("detail") or {})),
    )


def dumps(record: RunRecord) -> str:
    """One line of JSON."""
    return json.dumps(to_json(record), separators=(",", ":"), default=str)


def loads(line: str) -> RunRecord:
    """Read what `dumps` wrote; raises KeyError or ValueError."""
    return from_json(cast("Mapping[str, object]", json.loads(line)))


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(cast("str", value)) if value is not None else None
