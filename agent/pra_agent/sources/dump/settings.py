"""What a job of type `dump` says."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pra_agent.errors import ConfigError
from pra_agent.model.references import SecretField, SecretRef
from pra_agent.sources.source import Source
from pra_agent.units import Duration

Preset = Literal["mariadb", "mysql", "postgresql", "redis", "sqlite", "command"]
Argument = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]

_NEEDS = {"sqlite": "paths", "command": "command"}


class DumpSettings(BaseModel):
    """A database, or a set of them, dumped by its own tools.

    The password is given to the tools by environment or file, never as an argument. `password_env` names a variable
    that the container has already (MARIADB_ROOT_PASSWORD ...), so that the agent needs no copy of the secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["dump"] = "dump"
    preset: Preset
    container: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = Field(
        default=None, description="Run the tools inside this container; on the host when left out."
    )
    docker: str | None = Field(default=None, description="The engine's address; as the docker client has it otherwise.")
    databases: Literal["all"] | tuple[Name, ...] = "all"
    user: Name | None = None
    password: SecretField | None = None
    password_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    defaults_file: Path | None = Field(default=None, description="MariaDB's and MySQL's option file with the login.")
    host: Name | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    socket: Path | None = None
    paths: tuple[Path, ...] = Field(default=(), description="sqlite: the database files.")
    command: tuple[Argument, ...] = Field(default=(), description="command: what writes the dump to its stdout.")
    restore_command: tuple[Argument, ...] = Field(default=(), description="command: what reads it from its stdin.")
    trailer: str = Field(default="", description="command: what the dump's last kilobyte must contain.")
    min_bytes: Annotated[int, Field(ge=1)] = Field(default=1, description="A smaller dump fails the run.")
    timeout: Duration = Field(
        default=timedelta(hours=12), description="After so long a dump counts as hung and is ended."
    )

    @model_validator(mode="after")
    def _fits_the_preset(self) -> Self:
        needed = _NEEDS.get(self.preset)
        for name in _NEEDS.values():
            if name == needed and not getattr(self, name):
                raise ValueError(f"preset {self.preset} needs {name}")
            if name != needed and getattr(self, name):
                raise ValueError(f"{name} does not go with preset {self.preset}")
        if self.preset != "command" and (self.restore_command or self.trailer):
            raise ValueError("restore_command and trailer go with preset command only")
        if self.preset == "sqlite" and self.container is not None:
            raise ValueError("preset sqlite reads files of this host; name the path in the volume, no container")
        if self.password is not None and self.password_env is not None:
            raise ValueError("give password or password_env, not both")
        if self.password_env is not None and self.container is None:
            raise ValueError("password_env names a variable of a container; name the container too")
        if self.databases == ():
            raise ValueError('databases is empty; name some, or say "all"')
        return self

    def build(self, resolve: Callable[[SecretRef], str] | None = None) -> Source:
        """Make the source; secrets are read through `resolve` when a dump starts."""
        # The presets import what they need of a product's tools only when a job asks for them.
        from pra_agent.sources.dump.source import DumpSource  # noqa: PLC0415

        if self.password is not None and resolve is None:
            raise ConfigError("the dump's password cannot be read here")
        return DumpSource(self, resolve)
