"""Stopping and pausing exactly the containers that use a volume, and giving them back as they were.

What is about to be done is journalled before it is done, so that a crash of the agent (or of the engine) in between is
put right at the agent's next start.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pra_agent.errors import SourceError
from pra_agent.model.events import Notice, Reporter
from pra_agent.sources.docker_volume.mounts import User
from pra_agent.sources.engine import Engine
from pra_agent.sources.source import StateBefore

KEY = "quiesced containers"
#: How often, and with which pauses, an engine that is away is asked to give the containers back.
_TRIES, _PAUSE_SECONDS = 300, 1.0
_FREEZES = 10


class Quiesced:
    """The containers stand still from `begin` to `end`, or until the limit is over."""

    def __init__(self, engine: Engine, state: StateBefore, how: str, *, limit: float, stop_timeout: float) -> None:
        self._engine, self._state, self._how = engine, state, how
        self._limit, self._stop_timeout = limit, stop_timeout
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None
        self._under: dict[str, Any] = {}
        self.overrun = False

    def begin(self, users: Sequence[User]) -> None:
        """Bring the running containers to a standstill: whoever needs others first. All or none."""
        moving = [user for user in users if user.running and not user.paused]
        if self._how == "none" or not moving:
            return
        self._under = {"how": self._how, "containers": [{"id": user.id, "name": user.name} for user in moving]}
        self._state.remember(KEY, self._under)
        self._timer = threading.Timer(self._limit, self._too_long)
        self._timer.daemon = True
        self._timer.start()
        try:
            for user in reversed(moving):
                self._still(user)
        except SourceError:
            self.end()
            raise

    def _still(self, user: User) -> None:
        api = self._engine.api
        if self._how == "pause":
            self._pause(user)
        else:
            seconds = int(self._stop_timeout)
            self._engine.told(f"stopping container {user.name}", lambda: api.stop(user.id, timeout=seconds))

    def _pause(self, user: User) -> None:
        """Pause a container; one that starts processes all the time is sometimes frozen at a later try only."""
        for left in range(_FREEZES, 0, -1):
            try:
                self._engine.told(f"pausing container {user.name}", lambda: self._engine.api.pause(user.id))
            except SourceError as error:
                if left == 1 or "freeze" not in error.message:
                    raise
                threading.Event().wait(_PAUSE_SECONDS / 5)
            else:
                return

    def _too_long(self) -> None:
        self.overrun = True
        self.end()

    def end(self) -> None:
        """Give the containers back; harmless when that was done already."""
        with self._guard:
            if self._timer is not None and self._timer is not threading.current_thread():
                self._timer.cancel()
            under, self._under = self._under, {}
            if under:
                self._give_back(under)
                self._state.forget(KEY)

    def _give_back(self, under: Mapping[str, Any]) -> None:
        """Try for some minutes: an engine that has crashed comes back, and then nobody is to wait for the next run."""
        for left in range(_TRIES, 0, -1):
            try:
                give_back(self._engine, under)
            except SourceError:
                if left == 1:
                    raise
                threading.Event().wait(_PAUSE_SECONDS)
            else:
                return

    def require_still(self) -> None:
        """Raise `SourceError` unless the containers stand still as they were told to (or are gone)."""
        for container in self._under.get("containers", ()):
            if not self._engine.containers({"id": container["id"]}):
                continue
            state = self._engine.inspect(str(container["id"])).get("State", {})
            if not state.get("Paused") if self._how == "pause" else state.get("Running"):
                raise SourceError(
                    f"container {container['name']} did not stand still while its volume was read",
                    advice="See who has started it (docker events); the snapshot was not kept.",
                )


def give_back(engine: Engine, under: Mapping[str, Any]) -> None:
    """Unpause or start what was brought to a standstill, in the order of their needs; tries all, then complains."""
    failed: list[str] = []
    for container in under.get("containers", ()):
        try:
            _awake(engine, str(under["how"]), str(container["id"]))
        except SourceError as error:
            failed.append(f"{container['name']}: {error.message}")
    if failed:
        raise SourceError(
            f"containers could not be given back: {'; '.join(failed)}",
            advice="Look at docker ps -a, and unpause or start them by hand.",
        )


def _awake(engine: Engine, how: str, container: str) -> None:
    if not engine.containers({"id": container}):
        return  # removed meanwhile, which was somebody else's wish
    state = engine.inspect(container).get("State", {})
    if how == "pause" and state.get("Paused"):
        engine.told("unpausing", lambda: engine.api.unpause(container))
    elif not state.get("Running"):
        # Also a paused one that the engine's own crash has ended: it was running, so it runs again.
        engine.told("starting", lambda: engine.api.start(container))


def undo(engine: Engine, state: StateBefore, report: Reporter) -> None:
    """Give back what a crashed capture left standing."""
    under = state.pending().get(KEY)
    if under is not None:
        give_back(engine, under)
        state.forget(KEY)
        report(Notice("containers that an interrupted run had left standing were given back", "warning"))
