"""Settings of the control socket: `control:` in the configuration."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class ControlSettings(BaseModel):
    """Where the socket is, and which groups may do what beside root (and the daemon's own user).

    `read` lets its groups read every file that was backed up, with its secrets: it is as good as root for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: Path = Field(default=Path("/run/pra-agent/control.sock"), description="Path of the Unix socket.")
    run: tuple[str, ...] = Field(default=(), description="Groups that may see the status and start configured jobs.")
    read: tuple[str, ...] = Field(default=(), description="Groups that may read the content of all snapshots.")
