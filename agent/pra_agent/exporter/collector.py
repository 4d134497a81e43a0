"""The collector: journal and job facts to metric families, at each scrape anew, so that series go with their job.

A scrape asks the journal some ten indexed questions per job, and never the repository.
"""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from math import inf, nan
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pra_agent.exporter.metrics import METRICS, PREFIX, TABLE
from pra_agent.model.jobs import REPOSITORY, DaemonStatus, JobFact
from pra_agent.model.runs import JournalReader, Operation, Outcome, RunRecord, StageHistogram

#: What a finished backup left: a snapshot, good or not so good.
_WITH_SNAPSHOT: Final = (Outcome.SUCCESS, Outcome.PARTIAL, Outcome.SUSPECT)
_HOST_OPERATIONS: Final = (Operation.CHECK, Operation.PRUNE, Operation.FORGET, Operation.RECOVER)
_LAST_SIZES: Final[Mapping[str, Callable[[RunRecord], int]]] = {
    "backup_last_size_bytes": lambda run: run.bytes,
    "backup_last_added_bytes": lambda run: run.bytes_added,
    "backup_last_stored_bytes": lambda run: run.bytes_stored,
    "backup_last_files": lambda run: run.files,
    "backup_last_files_failed": lambda run: run.files_failed,
}


class JournalCollector(Collector):
    """Collects from a journal. `facts` gives the configured jobs, `status` the daemon as it is now."""

    def __init__(
        self,
        journal: JournalReader,
        facts: Callable[[], Sequence[JobFact]],
        status: Callable[[], DaemonStatus],
    ) -> None:
        self._journal = journal
        self._facts = facts
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Nothing: it spares the registry a collection at registration."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Fill all families of the table."""
        return _Scrape(self._journal, self._facts(), self._status()).families()


