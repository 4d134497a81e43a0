"""Settings of the exporter: `exporter:` in the configuration."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TlsSettings(BaseModel):
    """Certificate chain and private key, both PEM files; `client_ca` asks clients for a certificate of that CA."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path = Field(description="PEM file with the certificate chain.")
    key: Path = Field(description="PEM file with the private key.")
    client_ca: Path | None = Field(default=None, description="PEM file of the CA whose clients alone are let in.")


class ExporterSettings(BaseModel):
    """Where /metrics and the status page are served. Port 0 is any free one; no host means all interfaces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Whether to serve at all.")
    listen: str = Field(default="127.0.0.1:9807", description="Address and port.")
    tls: TlsSettings | None = Field(default=None, description="Serve HTTPS.")
    users: Path | None = Field(
        default=None, description="File of NAME:HASH lines (pra-agent's scrypt form); asks for basic auth."
    )

    @model_validator(mode="after")
    def _check_listen(self) -> Self:
        _ = self.address
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host ("" for all interfaces) and port."""
        host, colon, port = self.listen.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or not port.isdecimal() or int(port) > 65535 or (":" in bare and bare == host):
            message = f"listen must be HOST:PORT or [IPv6]:PORT, not {self.listen!r}"
            raise ValueError(message)
        return bare, int(port)
