"""What uses a directory on this host: a systemd unit, a container, or nothing that the agent knows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event

from pra_agent.errors import SourceError
from pra_agent.sources import command
from pra_agent.sources.exchange import Service

_COMMAND_SECONDS = 600
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks a service how it is: `ask` returns "" when it is well, else what is wrong. `within` in seconds."""

    ask: Callable[[], str]
    within: float
    stopped: Event

    def wait(self) -> None:
        """Return when it is well; `SourceError` with its last words when that takes too long."""
        left = self.within
        while (wrong := self.ask()) and left > 0:
            if self.stopped.wait(_POLL_SECONDS):
                raise SourceError("stopped while the service recovered")
            left -= _POLL_SECONDS
        if wrong:
            raise SourceError(
                f"with what was restored the service does not recover: {wrong}",
                advice="See its log; what was there before is in service again.",
            )


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit of this host."""

    name: str
    probe: Probe

    def stop(self) -> None:
        self._systemctl("stop")

    def start(self) -> None:
        self._systemctl("start")

    def wait_well(self) -> None:
        self.probe.wait()

    def facts(self) -> Mapping[str, object]:
        return {"unit": self.name}

    def _systemctl(self, verb: str) -> None:
        command.run(["systemctl", "--no-ask-password", verb, "--", self.name], timeout=_COMMAND_SECONDS)


@dataclass(frozen=True, slots=True)
class Container:
    """A container that is stopped and started as a whole."""

    name: str
    docker: str | None
    probe: Probe

    def stop(self) -> None:
        self._engine("stop")

    def start(self) -> None:
        self._engine("start")

    def wait_well(self) -> None:
        self.probe.wait()

    def facts(self) -> Mapping[str, object]:
        return {"container": self.name}

    def _engine(self, verb: str) -> None:
        # The Docker SDK is imported only where a container is named.
        from pra_agent.sources.engine import Engine  # noqa: PLC0415

        with Engine(self.docker) as engine:
            engine.told(f"{verb} of container {self.name}", lambda: getattr(engine.api, verb)(self.name))


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """Something that the operator has stopped already; it must not answer, and is not started."""

    what: str
    probe: Probe

    def stop(self) -> None:
        if not self.probe.ask():
            raise SourceError(
                f"{self.what} is running",
                advice="Stop it first, or name its unit or container in the job, so that the agent can.",
            )

    def start(self) -> None:
        """The operator starts it."""

    def wait_well(self) -> None:
        """Nobody to wait for."""

    def facts(self) -> Mapping[str, object]:
        return {}


def service_for(what: str, *, unit: str | None, container: str | None, docker: str | None, probe: Probe) -> Service:
    """The service that a job names, else one that the operator manages."""
    if unit is not None:
        return Unit(unit, probe)
    if container is not None:
        return Container(container, docker, probe)
    return Unmanaged(what, probe)
