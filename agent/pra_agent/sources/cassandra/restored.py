"""What a restore has before it: the restored files of one node's snapshot, and what the operator chose."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.cassandra.session import Identity
from pra_agent.sources.cassandra.walk import DATA, ROOT

FACTS = ROOT + b"/facts.json"
SCHEMA = ROOT + b"/schema.json"
SCHEMA_CQL = ROOT + b"/schema.cql"
#: What a restore with force has kept; never cleared by the agent.
KEPT_PREFIX = "pra-before-"
_NAME = re.compile(r"[A-Za-z0-9_]{1,222}")
_OPTIONS = {
    "plan": ("a", "b"),
    "mode": ("replace", "add"),
    "tokens": ("report", "write"),
    "cleanup": ("print", "run"),
    "repair": ("print", "run"),
    "count": ("yes", "no"),
}
_NAMES = ("keyspace", "table", "as_keyspace", "as_table")


@dataclass(frozen=True, slots=True)
class Choice:
    """The operator's options, checked. Names are as they are, without quotes."""

    plan: str
    keyspace: str
    table: str
    as_keyspace: str
    as_table: str
    options: Mapping[str, str]

    def of(self, name: str) -> str:
        """An option of a few words; the first of them is what it is when left out."""
        return self.options.get(name, _OPTIONS[name][0])


def read_choice(options: Mapping[str, str]) -> Choice:
    """Check the options. Raises `RefusedError` for one that is unknown, or that does not go with the others."""
    known = ", ".join([*_OPTIONS, *_NAMES])
    for name, value in options.items():
        if name in _OPTIONS and value not in _OPTIONS[name]:
            raise RefusedError(f"{name}={value}: it is one of {', '.join(_OPTIONS[name])}", advice="Correct it.")
        if name not in _OPTIONS and name not in _NAMES:
            raise RefusedError(f"a restore of Cassandra knows no option {name}", advice=f"It knows {known}.")
    names = {name: _checked(name, options.get(name, "")) for name in _NAMES}
    plan = options.get("plan", "b" if names["keyspace"] else "")
    if not plan:
        raise RefusedError(
            "say how a whole node comes back: plan=a (same ring, this node stopped) or plan=b (online, also another "
            "ring)",
            advice="The decision table in docs/cassandra.md tells which; one lost node is replaced, not restored.",
        )
    if plan == "a" and any(names.values()):
        raise RefusedError("plan=a takes the whole node", advice="One keyspace or table: plan=b.")
    if names["table"] and not names["keyspace"]:
        raise RefusedError("table=NAME needs keyspace=NAME", advice="Add it.")
    if (names["as_keyspace"] and not names["keyspace"]) or (names["as_table"] and not names["table"]):
        raise RefusedError("as_keyspace needs keyspace, as_table needs table", advice="Add it.")
    return Choice(plan, names["keyspace"], names["table"], names["as_keyspace"], names["as_table"], options)


def _checked(option: str, name: str) -> str:
    bare = name[1:-1] if len(name) > 2 and name.startswith('"') and name.endswith('"') else name
    if bare and not _NAME.fullmatch(bare):
        raise RefusedError(f"{option}={name}: no name in Cassandra", advice="Letters, digits and _ are all it allows.")
    return bare


@dataclass(frozen=True, slots=True)
class TableFiles:
    """The restored directories of one table, one for each data directory that held some of it."""

    keyspace: str
    name: str
    directory: str
    paths: Sequence[Path]

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.keyspace}.{self.name}"

    def size(self) -> int:
        """Bytes of its files, without those of indexes."""
        return sum(file.stat().st_size for path in self.paths for file in path.iterdir() if file.is_file())


@dataclass(frozen=True, slots=True)
class Restored:
    """One node's snapshot below a directory."""

    root: Path
    facts: Mapping[str, Any]
    schema: Sequence[Mapping[str, str]]

    @property
    def identity(self) -> Identity:
        """Whose snapshot it is."""
        return Identity(**self.facts["node"])

    @property
    def data(self) -> list[Path]:
        """The restored data directories, in the node's order; one that held nothing may be missing."""
        return [self.root / os.fsdecode(DATA[1:]) / str(number) for number in range(len(self.host_data))]

    @property
    def host_data(self) -> Sequence[str]:
        """Where they were on the host."""
        return list(self.facts["host_directories"]["data"])

    def tables(self) -> list[TableFiles]:
        """All tables that are there, by name."""
        found: dict[tuple[str, str], list[Path]] = {}
        for data in self.data:
            for path in sorted(data.glob("*/*-*")):
                if path.is_dir() and not path.is_symlink():
                    found.setdefault((path.parent.name, path.name), []).append(path)
        return [
            TableFiles(keyspace, directory.rpartition("-")[0], directory, paths)
            for (keyspace, directory), paths in sorted(found.items())
        ]


def read_restored(directory: str) -> Restored:
    """Read what was restored. Raises `SourceError` when it is no node's snapshot."""
    root = Path(directory)
    try:
        facts = json.loads((root / os.fsdecode(FACTS[1:])).read_bytes())
        schema = json.loads((root / os.fsdecode(SCHEMA[1:])).read_bytes())
        restored = Restored(root, facts, schema)
        known = facts["format"] == 1 and bool(restored.host_data) and bool(restored.identity)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"the restored files hold no {os.fsdecode(FACTS)} that tells what they are: {error}",
            advice="Restore the whole job, /cassandra and all below it.",
        ) from error
    if not known:
        raise SourceError("the restored files are of a format that this version does not know")
    return restored
