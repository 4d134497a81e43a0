"""Putting volumes back: beside what is there, exchanged while its users stand still, undone if they do not recover."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, cast

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources.docker_volume.mounts import Place, User, dig, find_users
from pra_agent.sources.docker_volume.settings import DockerVolumeSettings
from pra_agent.sources.engine import Engine
from pra_agent.sources.exchange import Exchange, swap, undo
from pra_agent.sources.source import ReinstateContext, StateBefore

_FACTS = "docker/facts.json"
_POLL_SECONDS = 1.0
_BAD = frozenset({"unhealthy", "exited", "dead", "removing"})
#: A container without a health check counts as well when it was seen running so often, started once only.
_SEEN_RUNNING = 3


@dataclass(frozen=True, slots=True)
class _Containers:
    """The containers that use the places; those that ran are stopped and started, the needed ones first."""

    engine: Engine
    settings: DockerVolumeSettings
    running: Sequence[User]
    stopped: Event

    def stop(self) -> None:
        seconds = int(self.settings.stop_timeout.total_seconds())
        for user in reversed(self.running):
            self.engine.told(f"stopping container {user.name}", partial(self.engine.api.stop, user.id, timeout=seconds))

    def start(self) -> None:
        for user in self.running:
            self.engine.told(f"starting container {user.name}", partial(self.engine.api.start, user.id))

    def facts(self) -> Mapping[str, object]:
        return {"containers": [{"id": user.id, "name": user.name} for user in self.running]}

    def wait_well(self) -> None:
        left = self.settings.healthy_within.total_seconds()
        waiting = list(self.running)
        seen: Counter[tuple[str, str]] = Counter()
        while waiting:
            states = {user.name: self._state(user, seen) for user in waiting}
            bad = [f"{name} is {state}" for name, state in states.items() if state in _BAD]
            if bad or left <= 0:
                late = [f"{name} is {state}" for name, state in states.items()]
                raise SourceError(
                    f"with what was restored the containers do not recover: {', '.join(bad or late)}",
                    advice="See docker logs; what was there before is in service again.",
                )
            waiting = [user for user in waiting if states[user.name] not in ("healthy", "settled")]
            if waiting and self.stopped.wait(_POLL_SECONDS):
                raise SourceError("stopped while the containers recovered")
            left -= _POLL_SECONDS

    def _state(self, user: User, seen: Counter[tuple[str, str]]) -> str:
        facts = self.engine.inspect(user.id)
        health = dig(facts, "State", "Health", "Status")
        status = str(dig(facts, "State", "Status"))
        if status != "running":
            return status
        if health not in (None, "none", ""):
            return str(health)
        # One that ends a moment later, or starts again and again, has not recovered.
        start = (user.id, str(dig(facts, "State", "StartedAt")))
        seen[start] += 1
        return "settled" if seen[start] >= _SEEN_RUNNING else status


def put_back(engine: Engine, settings: DockerVolumeSettings, context: ReinstateContext) -> Sequence[str]:
    """Put the snapshot's volumes back into service; returns a line for each thing done.

    Options: `volume=NAME` for one of them, `as=NAME` to put it into another volume. Raises `RefusedError` when a
    volume holds something and `force` is not set, `SourceError` when the containers are not healthy with what was
    restored (then what was there is back).
    """
    unknown = set(context.options) - {"volume", "as"}
    if unknown:
        raise RefusedError(f"a volume knows no option {', '.join(sorted(unknown))}", advice="It knows volume and as.")
    places = _chosen(_facts(context.restored), context.options)
    present = [_ready(engine, place, context) for place in places]
    exchanges = [Exchange(Path(place.path), restored, context.run) for place, restored in present]
    users = find_users(engine, [place for place, _ in present])
    full = [place.name for place, _ in present if _holds_something(Path(place.path))]
    if full and not context.force:
        raise RefusedError(
            f"{', '.join(full)}: there is something in it",
            advice="Restore into another volume (--option as=NAME), or replace it with --force.",
        )
    running = [user for user in users if user.running]
    if context.dry_run:
        return [f"would replace {place.kind} {place.name} at {place.path}" for place, _ in present] + [
            f"would restart container {user.name}" for user in running
        ]
    swap(exchanges, _Containers(engine, settings, running, context.stop), context)
    done = [f"{place.kind} {place.name}: put back" for place, _ in present]
    return done + [f"container {user.name}: running again" for user in running]


def undo_exchange(engine: Engine, settings: DockerVolumeSettings, state: StateBefore) -> None:
    """After a crash in the middle of an exchange: what was there before is put back, and its users run again."""

    def users(facts: Mapping[str, object]) -> _Containers:
        known = cast("Sequence[Mapping[str, str]]", facts["containers"])
        running = [User(one["id"], one["name"], running=True, paused=False, facts={}) for one in known]
        return _Containers(engine, settings, running, Event())

    undo(state, users)


def _holds_something(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _facts(restored: str) -> Sequence[Place]:
    path = Path(restored) / _FACTS
    try:
        told = json.loads(path.read_bytes())
        return [Place(str(one["name"]), str(one["kind"]), str(one["path"]), one["facts"]) for one in told["places"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"the restored files hold no {_FACTS} that tells what they are", advice="Restore the whole job."
        ) from error


def _chosen(places: Sequence[Place], options: Mapping[str, str]) -> Sequence[Place]:
    name = options.get("volume")
    chosen = [place for place in places if name is None or place.name == name]
    if not chosen:
        raise SourceError(f"the snapshot holds no {name!r}", advice="It holds " + ", ".join(one.name for one in places))
    if "as" in options and len(chosen) != 1:
        raise RefusedError("--option as=NAME takes one volume", advice="Name it with --option volume=NAME.")
    return chosen


def _ready(engine: Engine, place: Place, context: ReinstateContext) -> tuple[Place, Path]:
    """Find where the place is on this host; a volume that is missing is made, with its old labels and options."""
    restored = Path(context.restored) / os.fsdecode(place.logical.lstrip(b"/"))
    if not restored.exists():
        raise SourceError(f"the restored files hold nothing of {place.kind} {place.name}")
    if place.kind != "volume":
        return place, restored
    name = context.options.get("as", place.name)
    found = engine.told("the list of volumes", lambda: engine.api.volumes(filters={"name": name})).get("Volumes") or ()
    facts: Any = next((one for one in found if one["Name"] == name), None)
    if facts is None:
        if context.dry_run:
            return Place(name, "volume", f"(a new volume {name})", {}), restored
        facts = engine.told(
            f"making volume {name}",
            lambda: engine.api.create_volume(name, driver="local", labels=place.facts.get("Labels") or {}),
        )
    return Place(name, "volume", str(facts["Mountpoint"]), facts), restored
