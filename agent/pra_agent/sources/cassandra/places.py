"""Where the node's directories are on this host: the node names them, a container's mounts translate them."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pra_agent.errors import SourceError
from pra_agent.sources.cassandra.settings import CassandraSettings


@dataclass(frozen=True, slots=True)
class Place:
    """A directory: as this host sees it, and as the node does."""

    host: Path
    node: str


@dataclass(frozen=True, slots=True)
class Places:
    """The node's directories. `others` are commitlog, hints, saved_caches and the like, by kind."""

    data: Sequence[Place]
    others: Mapping[str, Place]


def find_places(settings: CassandraSettings, told: Mapping[str, Sequence[str]]) -> Places:
    """Tell where the directories that the node told are. Raises `SourceError` when that cannot be known."""
    inside = list(told.get("data", ()))
    if not inside and not settings.data_dirs:
        raise SourceError(
            "the node does not tell where its data directories are",
            advice="Name them in data_dirs, or let the agent's user read system_views.settings.",
        )
    mounts = _mounts(settings)
    if settings.data_dirs:
        inside = inside if len(inside) == len(settings.data_dirs) else [str(one) for one in settings.data_dirs]
        data = [Place(host, node) for host, node in zip(settings.data_dirs, inside, strict=True)]
    else:
        data = [Place(_on_host(settings, mounts, node), node) for node in inside]
    others = {kind: paths[0] for kind, paths in told.items() if kind != "data" and paths}
    return Places(data, {kind: Place(_on_host(settings, mounts, node), node) for kind, node in others.items()})


def _mounts(settings: CassandraSettings) -> Sequence[tuple[str, str]]:
    """The container's mounts, (inside, outside), the deepest first."""
    if settings.container is None:
        return ()
    # The Docker SDK is imported only where a container is named.
    from pra_agent.sources.engine import Engine  # noqa: PLC0415

    with Engine(settings.docker) as engine:
        facts: Mapping[str, Any] = engine.inspect(settings.container)
    found = [(str(one["Destination"]), str(one["Source"])) for one in facts.get("Mounts") or ()]
    return sorted(found, key=lambda pair: -len(pair[0]))


def _on_host(settings: CassandraSettings, mounts: Sequence[tuple[str, str]], path: str) -> Path:
    if settings.container is None:
        return Path(path)
    for inside, outside in mounts:
        if path == inside or path.startswith(inside.rstrip("/") + "/"):
            return Path(outside + path[len(inside.rstrip("/")) :])
    raise SourceError(
        f"container {settings.container}: {path} is on no volume and no mount",
        advice="Give the container a volume for its data (without one they end with the container).",
    )


@contextmanager
def opened(places: Sequence[Place]) -> Generator[list[int], None, None]:
    """Open the data directories; SourceError when one cannot be."""
    fds: list[int] = []
    try:
        for place in places:
            try:
                fds.append(os.open(place.host, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError as error:
                raise SourceError(
                    f"{place.host}: cannot be read: {error.strerror}",
                    advice="Correct data_dirs of the job; the agent must be able to read the node's files.",
                ) from error
        yield fds
    finally:
        for fd in fds:
            os.close(fd)
