"""The observer's own configuration, /etc/pra-agent/observer.yaml: where to look, how often, and how to tell it.

It has no jobs and no password. `load_observer(path)` raises `ConfigError`, one line for each problem.
"""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pra_agent.config.loading import ConfigProblems
from pra_agent.config.messages import explain
from pra_agent.config.models import check_name
from pra_agent.config.places import Problem, read_document
from pra_agent.errors import ConfigError
from pra_agent.exporter.settings import ExporterSettings
from pra_agent.storage.settings import StorageSettings
from pra_agent.units import Duration

OBSERVER_PATH = Path("/etc/pra-agent/observer.yaml")


class WatchedRepository(StorageSettings):
    """A repository to look at, with credentials that may only list it."""

    node: str = Field(description="The host's node name; the host part of its agent's instance in Prometheus.")
    destination: Annotated[
        str, Field(description="What the agent's metrics call it: repository, or the name (else the URL) of a copy.")
    ] = "repository"

    @field_validator("node")
    @classmethod
    def _node_is_a_name(cls, value: str) -> str:
        return check_name(value)


class ObserverSettings(BaseModel):
    """What `pra-agent observe` looks at, and where it tells what it saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repositories: tuple[WatchedRepository, ...] = Field(min_length=1)
    interval: Duration = Field(default=timedelta(minutes=10), description="How often it looks.")
    count_every: Duration = Field(
        default=timedelta(hours=6), description="How often it counts packs, which takes more requests."
    )
    exporter: ExporterSettings = Field(
        default_factory=lambda: ExporterSettings.model_validate({"listen": "127.0.0.1:9808"}),
        description="Where /metrics is served.",
    )
    textfile: Path | None = Field(
        default=None, description="A file for node_exporter's textfile collector, ending in .prom."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for (node, destination), number in Counter((one.node, one.destination) for one in self.repositories).items():
            if number > 1:
                raise ValueError(f"repositories: {node} has two that are called {destination}; name the copies")
        if self.exporter.users is not None:
            raise ValueError("exporter.users: the observer has no basic auth; use tls.client_ca, or listen on loopback")
        if self.interval < timedelta(seconds=1):
            raise ValueError("interval: at least a second")
        return self


def load_observer(path: Path = OBSERVER_PATH) -> ObserverSettings:
    """Read the observer's configuration. Raises `ConfigError`."""
    problems: list[Problem] = []
    try:
        document = read_document(path, problems)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}", advice="See docs/monitoring.md for an example."
        ) from error
    if not problems:
        try:
            return ObserverSettings.model_validate(document.data)
        except ValidationError as error:
            problems.extend(explain(error, ObserverSettings, document))
    raise ConfigProblems(problems)
