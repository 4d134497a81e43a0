"""What a job of type `cassandra` says."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pra_agent.errors import ConfigError
from pra_agent.model.references import SecretField, SecretRef
from pra_agent.sources.source import Source
from pra_agent.units import Duration

#: All that Cassandra allows in the name of a keyspace or table; capitals need quotes in CQL, and none here.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,222}$")]
TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,222}\.[A-Za-z0-9_]{1,222}$")]
Argument = Annotated[str, Field(min_length=1)]


class CassandraTls(BaseModel):
    """TLS to the native port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path = Field(description="Who has signed the node's certificate.")
    cert_file: Path | None = Field(default=None, description="The agent's own certificate, if the node asks for one.")
    key_file: Path | None = None
    verify_host: bool = Field(default=True, description="The certificate must be for the first of hosts.")

    @model_validator(mode="after")
    def _a_pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class CassandraSettings(BaseModel):
    """One node of a cluster: each node saves what it holds, in a job of its own host.

    nodetool runs on this host, or inside `container`. The JMX password stays in a file that nodetool reads itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["cassandra"] = "cassandra"
    hosts: Annotated[tuple[Argument, ...], Field(min_length=1)] = Field(
        default=("127.0.0.1",), description="Addresses of this node's native port; the first that answers is asked."
    )
    port: Annotated[int, Field(ge=1, le=65535)] = 9042
    user: str | None = None
    password: SecretField | None = None
    tls: CassandraTls | None = None
    nodetool: Annotated[tuple[Argument, ...], Field(min_length=1)] = Field(
        default=("nodetool",), description="The command; options for JMX are put behind it."
    )
    jmx_host: Annotated[str, Field(pattern=r"^[^-\s]\S*$")] | None = None
    jmx_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    jmx_user: Annotated[str, Field(pattern=r"^[^-\s]\S*$")] | None = None
    jmx_password_file: Path | None = Field(default=None, description="For nodetool -pwf, as nodetool sees it.")
    container: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = Field(
        default=None, description="The node's container: nodetool runs in it, its mounts tell where the data is."
    )
    docker: str | None = Field(default=None, description="The engine's address; as the docker client has it otherwise.")
    unit: str | None = Field(default=None, description="The node's systemd unit, stopped and started by plan A.")
    data_dirs: tuple[Path, ...] = Field(
        default=(), description="As this host sees them, in the node's order; the node is asked when left out."
    )
    config: Path | None = Field(default=None, description="cassandra.yaml, for initial_token after plan A.")
    keyspaces: tuple[Name, ...] = Field(default=(), description="Only these; all, and the system's, when left out.")
    tables: tuple[TableName, ...] = Field(default=(), description="Only these, as KEYSPACE.TABLE.")
    exclude: tuple[Name, ...] = Field(default=(), description="Keyspaces that are left out.")
    timeout: Duration = Field(default=timedelta(hours=1), description="Of each nodetool command.")
    up_within: Duration = Field(default=timedelta(minutes=15), description="After plan A; else it is undone.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.tables and self.keyspaces:
            raise ValueError("choose by keyspaces or by tables, not both")
        if self.unit is not None and self.container is not None:
            raise ValueError("a node runs as a unit or in a container, not both")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if (self.jmx_user is None) != (self.jmx_password_file is None):
            raise ValueError("jmx_user and jmx_password_file go together")
        return self

    @property
    def whole(self) -> bool:
        """Whether all of the node is saved, its system keyspaces included."""
        return not self.keyspaces and not self.tables

    def build(self, resolve: Callable[[SecretRef], str] | None = None) -> Source:
        """Make the source; the password is read through `resolve` when the node is asked."""
        # The driver is imported only by hosts that ask for it.
        from pra_agent.sources.cassandra.source import CassandraSource  # noqa: PLC0415

        if self.password is not None and resolve is None:
            raise ConfigError("Cassandra's password cannot be read here")
        return CassandraSource(self, resolve)
