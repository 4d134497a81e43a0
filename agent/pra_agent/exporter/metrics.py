"""The table of all metrics; the collector fills it, docs/metrics.md is written from it.

Timestamps are seconds since the epoch and NaN while the thing has never happened: the series is there from the start,
and no comparison with it is true. Sizes are bytes. A series with `backup_job` goes with its job.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

PREFIX: Final = "pra_"
JOB: Final = "backup_job"

Kind = Literal["gauge", "counter", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `name` is without prefix, and without the suffix that Prometheus gives counters and infos."""

    name: str
    kind: Kind
    labels: Sequence[str]
    help: str
    #: Whether it is the journal's gauge of that name, by its second key (or "" without labels).
    from_journal: bool = False

    @property
    def exported(self) -> str:
        """The name in Prometheus."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return f"{PREFIX}{self.name}{suffix}"

    @property
    def key(self) -> str:
        """The name in the journal's gauges."""
        return self.exported.removeprefix(PREFIX)


def _job(name: str, text: str, *more: str, kind: Kind = "gauge", stored: bool = False) -> Metric:
    return Metric(name, kind, (JOB, *more), text, stored)


def _host(name: str, text: str, *labels: str, kind: Kind = "gauge", stored: bool = False) -> Metric:
    return Metric(name, kind, labels, text, stored)


_LAST: Final = "When the newest successful {0} of the repository ended."

TABLE: Final[Sequence[Metric]] = (
    # ---- how old
    _job("backup_last_success_timestamp_seconds", "When the newest successful backup ended."),
    _job("backup_last_attempt_timestamp_seconds", "When the newest backup started, whatever became of it."),
    _job(
        "backup_data_timestamp_seconds",
        "The instant that the newest durable data at a destination stands for; its age is the RPO in fact.",
        "destination",
    ),
    _job(
        "backup_offsite_timestamp_seconds",
        "The newest data instant that is durable off this host, at any destination.",
    ),
    _job("backup_awaiting_first", "1 while a destination has no good backup of the job yet."),
    _job("backup_last_full_timestamp_seconds", "When the newest backup started that read every byte.", stored=True),
    _job("job_rpo_seconds", "The job's recovery point objective."),
    _job("job_rto_seconds", "The job's recovery time objective."),
    _job("job_full_seconds", "How often every byte is to be read again; NaN: never."),
    _job("job_next_run_timestamp_seconds", "When the scheduler starts the job next."),
    _job("job_missed_runs", "Scheduled starts that did not happen.", kind="counter"),
    _job("on_hold", "1 while no scheduled run of the job is started (pra-agent hold)."),
    _job("suspect", "1 while a suspiciously small backup waits for pra-agent accept."),
    # ---- runs
    _job("runs", "Runs that ended.", "operation", "outcome", kind="counter"),
    _host(
        "run_duration_seconds",
        "How long runs took, as a whole (stage total) and by stage.",
        "operation",
        "stage",
        kind="histogram",
    ),
    _job("run_in_progress", "1 while a run of the operation goes on.", "operation"),
    _job(
        "run_start_timestamp_seconds",
        "When the newest run of the operation started; with run_in_progress it tells a run that is stuck.",
        "operation",
    ),
    _job("run_progress_bytes", "Bytes that the running run has handled, 0 when none runs.", "operation"),
    # ---- how large
    _job("backup_last_size_bytes", "Size of what the newest backup contains."),
    _job("backup_last_added_bytes", "Bytes that were new in the newest backup, before compression."),
    _job("backup_last_stored_bytes", "Bytes that the newest backup added to the repository."),
    _job("backup_last_files", "Files in the newest backup."),
    _job("backup_last_files_failed", "Files that are missing from the newest backup."),
    _job("snapshots", "Snapshots of the job in the repository.", stored=True),
    _job("oldest_snapshot_timestamp_seconds", "The data instant of the job's oldest snapshot.", stored=True),
    _job("local_snapshot_bytes", "Size of snapshots that the source keeps on this host.", stored=True),
    _host("repository_size_bytes", "Size of the repository.", stored=True),
    # ---- how restorable
    _host("check_last_success_timestamp_seconds", _LAST.format("check")),
    _host("prune_last_success_timestamp_seconds", _LAST.format("prune")),
    _host("forget_last_success_timestamp_seconds", _LAST.format("forget")),
    _host("recover_last_success_timestamp_seconds", "When the newest successful recovery of this host ended."),
    _host(
        "copy_last_success_timestamp_seconds", "When the newest successful copy to a destination ended.", "destination"
    ),
    _job("drill_last_success_timestamp_seconds", "When the newest successful drill ended."),
    _job("drill_last_attempt_timestamp_seconds", "When the newest drill started."),
    _job("drill_duration_seconds", "How long the restore took in the newest successful drill: the RTO in fact."),
    _host(
        "escrow_proven_timestamp_seconds",
        "When an escrow slot was last proven to open the repository (pra-agent key escrow prove).",
        stored=True,
    ),
    _host("unprotected_resources", "What was found on this host and no job covers, by kind.", "kind", stored=True),
    # ---- the store and this host
    _host("repository_oldest_lock_timestamp_seconds", "When the oldest lock of the repository was made.", stored=True),
    _host("storage_requests", "Requests to the store.", "operation", "code", kind="counter", stored=True),
    _host("storage_retries", "Requests to the store that had to be repeated.", kind="counter", stored=True),
    _host("storage_bytes", "Bytes to (up) and from (down) the store.", "direction", kind="counter", stored=True),
    _host("clock_skew_seconds", "This host's clock minus the store's.", stored=True),
    _host("cache_bytes", "Size of the cache.", stored=True),
    _host("scratch_bytes", "Size of what lies in the scratch directory.", stored=True),
    _host("config_last_reload_successful", "1 when the newest reload of the configuration was taken."),
    _host("build", "The agent's version.", "version", "python", kind="info"),
)

METRICS: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in TABLE})
