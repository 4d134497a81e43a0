"""Where a repository is and how to talk to it: the storage part of the configuration.

`config` adds the password. A relative directory, an S3 option beside a directory, or an object lock without checksums
is an error here, before anything runs.
"""

import re
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pra_agent.units import Duration, Rate

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_S3_ONLY = ("region", "endpoint", "path_style", "ca", "credentials", "sse", "object_lock", "storage_class")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _hours(value: object) -> object:
    if isinstance(value, str):
        found = _HOURS.fullmatch(value.strip())
        if found is None or (found[3] == "24" and found[4] != "00"):
            raise ValueError(f"{value!r} is no part of a day; write it like 08:00-18:00")
        return {"start": f"{found[1]}:{found[2]}", "end": "00:00" if found[3] == "24" else f"{found[3]}:{found[4]}"}
    return value


class Hours(_Model):
    """A part of every day, start included, end not; it may cross midnight. Hours of the limits' zone."""

    start: time
    end: time

    def __contains__(self, moment: time) -> bool:
        if self.start < self.end:
            return self.start <= moment < self.end
        return moment >= self.start or moment < self.end


class LimitWindow(_Model):
    """Other limits for a part of every day; a direction that is left out is not limited in it."""

    hours: Annotated[Hours, BeforeValidator(_hours)]
    upload: Rate | None = None
    download: Rate | None = None


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is no time zone; write it like Europe/Paris") from None
    return value


class StorageLimits(_Model):
    """Bandwidth and connections. The first window of `daily` that holds the hour replaces the two rates."""

    upload: Rate | None = None
    download: Rate | None = None
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    daily: tuple[LimitWindow, ...] = ()
    zone: Annotated[str, AfterValidator(_zone), Field(description="Time zone of the daily windows.")] = "UTC"


class CredentialsSettings(_Model):
    """An ini file with `aws_access_key_id` and so on below [profile]: a path, or a systemd credential of the unit."""

    file: Path | None = None
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    profile: str = "default"

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.file is None) == (self.credential is None):
            raise ValueError("name exactly one origin: {file: PATH} or {credential: NAME}")
        return self


class SseSettings(_Model):
    """Encryption by the store, on top of our own: with its own keys (AES256) or with a KMS key."""

    mode: Literal["AES256", "aws:kms"] = "AES256"
    key_id: Annotated[str, Field(description="KMS key or alias; the store's default key when left out.")] | None = None

    @model_validator(mode="after")
    def _key_with_kms(self) -> Self:
        if self.key_id is not None and self.mode != "aws:kms":
            raise ValueError("key_id needs mode aws:kms")
        return self


class ObjectLockSettings(_Model):
    """How long the store itself refuses to delete what was written (never set on locks)."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    retain: Duration

    @model_validator(mode="after")
    def _at_least_a_second(self) -> Self:
        if self.retain < timedelta(seconds=1):
            raise ValueError("retain must be longer")
        return self


class TimeoutSettings(_Model):
    """When a request is given up and tried again: no connection, no byte for so long, and all tries together."""

    connect: Duration = timedelta(seconds=10)
    read: Duration = timedelta(seconds=60)
    give_up: Duration = timedelta(minutes=15)


class S3Place(_Model):
    """A bucket and the prefix below it, without slashes at its ends."""

    bucket: str
    prefix: str


class StorageSettings(_Model):
    """The place of a repository: `s3://bucket/prefix`, or an absolute directory."""

    url: Annotated[str, Field(examples=["s3://bucket/backups/web-1", "/srv/backup/web-1"])]
    region: str | None = None
    endpoint: Annotated[str, Field(description="URL of an S3-compatible store; AWS when left out.")] | None = None
    path_style: Annotated[bool, Field(description="Bucket in the path, not in the host name.")] | None = None
    ca: Annotated[Path, Field(description="Certificates that prove the endpoint, when the system's do not.")] | None = (
        None
    )
    credentials: Annotated[CredentialsSettings, Field(description="The standard chain when left out.")] | None = None
    sse: SseSettings | None = None
    object_lock: ObjectLockSettings | None = None
    storage_class: Literal["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"] | None = Field(
        default=None, description="Of packs; everything else is STANDARD."
    )
    checksums: Literal["sha256", "md5", "off"] = Field(
        default="sha256", description="What the store checks an upload by; md5 or off for stores that know no better."
    )
    conditional: bool = Field(
        default=True,
        description="Send If-None-Match; false (ask before each upload) for stores that refuse or ignore it, as Ceph.",
    )
    off_host: bool | None = Field(
        default=None, description="Whether it survives the loss of this host; true for a directory on another machine."
    )
    limits: StorageLimits = StorageLimits()
    timeouts: TimeoutSettings = TimeoutSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.s3 is None:
            if not Path(self.url).is_absolute():
                raise ValueError("url: write s3://bucket/prefix, or a directory's absolute path")
            extra = [name for name in _S3_ONLY if getattr(self, name) is not None]
            if extra:
                raise ValueError(f"{extra[0]} is for s3:// only, and url is a directory")
        if self.object_lock is not None and self.checksums == "off":
            raise ValueError("object_lock needs checksums: sha256 or md5")
        return self

    @property
    def s3(self) -> S3Place | None:
        """Bucket and prefix when the place is S3. Raises ValueError for a bucket that cannot be."""
        if not self.url.startswith("s3://"):
            return None
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        prefix = prefix.strip("/")
        if _BUCKET.fullmatch(bucket) is None:
            raise ValueError(f"url: {bucket!r} cannot be a bucket's name")
        if "//" in prefix:
            raise ValueError("url: an empty part in the prefix")
        return S3Place(bucket=bucket, prefix=prefix)

    @property
    def survives_host(self) -> bool:
        """Whether this place outlives the host: S3 unless the settings say no, a directory only if they say yes."""
        return self.s3 is not None if self.off_host is None else self.off_host
