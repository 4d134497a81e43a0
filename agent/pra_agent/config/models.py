"""The configuration as frozen models; each module's own Settings are composed here.

A new source is one import and one line in `SourceSettings`.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from pra_agent.config.pings import PingSettings
from pra_agent.config.schedule import Full, Schedule, ScheduleField, check_timezone, full_every
from pra_agent.control.settings import ControlSettings
from pra_agent.exporter.settings import ExporterSettings
from pra_agent.model.references import SecretField, SecretRef
from pra_agent.operations.hooks import Hooks
from pra_agent.repository.settings import Settings as Tuning
from pra_agent.retention import Keep
from pra_agent.sources.cassandra import CassandraSettings
from pra_agent.sources.docker_volume import DockerVolumeSettings
from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.elasticsearch import ElasticsearchSettings
from pra_agent.sources.files import FilesSettings
from pra_agent.sources.grafana import GrafanaSettings
from pra_agent.sources.prometheus import PrometheusSettings
from pra_agent.storage.settings import CredentialsSettings, StorageSettings
from pra_agent.units import Duration, Size, parse_size

SourceSettings = Annotated[
    FilesSettings
    | DumpSettings
    | DockerVolumeSettings
    | CassandraSettings
    | PrometheusSettings
    | ElasticsearchSettings
    | GrafanaSettings,
    Field(discriminator="type", description="What the job protects; `type` says which kind of source it is."),
]

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DEFAULT_KEEP = Keep(hourly=48, daily=30, weekly=8, min_count=3)


class Model(BaseModel):
    """A part of the configuration: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RepositorySettings(StorageSettings):
    """Where the host's repository is, and what opens it."""

    password: SecretField
    tuning: Tuning = Field(default=Tuning(), description="How packs and indexes are written; seldom of use.")


class CopySettings(StorageSettings):
    """A second repository that receives the snapshots after each backup."""

    name: Annotated[str, Field(description="For messages and labels; the URL when left out.")] = ""
    password: SecretField | None = Field(default=None, description="The repository's own when left out.")
    keep: Keep | None = Field(default=None, description="The jobs' own when left out.")

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or self.url


def _files(value: object) -> object:
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+)(?: files?)?", value.strip())
        if found is None:
            raise ValueError('a number of files; write it like "10 files"')
        return int(found.group(1))
    return value


FileCount = Annotated[int, BeforeValidator(_files), Field(ge=0, examples=["10 files"])]


class Defaults(Model):
    """What a job has unless it says otherwise. A job's `keep` replaces this one as a whole."""

    schedule: ScheduleField | None = Field(
        default=Schedule(cron="0 * * * *"), description="When it runs; null: only when asked."
    )
    rpo: Duration = Field(default=timedelta(hours=4), description="How old the newest good backup may be.")
    rto: Duration = Field(default=timedelta(hours=2), description="How long a restore may take.")
    jitter: Duration = Field(default=timedelta(minutes=5), description="The start is delayed by up to this.")
    keep: Keep = Field(default=_DEFAULT_KEEP, description="Which snapshots forget leaves.")
    full: Full = Field(default="daily", description="How often every byte is read instead of trusting metadata.")
    partial_ok: FileCount = Field(default=0, description="So many missing files still advance the RPO.")
    tags: tuple[str, ...] = Field(default=(), description="Further tags of the snapshots.")
    hooks: Hooks = Field(default=Hooks(), description="Commands around each backup.")
    ping: PingSettings | None = Field(default=None, description="A dead man's switch that hears of each backup.")

    @field_validator("tags")
    @classmethod
    def _tags_are_free(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tag in value:
            if not tag or "," in tag or tag.startswith(("job=", "run=")) or tag in _OWN_TAGS:
                raise ValueError(f"the tag {tag!r} cannot be used; it is empty, has a comma or is one of our own")
        return value

    @property
    def full_every(self) -> timedelta | None:
        """How old the newest run that read every byte may be; None: no such run is due ever."""
        return full_every(self.full)


_OWN_TAGS = frozenset({"pra-agent", "partial", "suspect", "pinned"})


def _without_name(schema: dict[str, Any]) -> None:
    """A job's name is its key; in the file it is nowhere else."""
    schema["properties"].pop("name", None)


class Job(Defaults):
    """A configured unit; what it leaves out, it has from the defaults."""

    model_config = ConfigDict(json_schema_extra=_without_name)

    source: SourceSettings
    name: Annotated[str, Field(exclude=True)] = ""


class StateSettings(Model):
    """Where the journal and the cache are."""

    dir: Path = Path("/var/lib/pra-agent")


class ScratchSettings(Model):
    """Room for restores in place and for sources that need a copy; `path` None: `scratch` below the state directory."""

    path: Path | None = None
    quota: Size = Field(default=20 * 1024**3, description="What needs more room than this there fails.")


def _room(value: object) -> object:
    if isinstance(value, str) and not value.strip().endswith("%"):
        parse_size(value)
    elif isinstance(value, str):
        number = value.strip()[:-1]
        if not number.replace(".", "", 1).isdecimal() or float(number) >= 100:
            raise ValueError(f"{value!r} is no share; write it like 5%")
    elif isinstance(value, int):
        return f"{value}B"
    return value


def _free(value: object) -> object:
    if isinstance(value, str) and " up to " in value:
        share, _, most = value.partition(" up to ")
        if not share.strip().endswith("%"):
            raise ValueError(f'{value!r} is no share and its limit; write it like "5% up to 10GiB"')
        _room(share)
        parse_size(most)
        return value
    return _room(value)


class LimitsSettings(Model):
    """What the agent may use of its host."""

    cache: Size = Field(
        default=2 * 1024**3, description="What is kept of indexes, snapshots and trees of a repository off the host."
    )
    scratch: ScratchSettings = ScratchSettings()
    min_free: Annotated[str, BeforeValidator(_free)] = Field(
        default="5% up to 10GiB",
        description="What the disks of state and scratch are to have free: a size, a share, or a share up to a size. "
        "Backups do not begin below it, and nothing is written to scratch that would leave less.",
    )
    workers: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Worker processes of a backup; the number of processors, four at most, when left out."
    )
    concurrent_backups: int = Field(default=2, ge=1, le=16, description="How many backups run at the same time.")
    nice: int = Field(default=10, ge=0, le=19, description="How much runs give way to others for the processor.")
    ionice: Literal["none", "best-effort", "idle"] = Field(
        default="best-effort", description="How runs queue for disks: as all others, behind them, or only when idle."
    )

    def free_bytes(self, total: int) -> int:
        """How many bytes of a disk of `total` bytes are to stay free."""
        text, _, most = self.min_free.partition(" up to ")
        share = text.strip()
        kept = int(total * float(share[:-1]) / 100) if share.endswith("%") else parse_size(share)
        return min(kept, parse_size(most)) if most else kept


