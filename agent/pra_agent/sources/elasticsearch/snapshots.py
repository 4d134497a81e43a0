"""Snapshots of a cluster: the repository registered and verified, one made for a run, old ones deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Any, cast

from pra_agent.errors import SourceError
from pra_agent.model.events import Progress, Reporter
from pra_agent.sources.elasticsearch.cluster import Cluster, quoted
from pra_agent.sources.elasticsearch.settings import ElasticsearchSettings

PREFIX = "pra-"
_DONE = frozenset({"SUCCESS", "PARTIAL", "FAILED", "INCOMPATIBLE"})


@dataclass(frozen=True, slots=True)
class Made:
    """A snapshot that has ended. `failures` name the shards that are missing from it."""

    name: str
    state: str
    start: datetime
    indices: tuple[str, ...]
    failures: tuple[str, ...]
    facts: Mapping[str, Any]


class Snapshots:
    """The snapshots of one repository of a cluster."""

    def __init__(self, cluster: Cluster, settings: ElasticsearchSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._path = f"/_snapshot/{quoted(settings.repository)}"

    def register(self) -> None:
        """Register the repository where the job says how, and have all nodes prove that they can write there.

        Raises `SourceError` when they cannot: data nodes that do not share the directory among others.
        """
        chosen = self._settings
        if chosen.mode == "fs":
            kind, settings = "fs", dict[str, object](location=str(chosen.location))
        elif chosen.s3 is not None:
            kind, settings = "s3", chosen.s3.as_settings()
        else:
            kind, settings = "", {}
        known = self._cluster.ask("GET", self._path, absent={})
        there = cast("Mapping[str, Any]", known.get(chosen.repository, {})).get("settings", {})
        if kind and any(str(there.get(key)).lower() != str(value).lower() for key, value in settings.items()):
            self._cluster.ask("PUT", self._path, {"type": kind, "settings": settings}, verify="false")
        elif not kind and not there:
            raise SourceError(
                f"{self._cluster.url}: no snapshot repository {chosen.repository!r} is registered",
                advice="Register it, or add s3: {bucket: ...} to the job.",
            )
        try:
            self._cluster.ask("POST", f"{self._path}/_verify")
        except SourceError as error:
            raise SourceError(
                f"not all nodes can use the repository {chosen.repository!r}: {error.message}",
                advice="mode fs needs a directory that all data nodes share; mode s3 credentials for each of them.",
            ) from error

    def make(self, run: str, report: Reporter, stop: Event) -> Made:
        """Make the run's snapshot and wait for its end."""
        chosen = self._settings
        name = PREFIX + run.lower()
        body: dict[str, Any] = {
            "indices": ",".join(chosen.indices),
            "include_global_state": chosen.global_state,
            "ignore_unavailable": False,
            "partial": True,
            "metadata": {"made_by": "pra-agent", "run": run},
        }
        if chosen.feature_states is not None:
            body["feature_states"] = list(chosen.feature_states)
        self._cluster.ask("PUT", f"{self._path}/{quoted(name)}", body, wait_for_completion="false")
        try:
            self._wait(name, report, stop)
        except BaseException:
            self.delete(name)
            raise
        made = self.get(name)
        if made.state not in ("SUCCESS", "PARTIAL"):
            self.delete(name)
            raise SourceError(f"the cluster's snapshot {name} ended as {made.state}: {'; '.join(made.failures)[:500]}")
        return made

    def _wait(self, name: str, report: Reporter, stop: Event) -> None:
        def done() -> bool:
            told = self._cluster.ask("GET", f"{self._path}/{quoted(name)}/_status")["snapshots"][0]
            stats = told.get("stats", {})
            total, processed = stats.get("incremental", {}), stats.get("processed", {})
            report(
                Progress(
                    "snapshot",
                    files_done=int(processed.get("file_count", 0)),
                    files_total=int(total.get("file_count", 0)),
                    bytes_done=int(processed.get("size_in_bytes", 0)),
                    bytes_total=int(total.get("size_in_bytes", 0)),
                )
            )
            # What is finished here may still be in progress in the repository's own list.
            return str(told.get("state")) in _DONE and self.get(name).state != "IN_PROGRESS"

        limit = self._settings.timeout.total_seconds()
        self._cluster.wait(done, within=limit, stop=stop, what=f"the cluster's snapshot {name}")

    def get(self, name: str) -> Made:
        """One snapshot. `SourceError` when there is none of that name."""
        return _made(self._cluster.ask("GET", f"{self._path}/{quoted(name)}")["snapshots"][0])

    def ours(self) -> list[Made]:
        """All snapshots that agents made, the oldest first."""
        told = self._cluster.ask("GET", f"{self._path}/{PREFIX}*", absent={"snapshots": []}, ignore_unavailable="true")
        return sorted((_made(one) for one in told.get("snapshots", ())), key=lambda made: made.start)

    def delete(self, name: str) -> None:
        """Delete a snapshot (or stop it while it is made)."""
        self._cluster.ask("DELETE", f"{self._path}/{quoted(name)}", absent={})

    def retain(self, now: datetime) -> list[str]:
        """Delete what the job no longer wants kept; the names of what was deleted."""
        chosen, ended = self._settings, [one for one in self.ours() if one.state != "IN_PROGRESS"]
        if chosen.mode == "fs":
            old = ended[: -chosen.keep_local]
        else:
            good = [one for one in ended if one.state == "SUCCESS"]
            safe = {one.name for one in good[-chosen.retain_min :]}
            old = [one for one in ended if one.start < now - chosen.retain and one.name not in safe]
        for one in old:
            self.delete(one.name)
        return [one.name for one in old]


def _made(told: Mapping[str, Any]) -> Made:
    millis = int(told.get("start_time_in_millis") or 0)
    failures = tuple(
        f"{one.get('index')}[{one.get('shard_id', one.get('shard'))}]: {one.get('reason')}"
        for one in cast("list[Mapping[str, Any]]", told.get("failures") or [])
    )
    reason = told.get("reason")
    return Made(
        str(told["snapshot"]),
        str(told.get("state")),
        datetime.fromtimestamp(millis / 1000, UTC),
        tuple(str(index) for index in cast("list[Any]", told.get("indices") or [])),
        failures or ((str(reason),) if reason else ()),
        told,
    )
