"""The source of a cluster: its snapshot, and with `mode: fs` the directory that it was written to."""

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import SkippedError, SourceError
from pra_agent.model.events import Notice
from pra_agent.model.references import SecretRef
from pra_agent.sources.attributes import Names
from pra_agent.sources.elasticsearch.cluster import Cluster
from pra_agent.sources.elasticsearch.reinstating import reinstate
from pra_agent.sources.elasticsearch.settings import ElasticsearchSettings
from pra_agent.sources.elasticsearch.snapshots import Made, Snapshots
from pra_agent.sources.inline import inline
from pra_agent.sources.source import Capture, CaptureContext, Entry, Listing, Missed, ReinstateContext, StateBefore
from pra_agent.sources.walk import Rules, Start, Tally, Walker

DIRECTORY = b"/elasticsearch/repository"
FACTS = b"/elasticsearch/facts.json"
_KEY = "snapshot under way"


class ElasticsearchSource:
    """One cluster. The data instant is the `start_time` of the cluster's snapshot."""

    def __init__(
        self,
        settings: ElasticsearchSettings,
        resolve: Callable[[SecretRef], str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(self, context: CaptureContext) -> Generator[Capture, None, None]:
        """Raises `SkippedError`, with the cluster's data instant, on a node that is not the elected master."""
        chosen = self._settings
        with self._cluster() as cluster, ExitStack() as stack:
            snapshots = Snapshots(cluster, chosen)
            if not chosen.any_node and not cluster.is_master_here():
                raise SkippedError(
                    f"{chosen.url}: the elected master is another node, whose agent saves the cluster",
                    instant=_newest(snapshots),
                )
            self._clear(cluster, context.state)
            snapshots.register()
            context.state.remember(_KEY, {"name": context.run})
            before = cluster.documents(chosen.indices, refresh=False)
            made = snapshots.make(context.run, context.report, context.stop)
            context.state.forget(_KEY)
            capture = _ClusterCapture(chosen, made, _describe(cluster, chosen, made, before))
            capture.open(stack)
            yield capture
            for name in snapshots.retain(self._clock.now()):
                context.report(Notice(f"the cluster's snapshot {name} was deleted, as the job says"))

    def undo(self, state: StateBefore) -> None:
        if _KEY in state.pending():
            with self._cluster() as cluster:
                self._clear(cluster, state)

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        with self._cluster() as cluster:
            return reinstate(cluster, self._settings, context)

    def indices_there(self) -> Sequence[str]:
        """Ask the cluster which indices it has, its own (with a leading dot) left out. Raises `SourceError`."""
        with self._cluster() as cluster:
            rows = cluster.ask("GET", "/_cat/indices", format="json", h="index", expand_wildcards="all")
        return sorted(str(row["index"]) for row in rows if not str(row["index"]).startswith("."))

    def _clear(self, cluster: Cluster, state: StateBefore) -> None:
        """Delete a snapshot that a crashed run was about to make."""
        told = state.pending().get(_KEY)
        if told is not None:
            Snapshots(cluster, self._settings).delete(f"pra-{str(told['name']).lower()}")
            state.forget(_KEY)

    def _cluster(self) -> Cluster:
        chosen = self._settings
        password = self._secret(chosen.password)
        return Cluster(chosen, password, self._secret(chosen.api_key))

    def _secret(self, reference: SecretRef | None) -> str | None:
        if reference is None:
            return None
        if self._resolve is None:
            raise SourceError(f"{self._settings.url}: the login of the job cannot be read here")
        return self._resolve(reference)


def _newest(snapshots: Snapshots) -> datetime | None:
    with suppress(SourceError):
        return max((one.start for one in snapshots.ours() if one.state == "SUCCESS"), default=None)
    return None


def _describe(
    cluster: Cluster, settings: ElasticsearchSettings, made: Made, before: Mapping[str, int]
) -> dict[str, Any]:
    """What a restore needs to know beyond the snapshot itself.

    Documents were counted before and after: while the cluster is written to, the snapshot has something in between.
    """
    counted = [index for index in made.indices if not index.startswith(".ds-")]
    after = cluster.documents(counted, refresh=made.state == "SUCCESS")
    told: dict[str, Any] = {
        **cluster.facts(),
        "mode": settings.mode,
        "repository": settings.repository,
        "snapshot": made.name,
        "state": made.state,
        "start": made.start.isoformat(),
        "indices": list(made.indices),
        "documents": {index: sorted({before.get(index, count), count}) for index, count in after.items()},
        "version": made.facts.get("version"),
        "aliases": cluster.ask("GET", "/_alias", absent={}),
        "index_templates": cluster.ask("GET", "/_index_template", absent={}),
        "component_templates": cluster.ask("GET", "/_component_template", absent={}),
    }
    if settings.s3 is not None:
        told["s3"] = settings.s3.as_settings()
    return told


@dataclass(slots=True)
class _ClusterCapture:
    """The facts, then (mode fs) the directory of the cluster's snapshots."""

    settings: ElasticsearchSettings
    made: Made
    facts: Mapping[str, Any]
    start: Start | None = None
    seen: int = 0
    size: int = 0

    @property
    def detail(self) -> Mapping[str, object]:
        """For the run's record: how large what the cluster keeps on this host is (mode fs)."""
        return {} if self.start is None else {"local_snapshot_bytes": self.size}

    @property
    def data_instant(self) -> datetime:
        return self.made.start

    @property
    def advances(self) -> bool:
        """Shards that are missing never let the data instant advance, whatever the job's budget for files."""
        return self.made.state == "SUCCESS"

    @property
    def roots(self) -> Sequence[bytes]:
        return [FACTS] if self.start is None else [FACTS, DIRECTORY]

    def open(self, stack: ExitStack) -> None:
        """Open the directory until the stack is left."""
        if self.settings.mode != "fs":
            return
        directory = self.settings.directory
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                f"{directory}: cannot be read: {error.strerror}",
                advice="location is what the nodes see; set path to where this host sees it.",
            ) from error
        stack.callback(os.close, fd)
        self.start = Start(fd, b".", DIRECTORY)

    def entries(self) -> Iterator[Entry | Missed | Listing]:
        when = int(self.data_instant.timestamp() * 1_000_000_000)
        yield inline(FACTS, json.dumps(self.facts, indent=1, sort_keys=True).encode(), when)
        for failure in self.made.failures:
            yield Missed(f"shard {failure.partition(':')[0]}", failure.partition(":")[2].strip())
        if self.start is not None:
            for item in Walker(self.start, Rules(), Names(), Tally()).entries():
                if isinstance(item, Listing):
                    self.seen += item.files
                    self.size += item.size
                yield item

    def verify(self) -> None:
        if self.start is not None and not self.seen:
            raise SourceError(f"{self.settings.directory}: holds no file after the cluster's snapshot")