class ForgetSettings(Model):
    """When snapshots are dropped by the jobs' keep policies."""

    schedule: ScheduleField | None = Schedule(cron="20 2 * * *")


class PruneBounds(Model):
    """Within which bounds blobs that no snapshot needs are reclaimed."""

    budget: Duration = Field(default=timedelta(minutes=30), description="It stops, to go on next time, after this.")
    max_unused: str = Field(default="5%", description="What may stay unused: a share of the repository, or a size.")
    max_repack: Size | None = Field(default=None, description="How much it rewrites at most in one run.")

    @field_validator("max_unused")
    @classmethod
    def _is_room(cls, value: str) -> str:
        _room(value)
        return value


class PruneSettings(PruneBounds):
    """When blobs that no snapshot needs are reclaimed, and within which bounds."""

    schedule: ScheduleField | None = Schedule(cron="40 2 * * *")


class CheckSettings(Model):
    """When the repository is verified. The data is walked, a part each run, once in `read_data_every`."""

    schedule: ScheduleField | None = Schedule(cron="30 4 * * *")
    read_data_every: Duration | None = timedelta(days=30)


class MaintenanceSettings(Model):
    """The care of the repository. In a hardened set-up (`pruner`) forget and prune run elsewhere: set null here."""

    forget: ForgetSettings | None = Field(
        default=ForgetSettings(), description="null: this host's agent never forgets, not even when asked."
    )
    prune: PruneSettings | None = Field(
        default=PruneSettings(), description="null: this host's agent never prunes, not even when asked."
    )
    check: CheckSettings = CheckSettings()


class PrunerSettings(Model):
    """On the pruning host only: the credentials that may delete, and the other hosts' configurations.

    `pra-agent --direct forget` and `prune` then walk them all, with these credentials and each host's own policies;
    every other `--direct` verb uses these credentials, too, for the host that `--as-node` names.
    """

    credentials: CredentialsSettings
    hosts: tuple[Path, ...] = Field(default=(), description="Configuration files of further hosts.")
    copies: Mapping[str, CredentialsSettings] = Field(
        default_factory=lambda: dict[str, CredentialsSettings](),
        description="Credentials for copies, by a copy's name or URL; copies that are not named are not walked.",
    )
    quarantine: Duration | None = Field(
        default=timedelta(days=1),
        description="A snapshot whose own time is further than this from when the store got it is left alone and "
        "displaces nothing; longer than the longest backup takes.",
    )
    trusted: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(
        default=(), description="Ids of snapshots that quarantine would set aside, and that were found to be good."
    )
    grace: Duration | None = Field(
        default=None,
        description="No snapshot is forgotten before the store has had it for so long; `object_lock.retain` when left "
        "out.",
    )
    prune: PruneBounds = Field(default=PruneBounds(), description="The bounds of each host's prune.")
    textfile: Path | None = Field(
        default=None, description="A file of metrics for node_exporter's textfile collector, ending in .prom."
    )


class Config(Model):
    """A host's whole configuration."""

    node: str = Field(description="This host's name in the repository, in metrics and in snapshots.")
    timezone: str = Field(default="UTC", description="Of cron schedules and of the keep policies' days.")
    repository: RepositorySettings
    copies: tuple[CopySettings, ...] = ()
    defaults: Defaults = Defaults()
    jobs: Mapping[str, Job] = Field(default_factory=lambda: dict[str, Job]())
    unprotected_ok: tuple[str, ...] = Field(
        default=(),
        description="What no job protects on purpose: names or patterns of volumes, bind mounts, keyspaces, indices or "
        "databases; KIND/NAME for one kind.",
    )
    state: StateSettings = StateSettings()
    limits: LimitsSettings = LimitsSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    exporter: ExporterSettings = Field(default_factory=lambda: ExporterSettings.model_validate({}))
    control: ControlSettings = Field(default_factory=lambda: ControlSettings.model_validate({}))
    pruner: PrunerSettings | None = None

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        return check_timezone(value)

    @field_validator("node")
    @classmethod
    def _node_is_a_name(cls, value: str) -> str:
        return check_name(value)

    @property
    def scratch_dir(self) -> Path:
        """Where drills and sources put what they need for a while."""
        return self.limits.scratch.path or self.state.dir / "scratch"

    def copy_password(self, copy: CopySettings) -> SecretRef:
        """The reference to what opens a copy."""
        return copy.password or self.repository.password


def check_name(name: str) -> str:
    """Return a name that is fit for a label, a tag and a file name. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no good name; use letters, digits, . _ - (63 at most)")
    return name
