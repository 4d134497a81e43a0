"""Writes docs/configuration.md from the models: `python -m pra_agent.config.reference > docs/configuration.md`."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import cast

from pra_agent.config.schema import config_schema

_Schema = Mapping[str, object]

_HEAD = """# Configuration

Written from the models by `python -m pra_agent.config.reference`; do not edit.

`/etc/pra-agent/config.yaml`, then every `conf.d/*.yaml` beside it, by name. `--config FILE` (or `PRA_AGENT_CONFIG`)
names another main file. The files are merged: sections that are mappings key by key, the list of `copies` one after
another. A job or a setting that two files define is an error that names both places. `packaging/config.yaml` is a
commented example to start from.

```sh
pra-agent config check    # everything that is wrong, at once: file, line, key, suggestion; exit code 2
pra-agent config show     # what takes effect, all files and defaults merged
pra-agent config schema   # the JSON Schema, for editors
systemctl reload pra-agent
```

The daemon refuses a bad configuration at a reload and goes on with the one before; `pra-agent status` says so.

## How values are written

- **Durations**: `90s`, `30m`, `4h`, `1h30m`, `30d`, `2w`. A number without a unit is refused.
- **Sizes**: `500MiB`, `20GiB` (powers of 1024), `500MB` (powers of 1000). **Rates**: `50MiB/s`.
- **Schedules**: a cron expression of five fields (`"0 * * * *"`, `"30 2 * * sun"`, `"@daily"`), an interval
  (`{every: 90m}`), or a cron expression with a zone (`{cron: "0 6 * * *", timezone: Europe/Paris}`). Cron is in the
  configuration's `timezone`, UTC unless that is set; 0 and 7 are Sunday; when both day fields are restricted, either
  will do. When clocks change, an hour that is skipped fires after the gap, and an hour that comes twice fires once
  unless the hour field is a wildcard. `null`: no schedule.
- **Secrets** are never written here, only where they are:
  - `{credential: NAME}`: a systemd credential of the unit. For `--direct` it is found in the file that the unit loads
    it from (`LoadCredential=` of pra-agent.service and its drop-ins, then the credential stores), or asked for on a
    terminal.
  - `{file: PATH}`: a file that only its owner can read (`allow_readable: true` accepts others, too).
  - `{env: NAME}`: an environment variable.
  - `{kms: {ciphertext_file: PATH, region: eu-west-3}}`: unwrapped by AWS KMS.

## What a check refuses