class _Scrape:
    """One scrape: the families of the table, while they are being filled."""

    def __init__(self, journal: JournalReader, facts: Sequence[JobFact], status: DaemonStatus) -> None:
        self._journal = journal
        self._facts = facts
        self._status = status
        self._samples: dict[str, dict[tuple[str, ...], float]] = {metric.name: {} for metric in TABLE}

    def families(self) -> Iterable[Metric]:
        for fact in self._facts:
            self._ages(fact)
            self._sizes(fact)
            self._drills(fact)
        self._runs()
        self._host()
        self._stored()
        return chain((self._family(metric.name) for metric in TABLE if metric.kind != "histogram"), [self._durations()])

    def _put(self, name: str, value: float | None, *labels: str) -> None:
        self._samples[name][labels] = nan if value is None else value

    # ------------------------------------------------------------ jobs
    def _ages(self, fact: JobFact) -> None:
        journal, job = self._journal, fact.name
        instants = journal.data_instants(job)
        success = journal.last_with(job, Operation.BACKUP, (Outcome.SUCCESS,))
        attempt = journal.last_run(job, Operation.BACKUP)
        off_host = [instants[place.key] for place in fact.destinations if place.off_host and place.key in instants]
        self._put("backup_last_success_timestamp_seconds", _ended(success), job)
        self._put("backup_last_attempt_timestamp_seconds", _seconds(attempt.started if attempt else None), job)
        self._put("backup_offsite_timestamp_seconds", _seconds(max(off_host, default=None)), job)
        for place in fact.destinations:
            self._put("backup_data_timestamp_seconds", _seconds(instants.get(place.key)), job, place.name)
        missing = any(place.key not in instants for place in fact.destinations)
        self._put("backup_awaiting_first", float(missing), job)
        state = journal.job_state(job)
        self._put("job_rpo_seconds", fact.rpo, job)
        self._put("job_rto_seconds", fact.rto, job)
        self._put("job_full_seconds", fact.full, job)
        self._put("job_next_run_timestamp_seconds", _seconds(state.next_run), job)
        self._put("job_missed_runs", state.missed_runs, job)
        self._put("on_hold", float(state.on_hold or self._status.on_hold), job)
        self._put("suspect", float(state.suspect), job)

    def _sizes(self, fact: JobFact) -> None:
        run = self._journal.last_with(fact.name, Operation.BACKUP, _WITH_SNAPSHOT)
        for name, size in _LAST_SIZES.items():
            self._put(name, size(run) if run is not None else None, fact.name)

    def _drills(self, fact: JobFact) -> None:
        success = self._journal.last_with(fact.name, Operation.DRILL, (Outcome.SUCCESS,))
        attempt = self._journal.last_run(fact.name, Operation.DRILL)
        if success is None and attempt is None and Operation.DRILL not in fact.operations:
            return
        self._put("drill_last_success_timestamp_seconds", _ended(success), fact.name)
        self._put("drill_last_attempt_timestamp_seconds", _seconds(attempt.started if attempt else None), fact.name)
        self._put("drill_duration_seconds", _duration(success), fact.name)

    # ------------------------------------------------------------ runs
    def _runs(self) -> None:
        jobs = {fact.name for fact in self._facts} | {""}
        pairs = {(fact.name, operation) for fact in self._facts for operation in fact.operations}
        counts = [count for count in self._journal.counts() if count.job in jobs]
        pairs |= {(count.job, count.operation) for count in counts}
        for job, operation in sorted(pairs):
            for outcome in Outcome:
                self._put("runs", 0, job, operation.value, outcome.value)
            self._going(job, operation)
        for count in counts:
            self._put("runs", count.count, count.job, count.operation.value, count.outcome.value)
        for run in self._journal.running():
            if run.job in jobs:
                self._going(run.job, run.operation)
                self._running(run)

    def _going(self, job: str, operation: Operation) -> None:
        run = self._journal.last_run(job, operation)
        self._put("run_in_progress", 0, job, operation.value)
        self._put("run_progress_bytes", 0, job, operation.value)
        self._put("run_start_timestamp_seconds", _seconds(run.started if run else None), job, operation.value)

    def _running(self, run: RunRecord) -> None:
        progress = self._journal.progress(run.id) or {}
        done = progress.get("bytes_done", 0)
        self._put("run_in_progress", 1, run.job, run.operation.value)
        self._put("run_progress_bytes", done if isinstance(done, int | float) else 0, run.job, run.operation.value)

    def _durations(self) -> Metric:
        metric = METRICS["run_duration_seconds"]
        family = HistogramMetricFamily(metric.exported, metric.help, labels=metric.labels)
        for histogram in self._journal.histograms():
            family.add_metric((histogram.operation.value, histogram.stage), _buckets(histogram), histogram.total)
        return family

    # ------------------------------------------------------------ host
    def _host(self) -> None:
        for operation in _HOST_OPERATIONS:
            run = self._journal.last_with("", operation, (Outcome.SUCCESS,))
            self._put(f"{operation.value}_last_success_timestamp_seconds", _ended(run))
        copies = {place.key: place.name for fact in self._facts for place in fact.destinations}
        for key, name in copies.items():
            if key != REPOSITORY:
                run = self._journal.last_with("", Operation.COPY, (Outcome.SUCCESS,), key)
                self._put("copy_last_success_timestamp_seconds", _ended(run), name)
        self._put("config_last_reload_successful", float(not self._status.config_error))
        self._put("build", 1, self._status.version, platform.python_version())

    def _stored(self) -> None:
        """Take over the numbers that operations left in the journal."""
        jobs = {fact.name for fact in self._facts}
        for metric in TABLE:
            if not metric.from_journal:
                continue
            values = self._journal.gauges(metric.key)
            if metric.name.endswith("_timestamp_seconds"):
                # Zero stands for "none" there.
                values = {key: value or nan for key, value in values.items()}
            if not metric.labels:
                self._put(metric.name, values.get("", 0.0 if metric.kind == "counter" else None))
            elif metric.labels == ("backup_job",):
                for job in jobs:
                    self._put(metric.name, values.get(job), job)
            else:
                for key, value in values.items():
                    self._put(metric.name, value, *_parts(key, len(metric.labels)))

    def _family(self, name: str) -> Metric:
        metric = METRICS[name]
        samples = self._samples[name]
        if metric.kind == "info":
            info = InfoMetricFamily(f"{PREFIX}{name}", metric.help)
            for labels in samples:
                info.add_metric((), dict(zip(metric.labels, labels, strict=True)))
            return info
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(f"{PREFIX}{name}", metric.help, labels=metric.labels)
        for labels, value in samples.items():
            family.add_metric(labels, value)
        return family


def _buckets(histogram: StageHistogram) -> list[tuple[str, float]]:
    bounds = {bound: float(count) for bound, count in histogram.buckets.items() if bound != inf}
    return [*((repr(bound), bounds[bound]) for bound in sorted(bounds)), ("+Inf", float(histogram.count))]


def _parts(key: str, number: int) -> Sequence[str]:
    parts = key.split("/", number - 1)
    return [*parts, *[""] * (number - len(parts))]


def _seconds(when: datetime | None) -> float | None:
    return when.timestamp() if when is not None else None


def _ended(run: RunRecord | None) -> float | None:
    return _seconds(run.finished) if run is not None else None


def _duration(run: RunRecord | None) -> float | None:
    if run is None or run.finished is None:
        return None
    # The restore part alone is what the RTO is about; a record without stages counts as a whole.
    return run.stages.get("restore", (run.finished - run.started).total_seconds())
