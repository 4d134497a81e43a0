"""Settings whose own module is not there yet; each goes when its owner's appears."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pra_agent.units import Rate, Size


class StorageLimits(BaseModel):
    """Bandwidth and connections."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload: Rate | None = None
    download: Rate | None = None
    connections: Annotated[int, Field(ge=1, le=64)] = 8


class StorageSettings(BaseModel):
    """A place for a repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    region: str | None = None
    endpoint: str | None = None
    limits: StorageLimits = StorageLimits()


class FilesSettings(BaseModel):
    """Paths of this host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["files"] = "files"
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    exclude: tuple[str, ...] = ()
    exclude_files: tuple[Path, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    exclude_larger_than: Size | None = None
