"""What a job of type `docker_volume` says."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pra_agent.model.references import SecretRef
from pra_agent.sources.source import Source
from pra_agent.units import Duration

VolumeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=255)]


class DockerVolumeSettings(BaseModel):
    """Volumes by name, by label, or of a compose project; `binds` takes the project's bind mounts as well.

    `quiesce` is done to exactly the running containers that use them, and undone when the capture ends, after
    `quiesce_limit` at the latest (the run fails then).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["docker_volume"] = "docker_volume"
    volume: VolumeName | None = None
    volumes: tuple[VolumeName, ...] = ()
    label: str | None = Field(default=None, description="KEY or KEY=VALUE that the volumes have.")
    project: str | None = Field(default=None, description="A compose project: all its volumes.")
    binds: bool = Field(default=False, description="With project: the bind mounts of its containers, too.")
    quiesce: Literal["none", "pause", "stop"] = "none"
    quiesce_limit: Duration = Field(default=timedelta(minutes=10), description="Containers never wait longer.")
    stop_timeout: Duration = Field(default=timedelta(seconds=30), description="For a container to stop by itself.")
    healthy_within: Duration = Field(default=timedelta(minutes=5), description="After a restore; else it is undone.")
    exclude: tuple[str, ...] = ()
    docker: str | None = Field(default=None, description="The engine's address; as the docker client has it otherwise.")

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        chosen = [name for name in ("volume", "volumes", "label", "project") if getattr(self, name)]
        if len(chosen) != 1:
            raise ValueError("name what to save by exactly one of volume, volumes, label or project")
        if self.binds and self.project is None:
            raise ValueError("binds goes with project")
        return self

    def build(self, resolve: Callable[[SecretRef], str] | None = None) -> Source:  # noqa: ARG002 - the contract's
        """Make the source."""
        # The Docker SDK is imported only by hosts that ask for it.
        from pra_agent.sources.docker_volume.source import DockerVolumeSource  # noqa: PLC0415

        return DockerVolumeSource(self)
