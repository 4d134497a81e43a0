"""Coverage: what exists on this host and no job protects, each with the lines of configuration that would.

Docker volumes and bind mounts are found where an engine answers; keyspaces, indices and databases where a configured
job gives access to their server.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from pra_agent.errors import PraError
from pra_agent.model.references import SecretRef
from pra_agent.sources.cassandra import CassandraSettings
from pra_agent.sources.docker_volume import DockerVolumeSettings
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.elasticsearch import ElasticsearchSettings
from pra_agent.sources.files import FilesSettings

KINDS = ("volume", "bind", "keyspace", "index", "database")
_SOCKET = Path("/var/run/docker.sock")
Resolve = Callable[[SecretRef], str]


@dataclass(frozen=True, slots=True)
class Unprotected:
    """Something that no job protects, and the lines of configuration that would."""

    kind: str
    name: str
    lines: str


@dataclass(slots=True)
class Coverage:
    """What was found. `counted` says how many of each kind there are; kinds that nobody could be asked for lack there.

    `unknown` tells why a place could not be asked.
    """

    counted: dict[str, int] = field(default_factory=lambda: dict[str, int]())
    unprotected: list[Unprotected] = field(default_factory=lambda: list[Unprotected]())
    unknown: dict[str, str] = field(default_factory=lambda: dict[str, str]())

    def numbers(self) -> Mapping[str, int | None]:
        """How many are unprotected, by kind; None where nobody could be asked."""
        return {
            kind: sum(one.kind == kind for one in self.unprotected) if kind in self.counted else None for kind in KINDS
        }


def look(jobs: Mapping[str, BaseModel], resolve: Resolve, *, intended: Sequence[str] = ()) -> Coverage:
    """Look at everything there is. `jobs` are sources' settings by job; what cannot be asked is told, not raised.

    `intended` are names (patterns; KIND/NAME for one kind) that are not protected on purpose.
    """
    found = Coverage()
    for part in (_docker, _databases, _keyspaces, _indices):
        part(jobs, resolve, found)
    found.unprotected = [one for one in found.unprotected if not _matches(one, intended)]
    return found


def _matches(one: Unprotected, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(one.name, each) or fnmatchcase(f"{one.kind}/{one.name}", each) for each in patterns)


# ---------------------------------------------------------------- Docker
def _docker(jobs: Mapping[str, BaseModel], _resolve: Resolve, found: Coverage) -> None:
    addresses = {str(url) for job in jobs.values() if (url := getattr(job, "docker", None))}
    if os.environ.get("DOCKER_HOST") or _SOCKET.exists():
        addresses.add("")
    for address in sorted(addresses):
        try:
            _engine(jobs, address or None, found)
        except PraError as error:
            found.unknown[f"docker {address}".strip()] = error.message


def _engine(jobs: Mapping[str, BaseModel], address: str | None, found: Coverage) -> None:
    # The Docker SDK is imported only where there is an engine.
    from pra_agent.sources.docker_volume.discovery import discover, selected  # noqa: PLC0415

    there = discover(address)
    protected: set[tuple[str, str]] = set()
    for name, job in jobs.items():
        if isinstance(job, DockerVolumeSettings) and job.docker == address:
            try:
                protected |= selected(job)
            except PraError as error:
                found.unknown[f"job {name}"] = error.message
    dumped = {str(job.container) for job in jobs.values() if isinstance(job, DumpSettings | CassandraSettings)}
    saved = [str(path) for job in jobs.values() if isinstance(job, FilesSettings) for path in job.paths]
    for one in there:
        found.counted[one.kind] = found.counted.get(one.kind, 0) + 1
        # A database's own volume is protected by the dump of that database.
        if (one.kind, one.name) in protected or one.users & dumped or _below(one.path, saved):
            continue
        if one.kind == "volume":
            source: dict[str, object] = {"type": "docker_volume", "volume": one.name}
        else:
            source = {"type": "files", "paths": [one.path]}
        if address is not None and one.kind == "volume":
            source["docker"] = address
        found.unprotected.append(Unprotected(one.kind, one.name, job_lines(one.name, source, jobs)))
    for kind in ("volume", "bind"):
        found.counted.setdefault(kind, 0)


def _below(path: str, tops: Iterable[str]) -> bool:
    return any(path == top or path.startswith(top.rstrip("/") + "/") for top in tops)


# ---------------------------------------------------------------- databases, keyspaces, indices
def _databases(jobs: Mapping[str, BaseModel], resolve: Resolve, found: Coverage) -> None:
    servers: dict[tuple[object, ...], list[DumpSettings]] = {}
    for job in jobs.values():
        if isinstance(job, DumpSettings) and job.preset in {"mariadb", "mysql", "postgresql"}:
            place = (job.preset, job.container, job.docker, job.host, job.port, job.socket, job.defaults_file)
            servers.setdefault(place, []).append(job)
    for same in servers.values():
        job = same[0]
        where = f"{job.preset} {job.container or job.host or 'on this host'}"
        try:
            # The client's tools are imported only where a job asks for them.
            from pra_agent.sources.dump.source import DumpSource  # noqa: PLC0415

            there = DumpSource(job, resolve).databases_there()
        except PraError as error:
            found.unknown[where] = error.message
            continue
        found.counted["database"] = found.counted.get("database", 0) + len(there)
        if any(each.databases == "all" for each in same):
            continue
        for name in sorted(set(there) - {name for each in same for name in each.databases}):
            source = _given(job) | {"databases": [name]}
            found.unprotected.append(Unprotected("database", name, job_lines(name, source, jobs)))


def _keyspaces(jobs: Mapping[str, BaseModel], resolve: Resolve, found: Coverage) -> None:
    nodes: dict[tuple[object, ...], list[CassandraSettings]] = {}
    for job in jobs.values():
        if isinstance(job, CassandraSettings):
            nodes.setdefault((job.hosts, job.port, job.container), []).append(job)
    for same in nodes.values():
        job = same[0]
        try:
            # The driver is imported only where a job asks for it.
            from pra_agent.sources.cassandra.session import connect  # noqa: PLC0415
            from pra_agent.sources.cassandra.system import is_system  # noqa: PLC0415

            with connect(job, resolve) as session:
                there = sorted(name for name in session.keyspaces() if not is_system(name))
        except PraError as error:
            found.unknown[f"cassandra {job.hosts[0]}"] = error.message
            continue
        found.counted["keyspace"] = found.counted.get("keyspace", 0) + len(there)
        for name in there:
            if not any(_has_keyspace(each, name) for each in same):
                source = _given(job, "keyspaces", "tables", "exclude") | {"keyspaces": [name]}
                found.unprotected.append(Unprotected("keyspace", name, job_lines(name, source, jobs)))


def _has_keyspace(job: CassandraSettings, name: str) -> bool:
    chosen = name in job.keyspaces or any(table.split(".")[0] == name for table in job.tables)
    return (job.whole or chosen) and name not in job.exclude


def _indices(jobs: Mapping[str, BaseModel], resolve: Resolve, found: Coverage) -> None:
    clusters: dict[str, list[ElasticsearchSettings]] = {}
    for job in jobs.values():
        if isinstance(job, ElasticsearchSettings):
            clusters.setdefault(job.url, []).append(job)
    for url, same in clusters.items():
        try:
            # The client is imported only where a job asks for it.
            from pra_agent.sources.elasticsearch.source import ElasticsearchSource  # noqa: PLC0415

            there = ElasticsearchSource(same[0], resolve).indices_there()
        except PraError as error:
            found.unknown[f"elasticsearch {url}"] = error.message
            continue
        found.counted["index"] = found.counted.get("index", 0) + len(there)
        for name in there:
            if not any(has_index(each.indices, name) for each in same):
                source = _given(same[0]) | {"indices": [*same[0].indices, name]}
                found.unprotected.append(Unprotected("index", name, _changed(same[0], source, jobs)))


def has_index(patterns: Iterable[str], name: str) -> bool:
    """Whether a list of patterns selects an index: the last one that fits decides, `-PATTERN` leaves out."""
    chosen = False
    for pattern in patterns:
        if fnmatchcase(name, pattern.removeprefix("-")):
            chosen = not pattern.startswith("-")
    return chosen


# ---------------------------------------------------------------- lines of configuration
def _given(job: BaseModel, *without: str) -> dict[str, object]:
    """What a job's source says explicitly: no defaults, and references instead of secrets."""
    told: dict[str, object] = job.model_dump(mode="json", exclude_unset=True, exclude=set(without))
    return {"type": getattr(job, "type", ""), **told}


def job_lines(name: str, source: Mapping[str, object], jobs: Iterable[str]) -> str:
    """Write a job in YAML, under a name that is fit and not taken."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name)[:40].strip("-._")
    # A name of digits would be a number in YAML.
    plain = plain if plain[:1].isalpha() and plain.lower() not in _WORDS else f"more-{plain}".rstrip("-")
    taken, number, chosen = set(jobs), 1, plain
    while chosen in taken:
        number += 1
        chosen = f"{plain}-{number}"
    return f"jobs: {{{chosen}: {{source: {_flow(source)}}}}}"


def _changed(job: BaseModel, source: Mapping[str, object], jobs: Mapping[str, BaseModel]) -> str:
    name = next(name for name, each in jobs.items() if each is job)
    return f"jobs: {{{name}: {{source: {_flow(source)}}}}}"


def _flow(value: object) -> str:
    """JSON is YAML; words that need no quotes have none."""
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value)
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in pairs.items()) + "}"
    if isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        return "[" + ", ".join(map(_flow, items)) + "]"
    text = str(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS:
        return text
    return json.dumps(value)


#: What YAML takes for something else than text.
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
