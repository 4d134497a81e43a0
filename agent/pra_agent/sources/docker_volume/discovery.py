"""Which volumes and bind mounts there are on an engine, and which of them jobs of this type select."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pra_agent.sources.docker_volume.mounts import PROJECT_LABEL, dig, find_places
from pra_agent.sources.docker_volume.settings import DockerVolumeSettings
from pra_agent.sources.engine import Engine

#: Parts of the host that containers look at; they are no data of theirs.
_OF_THE_HOST = (
    *("/var/run", "/run", "/proc", "/sys", "/dev", "/var/lib/docker", "/etc/localtime", "/etc/timezone"),
    *("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id", "/etc/passwd", "/etc/group"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A volume or bind mount: where its content is, which containers use it, and their compose project if it is one."""

    kind: str
    name: str
    path: str
    users: frozenset[str] = frozenset()
    project: str = ""


def discover(address: str | None) -> list[Found]:
    """All local volumes, and all bind mounts but those of the host's own. Raises `SourceError`."""
    with Engine(address) as engine:
        told = cast("dict[str, Any]", engine.told("the list of volumes", engine.api.volumes))
        found = {
            ("volume", str(one["Name"])): Found(
                "volume", str(one["Name"]), str(one["Mountpoint"]), project=_project(one.get("Labels"))
            )
            for one in cast("Sequence[dict[str, Any]]", told.get("Volumes") or ())
            if one.get("Driver") == "local" and dig(one, "Options", "type") in (None, "none", "")
        }
        for listed in engine.containers():
            for mount in cast("Sequence[dict[str, Any]]", listed.get("Mounts") or ()):
                kind = str(mount.get("Type"))
                name = str((mount.get("Name") if kind == "volume" else mount.get("Source")) or "")
                key = (kind, name)
                if kind == "bind" and key not in found and _is_data(name):
                    found[key] = Found("bind", name, name, project=_project(listed.get("Labels")))
                if key in found:
                    users = {each.lstrip("/") for each in cast("Sequence[str]", listed.get("Names") or ())}
                    found[key] = replace(found[key], users=found[key].users | users)
        return sorted(found.values(), key=lambda one: (one.kind, one.name))


def selected(settings: DockerVolumeSettings) -> set[tuple[str, str]]:
    """What a job selects, as (kind, name). Raises `SourceError` when it does not find what it names."""
    with Engine(settings.docker) as engine:
        return {(place.kind, place.name) for place in find_places(engine, settings)}


def _project(labels: object) -> str:
    return str(dig({"labels": labels}, "labels", PROJECT_LABEL) or "")


def _is_data(path: str) -> bool:
    if any(path == one or path.startswith(one + "/") for one in _OF_THE_HOST):
        return False
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return True
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode)
