"""Writes docs/openapi.json from the table of routes: `python -m pra_agent.control.openapi > docs/openapi.json`."""

import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from pra_agent.control.protocol import EVENTS_TYPE, HANDLES_TYPE, JSON_TYPE
from pra_agent.control.routes import ROUTES, Options, Parameter, Route
from pra_agent.model.events import FileFailed, Notice, Progress
from pra_agent.model.jobs import DaemonStatus, JobStatus
from pra_agent.model.runs import RunRecord

_REF: Final = "#/components/schemas/{model}"
_STRING: Final[Mapping[str, Any]] = {"type": "string"}
_HEX: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_BY_HAND: Final[Mapping[str, Mapping[str, Any]]] = {
    "Error": {
        "type": "object",
        "description": "An error as the command line shows it.",
        "required": ["error", "kind", "exit_code", "advice"],
        "properties": {
            "error": {**_STRING, "description": "What is wrong, and where: one line."},
            "kind": {**_STRING, "description": "Its class, which a program may rely on."},
            "exit_code": {"type": "integer"},
            "advice": {**_STRING, "description": "What to do: one sentence."},
        },
    },
    "Started": {
        "type": "object",
        "description": "The run that was started, or that goes on or waits already.",
        "required": ["run"],
        "properties": {"run": _STRING},
    },
    "Restore": {
        "type": "object",
        "description": "A restore session; it ends after `lease_seconds` without use.",
        "required": ["restore", "lease_seconds"],
        "properties": {"restore": _STRING, "lease_seconds": {"type": "number"}},
    },
    "Snapshot": {
        "type": "object",
        "description": "A snapshot as it is stored in the repository (restic's format), with its id.",
        "required": ["id", "time", "tree", "paths"],
        "properties": {
            "id": _HEX,
            "time": {"type": "string", "format": "date-time"},
            "tree": _HEX,
            "paths": {"type": "array", "items": _STRING},
            "hostname": _STRING,
            "tags": {"type": "array", "items": _STRING},
        },
    },
    "Tree": {
        "type": "object",
        "description": "A directory's listing as it is stored in the repository (restic's format).",
        "required": ["nodes"],
        "properties": {"nodes": {"type": "array", "items": {"type": "object"}}},
    },
    "Handles": {
        "type": "array",
        "description": "Blobs by type and id; for /v1/trees the ids alone.",
        "items": {
            "oneOf": [_HEX, {"type": "array", "prefixItems": [{"enum": ["data", "tree"]}, _HEX], "items": False}]
        },
    },
}


def document() -> dict[str, Any]:
    """Build the document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pra-agent control socket",
            "version": "1",
            "description": "HTTP/1.1 over a Unix socket. See socket.md; written from the server's own table of routes.",
        },
        "servers": [{"url": "http://localhost", "description": "The Unix socket, /run/pra-agent/control.sock."}],
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def render() -> str:
    """Write the document as JSON."""
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"For root and the groups of: {', '.join(sorted(route.roles))}."
        if route.roles
        else "For root only.",
        "parameters": [_parameter(parameter) for parameter in route.parameters],
        "responses": {
            str(route.status): _answer(route),
            "default": {
                "description": "An error.",
                "content": {JSON_TYPE: {"schema": _ref("Error")}},
            },
        },
    }
    if any(parameter.name == "wait" for parameter in route.parameters):
        operation["responses"]["200"] = {
            "description": "With ?wait: the run's events, at last its record.",
            "content": {EVENTS_TYPE: {"schema": _ref("Event")}},
        }
    if route.handles:
        handles = {HANDLES_TYPE: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"content": {**handles, JSON_TYPE: {"schema": _ref("Handles")}}}
    if route.body is not None:
        operation["requestBody"] = {"content": {JSON_TYPE: {"schema": _ref(route.body.__name__)}}}
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.status == 204:
        return {"description": "Done."}
    if route.content not in (JSON_TYPE, EVENTS_TYPE):
        schema: dict[str, Any] = {"type": "string", "format": "binary"}
    elif route.many:
        schema = {"type": "array", "items": _ref(route.answer)}
    else:
        schema = _ref(route.answer)
    return {"description": route.summary, "content": {route.content: {"schema": schema}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.place == "path",
        "schema": {"type": "string"} if parameter.flag else {"type": "string", "pattern": parameter.pattern},
    }
    if parameter.flag:
        told["allowEmptyValue"] = True
    return told


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _schemas() -> dict[str, Any]:
    kinds: tuple[type[object], ...] = (DaemonStatus, JobStatus, RunRecord, Progress, FileFailed, Notice)
    _, values = TypeAdapter.json_schemas(
        [(kind.__name__, "serialization", TypeAdapter[Any](kind)) for kind in kinds], ref_template=_REF
    )
    bodies: list[type[Options]] = list(dict.fromkeys(route.body for route in ROUTES if route.body is not None))
    _, options = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF)
    last = {"type": "object", "properties": {"type": {"const": "run"}, "run": _ref("RunRecord")}}
    ping = {"type": "object", "properties": {"type": {"const": "ping"}}}
    error = {"allOf": [_ref("Error"), {"type": "object", "properties": {"type": {"const": "error"}}}]}
    events = [_ref("Progress"), _ref("FileFailed"), _ref("Notice"), ping, last, error]
    named = {**values.get("$defs", {}), **options.get("$defs", {}), **_BY_HAND, "Event": {"oneOf": events}}
    return dict(sorted(named.items()))


if __name__ == "__main__":
    sys.stdout.write(render())
