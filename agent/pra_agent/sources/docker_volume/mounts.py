"""Which places a job saves, who uses them, and what is known of both."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pra_agent.errors import SourceError
from pra_agent.sources.docker_volume.settings import DockerVolumeSettings
from pra_agent.sources.engine import Engine

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
DEPENDS_LABEL = "com.docker.compose.depends_on"
_SECRET_FREE = frozenset({"PATH", "HOME", "LANG", "TZ", "HOSTNAME"})


@dataclass(frozen=True, slots=True)
class Place:
    """A volume or a bind mount: its name (a bind mount's is its path) and where its content is on the host."""

    name: str
    kind: str
    path: str
    facts: Mapping[str, Any]

    @property
    def logical(self) -> bytes:
        """Its path in the snapshot."""
        if self.kind == "volume":
            return b"/docker/volumes/" + self.name.encode()
        return b"/docker/binds" + self.path.rstrip("/").encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class User:
    """A container that uses one of the places."""

    id: str
    name: str
    running: bool
    paused: bool
    facts: Mapping[str, Any]

    @property
    def service(self) -> str:
        """Its compose service, "" outside compose."""
        return str(self._labels.get(SERVICE_LABEL, ""))

    @property
    def needs(self) -> frozenset[str]:
        """The compose services that it depends on."""
        told = str(self._labels.get(DEPENDS_LABEL, ""))
        return frozenset(part.split(":")[0] for part in told.split(",") if part)

    @property
    def _labels(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", dig(self.facts, "Config", "Labels") or {})


def dig(facts: Mapping[str, Any], *keys: str) -> Any:  # noqa: ANN401 (whatever the engine tells)
    """What the engine tells under these keys; None when it tells nothing there."""
    found: Any = facts
    for key in keys:
        found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
    return found


def _listed(facts: Mapping[str, Any], *keys: str) -> list[Any]:
    return list(dig(facts, *keys) or ())


def find_places(engine: Engine, settings: DockerVolumeSettings) -> list[Place]:
    """The job's volumes and bind mounts, by name. `SourceError` when one is missing, or there is none at all."""
    names = [settings.volume] if settings.volume else list(settings.volumes)
    if names:
        return [_volume(engine, name) for name in sorted(set(names))]
    label = settings.label or f"{PROJECT_LABEL}={settings.project}"
    told = engine.told("the list of volumes", lambda: engine.api.volumes(filters={"label": label}))
    places = [_volume(engine, str(one["Name"])) for one in _listed(told, "Volumes")]
    if settings.binds:
        places += _binds(engine, label)
    if not places:
        raise SourceError(f"no Docker volume has the label {label}", advice="See docker volume ls; correct the job.")
    return sorted(places, key=lambda place: (place.kind, place.name))


def _volume(engine: Engine, name: str) -> Place:
    facts = engine.told(f"volume {name}", lambda: engine.api.inspect_volume(name))
    driver, kind = dig(facts, "Driver"), dig(facts, "Options", "type")
    if driver != "local" or kind not in (None, "none", ""):
        raise SourceError(
            f"volume {name} is not a local one (driver {driver}, type {kind})",
            advice="Save what it holds where it is, by a job of type files.",
        )
    return Place(name, "volume", str(facts["Mountpoint"]), facts)


def _binds(engine: Engine, label: str) -> list[Place]:
    found: dict[str, Place] = {}
    for listed in engine.containers({"label": label}):
        for mount in _listed(engine.inspect(str(listed["Id"])), "Mounts"):
            source = str(mount.get("Source", ""))
            if mount.get("Type") == "bind" and not source.startswith(("/var/run", "/run", "/proc", "/sys", "/dev")):
                found[source] = Place(source, "bind", source, mount)
    return list(found.values())


def find_users(engine: Engine, places: Sequence[Place]) -> list[User]:
    """All containers that mount one of the places, in the order in which they start: the needed ones first."""
    volumes = {place.name for place in places if place.kind == "volume"}
    binds = {place.path for place in places if place.kind == "bind"}
    users: list[User] = []
    for listed in engine.containers():
        facts = engine.inspect(str(listed["Id"]))
        mounts = _listed(facts, "Mounts")
        if any(mount.get("Name") in volumes or mount.get("Source") in binds for mount in mounts):
            name = str(dig(facts, "Name")).lstrip("/")
            running, paused = bool(dig(facts, "State", "Running")), bool(dig(facts, "State", "Paused"))
            users.append(User(str(facts["Id"]), name, running, paused, facts))
    return in_order(users)


def in_order(users: Sequence[User]) -> list[User]:
    """Sort so that whoever is depended on comes first; a circle is broken by name."""
    left = sorted(users, key=lambda user: user.name)
    done: list[User] = []
    while left:
        waiting = {user.service for user in left if user.service}
        ready = [user for user in left if not (user.needs & waiting - {user.service})] or left[:1]
        done += ready
        left = [user for user in left if user not in ready]
    return done


def describe(engine: Engine, places: Sequence[Place], users: Sequence[User]) -> dict[str, Any]:
    """What is needed to make the containers again: facts without the values of variables, which may be secrets."""
    return {
        "places": [
            {"name": place.name, "kind": place.kind, "path": place.path, "facts": dict(place.facts)} for place in places
        ],
        "containers": [
            {"name": user.name, "image": _image(engine, user), "facts": _redacted(user.facts)} for user in users
        ],
    }


def compose_files(users: Sequence[User]) -> list[str]:
    """The compose files that the containers were made from, as far as the labels tell."""
    found: set[str] = set()
    for user in users:
        labels = cast("Mapping[str, Any]", dig(user.facts, "Config", "Labels") or {})
        directory = str(labels.get("com.docker.compose.project.working_dir", ""))
        for name in str(labels.get("com.docker.compose.project.config_files", "")).split(","):
            if name:
                found.add(name if name.startswith("/") or not directory else f"{directory}/{name}")
    return sorted(found)


def _image(engine: Engine, user: User) -> dict[str, Any]:
    image = str(user.facts.get("Image", ""))
    try:
        facts = engine.told(f"image {image}", lambda: engine.api.inspect_image(image))
    except SourceError:
        return {"id": image, "missing": True}
    digests = _listed(facts, "RepoDigests")
    return {"id": image, "tags": _listed(facts, "RepoTags"), "digests": digests, "built_here": not digests}


def _redacted(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the values of environment variables, wherever they stand, and of what looks like a secret argument."""
    variables = [str(text) for text in _listed(facts, "Config", "Env")]
    values = [text.partition("=")[2] for text in variables]
    hidden = [value for value in values if len(value) >= 4]

    def clean(value: Any) -> Any:  # noqa: ANN401 (JSON)
        if isinstance(value, str):
            return _without(value, hidden)
        if isinstance(value, list):
            return list(map(clean, value))  # pyright: ignore[reportUnknownArgumentType] (JSON)
        if isinstance(value, dict):
            return {key: clean(one) for key, one in cast("dict[str, Any]", value).items()}
        return value

    copied = {key: value for key, value in facts.items() if key != "State"}
    config = {key: value for key, value in dict(dig(facts, "Config") or {}).items() if key != "Env"}
    cleaned = cast("dict[str, Any]", clean(copied | {"Config": config}))
    cleaned["Config"]["Env"] = [_variable(text) for text in variables]
    return cleaned


def _variable(text: str) -> str:
    name, _, value = text.partition("=")
    return text if name in _SECRET_FREE or not value else f"{name}=(not saved)"


def _without(text: str, hidden: Sequence[str]) -> str:
    for value in hidden:
        text = text.replace(value, "(not saved)")
    return re.sub(r"(?i)((?:password|secret|token|key)[^=\s]*=)\S+", r"\1(not saved)", text)