Unknown keys, values that cannot be, jobs that are defined twice, an unknown time zone; a schedule whose largest gap +
jitter is more than the job's RPO; paths that do not exist; secrets that cannot be read; a configuration file or
directory that others than root can write (a warning when it is not root who checks); two copies at one place.
"""


def render() -> str:
    """Write the whole document."""
    schema = config_schema()
    defs = cast("Mapping[str, _Schema]", schema.get("$defs", {}))
    return _HEAD + "".join(_sections("", schema, defs, {}))


def _sections(path: str, schema: _Schema, defs: Mapping[str, _Schema], seen: dict[int, str]) -> Iterator[str]:
    """Yield the section of an object, then those of the objects in it; each object is described once."""
    if id(schema) in seen:
        yield f"\n## `{path}`\n\nAs `{seen[id(schema)]}`.\n"
        return
    seen[id(schema)] = path
    properties = cast("Mapping[str, _Schema]", schema.get("properties", {}))
    required = cast("list[str]", schema.get("required", []))
    description = str(schema.get("description", "")).partition("\n")[0]
    title = f"`{path}`" if path else "Top level"
    rows = "".join(_row(name, one, defs, required=name in required) for name, one in properties.items())
    yield f"\n## {title}\n\n{description}\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n{rows}"
    for name, one in properties.items():
        for below, suffix in _objects(one, defs):
            yield from _sections(f"{path}.{name}{suffix}" if path else f"{name}{suffix}", below, defs, seen)


def _objects(schema: _Schema, defs: Mapping[str, _Schema]) -> Iterator[tuple[_Schema, str]]:
    """Yield the objects that a value can be, and how their path goes on."""
    if "discriminator" in schema:
        tagged = cast("Mapping[str, str]", cast("_Schema", schema["discriminator"])["mapping"])
        for tag, ref in tagged.items():
            yield defs[ref.rpartition("/")[2]], f" (type: {tag})"
    elif "$ref" in schema:
        target = defs[str(schema["$ref"]).rpartition("/")[2]]
        if "properties" in target and target.get("title") != "SecretRef":
            yield target, ""
    elif isinstance(schema.get("additionalProperties"), Mapping):
        yield from ((one, ".NAME") for one, _ in _objects(cast("_Schema", schema["additionalProperties"]), defs))
    elif isinstance(schema.get("items"), Mapping):
        yield from ((one, "[]") for one, _ in _objects(cast("_Schema", schema["items"]), defs))
    else:
        for member in cast("list[_Schema]", schema.get("anyOf", [])):
            yield from _objects(member, defs)


def _row(name: str, schema: _Schema, defs: Mapping[str, _Schema], *, required: bool) -> str:
    default = "required" if required else _default(schema.get("default"))
    meaning = str(schema.get("description") or _described(schema, defs)).partition("\n")[0]
    examples = cast("list[object]", schema.get("examples", []))
    if examples and "duration" not in (kind := _type(schema, defs)) and kind != "size":
        meaning = f"{meaning} Like {' or '.join(f'`{one}`' for one in examples)}.".strip()
    cells = (f"`{name}`", _type(schema, defs), default, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _described(schema: _Schema, defs: Mapping[str, _Schema]) -> str:
    """What the members of a union, or the object that a key holds, say of themselves."""
    members = cast("list[_Schema]", schema.get("anyOf", []))
    told = next((str(one["description"]) for one in members if "description" in one), "")
    return told or next((str(one.get("description", "")) for one, _ in _objects(schema, defs)), "")


def _default(value: object) -> str:
    if value is None or isinstance(value, (dict, list)):
        flow = _flow(cast("object", value)) if value else ""
        return f"`{flow}`" if 0 < len(flow) <= _SHORT else ""
    return f"`{json.dumps(value)}`" if not isinstance(value, str) or not value else f"`{value}`"


def _flow(value: object) -> str:
    """Show an object without its empty parts."""
    if isinstance(value, dict):
        plain = cast("dict[str, object]", value)
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in plain.items() if item not in _EMPTY) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in cast('list[object]', value))}]"
    return str(value) if not isinstance(value, bool) else json.dumps(value)


#: A longer default of a mapping is told by its own section.
_SHORT = 70
_EMPTY: tuple[object, ...] = (None, "", 0, [], {}, False)


def _type(schema: _Schema, defs: Mapping[str, _Schema]) -> str:
    if "$ref" in schema:
        target = defs[str(schema["$ref"]).rpartition("/")[2]]
        return "secret" if target.get("title") == "SecretRef" else "mapping"
    if "enum" in schema or "const" in schema:
        values = cast("list[object]", schema.get("enum", [schema.get("const")]))
        return ", ".join(f"`{value}`" for value in values)
    if "anyOf" in schema or "oneOf" in schema:
        members = cast("list[_Schema]", schema.get("anyOf", schema.get("oneOf")))
        kinds = dict.fromkeys(_type(member, defs) for member in members if member.get("type") != "null")
        return " or ".join(kinds)
    if schema.get("type") == "array":
        return f"list of {_type(cast('_Schema', schema.get('items', {})), defs)}"
    return _plain_type(schema)


def _plain_type(schema: _Schema) -> str:
    examples = schema.get("examples")
    kind = schema.get("type")
    if schema.get("format") == "path":
        return "path"
    if isinstance(kind, list):
        return "size"
    if kind == "string" and isinstance(examples, list) and str(schema.get("pattern", "")).startswith("^(\\d+"):
        return "duration"
    words = {"string": "text", "integer": "number", "number": "number", "boolean": "true/false", "object": "mapping"}
    return words.get(str(kind), "any")


if __name__ == "__main__":
    sys.stdout.write(render())
