"""Putting volumes back: beside what is there, exchanged while its users stand still, undone if they do not recover."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pra_agent.errors import RefusedError, SourceError
from pra_agent.model.events import Notice
from pra_agent.sources import command
from pra_agent.sources.docker_volume.mounts import Place, User, dig, find_users, in_order
from pra_agent.sources.docker_volume.settings import DockerVolumeSettings
from pra_agent.sources.engine import Engine
from pra_agent.sources.source import ReinstateContext

_FACTS = "docker/facts.json"
_COPY_SECONDS = 24 * 3600
_POLL_SECONDS = 1.0
_KEY = "volumes being exchanged"


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One place: where it is, what comes there and where what was there is kept meanwhile."""

    place: Place
    restored: Path
    run: str

    @property
    def live(self) -> Path:
        return Path(self.place.path)

    @property
    def new(self) -> Path:
        return self.live.with_name(f"{self.live.name}.pra-new-{self.run}")

    @property
    def before(self) -> Path:
        return self.live.with_name(f"{self.live.name}.pra-before-{self.run}")


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
    exchanges = [_Exchange(place, restored, context.run) for place, restored in present]
    users = find_users(engine, [exchange.place for exchange in exchanges])
    full = [one.place.name for one in exchanges if one.live.exists() and any(one.live.iterdir())]
    if full and not context.force:
        raise RefusedError(
            f"{', '.join(full)}: there is something in it",
            advice="Restore into another volume (--option as=NAME), or replace it with --force.",
        )
    if context.dry_run:
        return [f"would replace {one.place.kind} {one.place.name} at {one.live}" for one in exchanges] + [
            f"would restart container {user.name}" for user in users if user.running
        ]
    for exchange in exchanges:
        _copy_beside(exchange)
    return _swap(engine, settings, context, exchanges, users)


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


def _copy_beside(exchange: _Exchange) -> None:
    _discard(exchange.new)
    exchange.new.parent.mkdir(parents=True, exist_ok=True)
    argv = [
        "cp",
        "--archive",
        "--sparse=auto",
        "--no-target-directory",
        "--",
        str(exchange.restored),
        str(exchange.new),
    ]
    command.run(argv, timeout=_COPY_SECONDS)


def _swap(
    engine: Engine,
    settings: DockerVolumeSettings,
    context: ReinstateContext,
    exchanges: Sequence[_Exchange],
    users: Sequence[User],
) -> Sequence[str]:
    running = [user for user in in_order(users) if user.running]
    context.state.remember(
        _KEY, {"places": [[str(one.live), str(one.before)] for one in exchanges], "users": [one.id for one in running]}
    )
    _stop(engine, settings, running)
    try:
        for exchange in exchanges:
            _exchange(exchange)
        _start(engine, running)
        _wait_healthy(engine, settings, context, running)
    except BaseException:
        _roll_back(engine, settings, exchanges, running)
        context.state.forget(_KEY)
        context.report(Notice("what was there before is back in service", "warning"))
        raise
    context.state.forget(_KEY)
    for exchange in exchanges:
        _discard(exchange.before)
    done = [f"{one.place.kind} {one.place.name}: put back" for one in exchanges]
    return done + [f"container {user.name}: running again" for user in running]


def _exchange(exchange: _Exchange) -> None:
    if exchange.live.exists():
        exchange.live.rename(exchange.before)
    exchange.new.rename(exchange.live)


def _roll_back(
    engine: Engine, settings: DockerVolumeSettings, exchanges: Sequence[_Exchange], running: Sequence[User]
) -> None:
    _stop(engine, settings, running)
    for exchange in exchanges:
        if exchange.before.exists():
            _discard(exchange.live)
            exchange.before.rename(exchange.live)
        _discard(exchange.new)
    _start(engine, running)


def _stop(engine: Engine, settings: DockerVolumeSettings, running: Sequence[User]) -> None:
    seconds = int(settings.stop_timeout.total_seconds())
    for user in reversed(running):
        engine.told(f"stopping container {user.name}", partial(engine.api.stop, user.id, timeout=seconds))


def _start(engine: Engine, running: Sequence[User]) -> None:
    for user in running:
        engine.told(f"starting container {user.name}", partial(engine.api.start, user.id))


def _wait_healthy(
    engine: Engine, settings: DockerVolumeSettings, context: ReinstateContext, running: Sequence[User]
) -> None:
    left = settings.healthy_within.total_seconds()
    waiting = list(running)
    settled = 0
    while waiting or settled < len(running):
        states = {user.name: _state(engine, user) for user in waiting}
        bad = [f"{name} is {state}" for name, state in states.items() if state in ("unhealthy", "exited", "dead")]
        if bad or left <= 0:
            late = [f"{name} is {state}" for name, state in states.items()]
            raise SourceError(
                f"with what was restored the containers do not recover: {', '.join(bad or late)}",
                advice="See docker logs; what was there before is in service again.",
            )
        waiting = [user for user in waiting if states[user.name] not in ("healthy", "running")]
        settled = len(running) - len(waiting)
        if waiting and context.stop.wait(_POLL_SECONDS):
            raise SourceError("stopped while the containers recovered")
        left -= _POLL_SECONDS


def _state(engine: Engine, user: User) -> str:
    facts = engine.inspect(user.id)
    health = dig(facts, "State", "Health", "Status")
    running = dig(facts, "State", "Running")
    return str(health) if running and health not in (None, "none", "") else str(dig(facts, "State", "Status"))


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
