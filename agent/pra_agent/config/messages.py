"""What pydantic says, in one line for the operator: file and line, key, what is wrong, and what was meant."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pra_agent.config.places import Document, KeyPath, Problem, dotted

_Schema = Mapping[str, object]

_WORDS = {
    "missing": "is missing",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "model_type": "must be a mapping",
    "path_type": "must be a path",
}


def explain(error: ValidationError, model: type[BaseModel], document: Document, at: KeyPath = ()) -> Iterator[Problem]:
    """Yield a problem for each wrong key of a model that was built from the part of the document below `at`.

    A value that no member of a union takes has an error for each of them; the first one is told.
    """
    told: set[str] = set()
    for detail in error.errors(include_url=False, include_context=True):
        problem = _explain(detail, model, document, at)
        if problem.key not in told:
            told.add(problem.key)
            yield problem


def _explain(detail: ErrorDetails, model: type[BaseModel], document: Document, at: KeyPath) -> Problem:
    location = detail["loc"]
    path = _written_path(document.data, (*at, *location), at, missing=detail["type"] == "missing")
    kind = detail["type"]
    if kind == "extra_forbidden":
        name = str(location[-1])
        known = known_keys(model, location[:-1])
        return Problem(document.place(path), dotted(path), "unknown key", _did_you_mean(name, known))
    if kind in ("union_tag_invalid", "literal_error"):
        return _choice(detail, path, document)
    if kind == "union_tag_not_found":
        return Problem(document.place(path), dotted(path), "has no type", "write the kind of source: type: files")
    what = _WORDS.get(kind)
    if what is None:
        what = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        what = what[:1].lower() + what[1:] if what[:1].isupper() and not what[1:2].isupper() else what
    what, _, suggestion = what.partition("; ")
    return Problem(document.place(path), dotted(path), what, suggestion)


def _choice(detail: ErrorDetails, path: KeyPath, document: Document) -> Problem:
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        path = (*path, str(context.get("discriminator", "type")).strip("'"))
        written, expected = str(context.get("tag", "")), str(context.get("expected_tags", ""))
    else:
        written, expected = str(detail["input"]), str(context.get("expected", ""))
    choices = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    what = f"{written!r} is none of {', '.join(choices)}"
    close = get_close_matches(written, choices, n=1)
    return Problem(document.place(path), dotted(path), what, f"did you mean {close[0]}?" if close else "")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(sorted(known))}" if known and len(known) <= 30 else ""


def _written_path(data: object, location: tuple[str | int, ...], at: KeyPath, *, missing: bool) -> KeyPath:
    """The path as the file has it: pydantic's location also names members of unions and validators."""
    path: list[str | int] = []
    here: object = data
    for n, part in enumerate(location):
        last = n == len(location) - 1
        if isinstance(here, Mapping):
            mapping = cast("Mapping[str, object]", here)
            if part in mapping:
                here = mapping[str(part)]
                path.append(part)
                continue
            if n < len(at) or (last and missing):
                path.append(part)
            continue
        if isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int):
            items = cast("Sequence[object]", here)
            here = items[part] if part < len(items) else None
            path.append(part)
    return tuple(path)


@cache
def _schema(model: type[BaseModel]) -> _Schema:
    return model.model_json_schema()


def known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that a model takes at a location, by its JSON Schema."""
    root = _schema(model)
    nodes = _expand([root], root)
    for part in location:
        below = _expand(list(_descend(nodes, part, root)), root)
        nodes = below or nodes
    keys: set[str] = set()
    for node in nodes:
        keys.update(_mapping(node.get("properties")))
    return sorted(keys)


def _descend(nodes: Sequence[_Schema], part: str | int, root: _Schema) -> Iterator[_Schema]:
    for node in nodes:
        properties = _mapping(node.get("properties"))
        tagged = _mapping(_mapping(node.get("discriminator")).get("mapping"))
        other = node.get("additionalProperties")
        if isinstance(part, int):
            if isinstance(node.get("items"), Mapping):
                yield _mapping(node["items"])
        elif part in properties:
            yield _mapping(properties[part])
        elif part in tagged:
            yield _reference(str(tagged[part]), root)
        elif isinstance(other, Mapping):
            yield cast("_Schema", other)


def _expand(nodes: Sequence[_Schema], root: _Schema) -> list[_Schema]:
    expanded: list[_Schema] = []
    for node in nodes:
        expanded.append(node)
        if "$ref" in node:
            expanded += _expand([_reference(str(node["$ref"]), root)], root)
        if "discriminator" not in node:  # a union by tag is entered by its tag alone
            for word in ("anyOf", "oneOf", "allOf"):
                members = node.get(word)
                if isinstance(members, list):
                    expanded += _expand(cast("list[_Schema]", members), root)
    return expanded


def _reference(ref: str, root: _Schema) -> _Schema:
    return _mapping(_mapping(root.get("$defs")).get(ref.rpartition("/")[2]))


def _mapping(value: object) -> _Schema:
    return cast("_Schema", value) if isinstance(value, Mapping) else {}
