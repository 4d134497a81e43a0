"""JSON of the values that go over the socket, both ways; times are RFC 3339, durations seconds, sizes bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from pra_agent.control.protocol import error_of
from pra_agent.errors import PraError
from pra_agent.model.events import Event, FileFailed, Notice, Progress
from pra_agent.model.jobs import DaemonStatus, JobStatus
from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshot_json import decode_snapshot, encode_snapshot
from pra_agent.model.snapshots import Snapshot

_T = TypeVar("_T")

_EVENTS: Mapping[str, type[Progress | FileFailed | Notice]] = {
    "progress": Progress,
    "file_failed": FileFailed,
    "notice": Notice,
}


_ADAPTERS: dict[type[object], TypeAdapter[Any]] = {}


def adapter(kind: type[object]) -> TypeAdapter[Any]:
    """Build what turns this type into JSON and back; it is built once, at its first use."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter[Any](kind)
    return _ADAPTERS[kind]


def _read(kind: type[_T], data: object) -> _T:
    try:
        return cast("_T", adapter(kind).validate_python(data))
    except ValidationError as error:
        raise PraError(
            f"the daemon gave an answer that is not understood ({kind.__name__})",
            advice="Use the same version of pra-agent as the daemon's.",
        ) from error


def _json(kind: type[_T], value: _T) -> dict[str, Any]:
    return cast("dict[str, Any]", adapter(kind).dump_python(value, mode="json"))


def run_json(record: RunRecord) -> dict[str, Any]:
    """Turn a run record into JSON."""
    return _json(RunRecord, record)


def run_of(data: object) -> RunRecord:
    """Turn JSON back into a run record."""
    return _settled(_read(RunRecord, data))


def _settled(record: RunRecord) -> RunRecord:
    """Make a record equal to the one that was sent: JSON's lists are tuples there."""
    return replace(record, failures=tuple(record.failures))


def job_json(status: JobStatus) -> dict[str, Any]:
    """Turn a job's status into JSON."""
    return _json(JobStatus, status)


def job_of(data: object) -> JobStatus:
    """Turn JSON back into a job's status."""
    status = _read(JobStatus, data)
    fact = status.fact
    return replace(
        status,
        fact=replace(fact, destinations=tuple(fact.destinations), operations=tuple(fact.operations)),
        last_attempt=_settled(status.last_attempt) if status.last_attempt is not None else None,
        last_success=_settled(status.last_success) if status.last_success is not None else None,
    )


def status_json(status: DaemonStatus) -> dict[str, Any]:
    """Turn the daemon's status into JSON."""
    return _json(DaemonStatus, status)


def status_of(data: object) -> DaemonStatus:
    """Turn JSON back into the daemon's status."""
    return _read(DaemonStatus, data)


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """Turn a snapshot into JSON: as it is stored, with its id."""
    stored = cast("dict[str, Any]", orjson.loads(encode_snapshot(snapshot)))
    return {"id": snapshot.id, **stored}


def snapshot_of(data: object) -> Snapshot:
    """Turn JSON back into a snapshot."""
    stored = dict(cast("Mapping[str, Any]", data))
    identity = str(stored.pop("id", ""))
    return decode_snapshot(identity, orjson.dumps(stored))


# ---------------------------------------------------------------- events
def event_line(event: Event | RunRecord) -> bytes:
    """Write a line of the stream of events; a run record is the last one."""
    if isinstance(event, RunRecord):
        return orjson.dumps({"type": "run", "run": run_json(event)}) + b"\n"
    return orjson.dumps(asdict(event)) + b"\n"


def error_line(error: Mapping[str, object]) -> bytes:
    """Write the line that ends a stream early."""
    return orjson.dumps({"type": "error", **error}) + b"\n"


def event_of(line: bytes) -> Event | RunRecord | None:
    """Read a line: an event, at last the record; None for a line that says nothing new. Raises what an error tells."""
    try:
        fields = cast("dict[str, Any]", orjson.loads(line))
        kind = fields.pop("type")
        if kind == "run":
            return run_of(fields["run"])
        if kind == "error":
            raise error_of(fields)
        event = _EVENTS.get(kind)
        return event(**fields) if event is not None else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PraError("the daemon gave an event that is not understood") from error


def dumps(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Write JSON that is easy to read in a terminal."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
