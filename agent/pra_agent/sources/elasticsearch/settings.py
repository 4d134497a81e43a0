"""What a job of type `elasticsearch` says."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pra_agent.model.references import SecretField, SecretRef
from pra_agent.sources.source import Source
from pra_agent.units import Duration

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=200)]


class S3Repository(BaseModel):
    """Where `mode: s3` lets the cluster write. Its credentials are the cluster's own (keystore or instance role)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: str
    base_path: str = ""
    region: str | None = None
    endpoint: str | None = None
    path_style: bool = False
    client: str = "default"

    def as_settings(self) -> dict[str, object]:
        """The repository's settings as the Snapshot API takes them."""
        told: dict[str, object] = {"bucket": self.bucket, "base_path": self.base_path, "client": self.client}
        told |= {key: value for key, value in (("region", self.region), ("endpoint", self.endpoint)) if value}
        return told | ({"path_style_access": True} if self.path_style else {})


class ElasticsearchSettings(BaseModel):
    """A cluster, saved by the one agent that runs beside its elected master.

    `mode: fs` snapshots into `location` (below path.repo, shared by all data nodes) and saves that directory, encrypted
    on the host. `mode: s3` lets the cluster write to its bucket itself, past our encryption, copies and object lock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["elasticsearch"] = "elasticsearch"
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] = "http://127.0.0.1:9200"
    mode: Literal["fs", "s3"]
    repository: Name = "pra-agent"
    location: Path | None = Field(default=None, description="fs: the directory, as the nodes see it.")
    path: Path | None = Field(default=None, description="fs: the same directory as this host sees it.")
    s3: S3Repository | None = Field(default=None, description="s3: left out when the repository is registered already.")
    accept_no_client_encryption: bool = False
    indices: tuple[str, ...] = Field(default=("*",), description="Names and patterns; -NAME leaves out.")
    feature_states: tuple[str, ...] | None = Field(default=None, description="Elasticsearch only; all when left out.")
    global_state: bool = True
    any_node: bool = Field(
        default=False, description="Run wherever this is configured, not on the elected master only."
    )
    user: str | None = None
    password: SecretField | None = None
    api_key: SecretField | None = None
    ca_file: Path | None = None
    timeout: Duration = Field(default=timedelta(hours=6), description="For a snapshot or a restore to end.")
    keep_local: Annotated[int, Field(ge=1)] = Field(default=2, description="fs: snapshots left in the directory.")
    retain: Duration = Field(default=timedelta(days=30), description="s3: older snapshots are deleted.")
    retain_min: Annotated[int, Field(ge=1)] = Field(default=3, description="s3: but so many stay.")

    @model_validator(mode="after")
    def _fits_the_mode(self) -> Self:
        if self.mode == "fs":
            if self.location is None:
                raise ValueError("mode fs needs location: a directory below the nodes' path.repo")
            if self.s3 is not None:
                raise ValueError("s3 goes with mode s3")
        else:
            if not self.accept_no_client_encryption:
                raise ValueError(
                    "mode s3 bypasses this agent's encryption, copies and object lock; "
                    "say accept_no_client_encryption: true, or use mode fs"
                )
            if self.location is not None or self.path is not None:
                raise ValueError("location and path go with mode fs")
        if self.password is not None and (self.user is None or self.api_key is not None):
            raise ValueError("give user and password, or api_key")
        return self

    @property
    def directory(self) -> Path:
        """Mode fs: the directory on this host."""
        if self.path is not None:
            return self.path
        if self.location is None:
            raise ValueError("mode fs has a location")
        return self.location

    def build(self, resolve: Callable[[SecretRef], str] | None = None) -> Source:
        """Make the source; the client library is imported only now."""
        from pra_agent.sources.elasticsearch.source import ElasticsearchSource  # noqa: PLC0415

        return ElasticsearchSource(self, resolve)
