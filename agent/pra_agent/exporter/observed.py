"""What the observer saw, for Prometheus: `pra_observed_*` at its own /metrics, or in a textfile.

book = ObservedBook()
book.enter(observation)        # from any thread
with serving(book, settings) as (host, port): ...
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from pathlib import Path
from threading import Lock
from typing import Final, cast

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pra_agent.errors import ConfigError, PraError
from pra_agent.exporter.metrics import PREFIX
from pra_agent.exporter.metrics import Metric as Described
from pra_agent.exporter.settings import ExporterSettings
from pra_agent.operations.observe import Observation, Tally
from pra_agent.storage.backend import Kind

_WHERE: Final = ("node", "destination")


def _observed(name: str, text: str, *labels: str) -> Described:
    return Described(f"observed_{name}", "gauge", (*_WHERE, *labels), text)


OBSERVED: Final[Sequence[Described]] = (
    _observed("newest_snapshot_timestamp_seconds", "When the store got the newest snapshot (its LastModified)."),
    _observed("oldest_lock_timestamp_seconds", "When the store got the oldest lock."),
    _observed("objects", "Objects in the repository, by kind; snapshots is the number of snapshots.", "kind"),
    _observed("bytes", "Size of the objects, by kind.", "kind"),
    _observed("last_attempt_timestamp_seconds", "When the observer looked last."),
    _observed("last_success_timestamp_seconds", "When the observer looked last and saw the repository."),
    _observed("failed", "1 when the newest look failed."),
)


class ObservedBook:
    """The newest of what was seen of each repository. A look that fails leaves what was seen before, with its time."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._newest: dict[tuple[str, str], Observation] = {}
        self._good: dict[tuple[str, str], Observation] = {}
        self._tallies: dict[tuple[str, str], dict[Kind, Tally]] = {}

    def enter(self, observation: Observation) -> None:
        """Take a look in."""
        where = (observation.node, observation.destination)
        with self._guard:
            self._newest[where] = observation
            if not observation.error:
                self._good[where] = observation
                self._tallies.setdefault(where, {}).update(observation.tallies)

    def samples(self) -> Mapping[str, Mapping[tuple[str, ...], float]]:
        """Values by metric, then by labels; NaN for what was never seen."""
        found: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in OBSERVED}
        with self._guard:
            for where, newest in self._newest.items():
                good = self._good.get(where)
                times = {
                    "newest_snapshot": good.newest if good else None,
                    "oldest_lock": good.oldest_lock if good else None,
                    "last_attempt": newest.looked,
                    "last_success": good.looked if good else None,
                }
                for name, when in times.items():
                    found[f"observed_{name}_timestamp_seconds"][where] = when.timestamp() if when is not None else nan
                found["observed_failed"][where] = float(bool(newest.error))
                for kind, tally in self._tallies.get(where, {}).items():
                    found["observed_objects"][*where, kind.value] = tally.objects
                    found["observed_bytes"][*where, kind.value] = tally.bytes
        return found


class ObservedCollector(Collector):
    """The book as metric families."""

    def __init__(self, book: ObservedBook) -> None:
        self._book = book

    def describe(self) -> Iterable[Metric]:
        """Nothing: it spares the registry a collection at registration."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Fill all families of `OBSERVED`."""
        samples = self._book.samples()
        for metric in OBSERVED:
            family = GaugeMetricFamily(f"{PREFIX}{metric.name}", metric.help, labels=metric.labels)
            for labels, value in samples[metric.name].items():
                family.add_metric(labels, value)
            yield family


@contextmanager
def serving(book: ObservedBook, settings: ExporterSettings) -> Generator[tuple[str, int]]:
    """Serve /metrics from threads until it is left; gives the address. Raises `ConfigError` when it cannot listen."""
    host, port = settings.address
    tls = settings.tls
    try:
        server, thread = start_http_server(
            port,
            addr=host or "::",
            registry=_registry(book),
            certfile=str(tls.certificate) if tls else None,
            keyfile=str(tls.key) if tls else None,
            client_cafile=str(tls.client_ca) if tls and tls.client_ca else None,
            client_auth_required=bool(tls and tls.client_ca),
        )
    except OSError as error:
        raise ConfigError(f"exporter: {settings.listen}: {error.strerror or error}") from error
    try:
        yield cast("tuple[str, int]", server.server_address[:2])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_textfile(book: ObservedBook, path: Path) -> None:
    """Put all of it into a file, as a whole. Raises `PraError`."""
    try:
        write_to_textfile(str(path), _registry(book))
    except OSError as error:
        raise PraError(f"{error.filename or path}: {error.strerror}", advice="Check textfile.") from error


def _registry(book: ObservedBook) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ObservedCollector(book))
    return registry
