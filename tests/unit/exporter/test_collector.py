"""Metrics from the journal: there from the start, gone with their job, timestamps and not ages."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser as open_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pra_agent.exporter.collector import JournalCollector
from pra_agent.exporter.metrics import TABLE
from pra_agent.model.jobs import DaemonStatus, Destination, JobFact
from pra_agent.model.runs import JobState, Operation, Outcome, RunCount, RunRecord, StageHistogram
from tests.support.daemons import START, MemoryJournal

parse_open = cast("Callable[[str], Iterable[Metric]]", open_parser.text_string_to_metric_families)
open_metrics, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
generate_latest, _ = choose_encoder("text/plain")
STATUS = DaemonStatus("web-1", "1.2.3", START)
COPY = Destination("s3://dr/web-1", "s3://dr/web-1", off_host=True)
APP = JobFact("app", "files", "0 * * * *", 14400.0, 7200.0, (Destination(), COPY), (Operation.BACKUP, Operation.DRILL))


class Scraped:
    """What a scrape gives."""

    def __init__(self, journal: MemoryJournal, facts: list[JobFact], status: DaemonStatus = STATUS) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(JournalCollector(journal, lambda: facts, lambda: status))

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def run(operation: Operation, outcome: Outcome | None, at: int, **fields: object) -> RunRecord:
    started = START + timedelta(hours=at)
    finished = None if outcome is None else started + timedelta(seconds=90)
    record = RunRecord(f"{operation}-{at}", operation, "app", started, finished, outcome)
    return replace(record, **fields)  # type: ignore[arg-type]


def stamp(at: int, seconds: int = 0) -> float:
    return (START + timedelta(hours=at, seconds=seconds)).timestamp()


def test_a_new_job_has_all_its_series_before_its_first_run() -> None:
    scraped = Scraped(MemoryJournal(), [APP])

    for name in ("last_success", "last_attempt", "offsite"):
        value = scraped(f"pra_backup_{name}_timestamp_seconds", backup_job="app")
        assert value is not None, name
        assert math.isnan(value), name
    for destination in ("repository", "s3://dr/web-1"):
        value = scraped("pra_backup_data_timestamp_seconds", backup_job="app", destination=destination)
        assert value is not None
        assert math.isnan(value)
    assert scraped("pra_backup_awaiting_first", backup_job="app") == 1
    assert scraped("pra_job_rpo_seconds", backup_job="app") == 14400
    assert scraped("pra_job_rto_seconds", backup_job="app") == 7200
    for outcome in Outcome:
        assert scraped("pra_runs_total", backup_job="app", operation="backup", outcome=outcome.value) == 0
        assert scraped("pra_runs_total", backup_job="app", operation="drill", outcome=outcome.value) == 0
    assert scraped("pra_run_in_progress", backup_job="app", operation="backup") == 0
    assert scraped("pra_job_missed_runs_total", backup_job="app") == 0


def test_attempts_and_successes_are_apart() -> None:
    journal = MemoryJournal(
        [
            run(Operation.BACKUP, Outcome.SUCCESS, 1, bytes=1000, bytes_added=100, bytes_stored=50, files=7),
            run(Operation.BACKUP, Outcome.PARTIAL, 2, bytes=900, files=6, files_failed=1),
            run(Operation.BACKUP, Outcome.FAILED, 3),
        ]
    )
    scraped = Scraped(journal, [APP])

    assert scraped("pra_backup_last_success_timestamp_seconds", backup_job="app") == stamp(1, 90)
    assert scraped("pra_backup_last_attempt_timestamp_seconds", backup_job="app") == stamp(3)
    assert scraped("pra_backup_last_size_bytes", backup_job="app") == 900
    assert scraped("pra_backup_last_files_failed", backup_job="app") == 1


def test_data_instants_by_destination() -> None:
    journal = MemoryJournal(instants={"app": {"": START, COPY.key: START - timedelta(hours=1), "gone": START}})
    scraped = Scraped(journal, [APP])

    assert scraped("pra_backup_data_timestamp_seconds", backup_job="app", destination="repository") == stamp(0)
    assert scraped("pra_backup_data_timestamp_seconds", backup_job="app", destination=COPY.name) == stamp(-1)
    assert scraped("pra_backup_data_timestamp_seconds", backup_job="app", destination="gone") is None
    assert scraped("pra_backup_offsite_timestamp_seconds", backup_job="app") == stamp(-1)
    assert scraped("pra_backup_awaiting_first", backup_job="app") == 0


def test_a_running_run_is_seen() -> None:
    journal = MemoryJournal([run(Operation.BACKUP, None, 5)], going={"backup-5": {"bytes_done": 4096}})
    scraped = Scraped(journal, [APP])

    assert scraped("pra_run_in_progress", backup_job="app", operation="backup") == 1
    assert scraped("pra_run_progress_bytes", backup_job="app", operation="backup") == 4096
    assert scraped("pra_run_start_timestamp_seconds", backup_job="app", operation="backup") == stamp(5)


def test_series_go_with_their_job() -> None:
    journal = MemoryJournal(
        [run(Operation.BACKUP, Outcome.SUCCESS, 1)],
        instants={"app": {"": START}},
        numbers={("snapshots", "app"): 3},
        counted=[RunCount("app", Operation.BACKUP, Outcome.SUCCESS, 9)],
    )
    scraped = Scraped(journal, [])

    text = open_metrics(scraped.registry).decode()
    assert 'backup_job="app"' not in text


def test_counts_of_jobs_and_of_the_repository() -> None:
    journal = MemoryJournal(
        counted=[
            RunCount("app", Operation.BACKUP, Outcome.SUCCESS, 9),
            RunCount("", Operation.PRUNE, Outcome.FAILED, 2),
            RunCount("left", Operation.BACKUP, Outcome.FAILED, 5),
        ]
    )
    scraped = Scraped(journal, [APP])

    assert scraped("pra_runs_total", backup_job="app", operation="backup", outcome="success") == 9
    assert scraped("pra_runs_total", backup_job="", operation="prune", outcome="failed") == 2
    assert scraped("pra_runs_total", backup_job="", operation="prune", outcome="success") == 0
    assert scraped("pra_runs_total", backup_job="left", operation="backup", outcome="failed") is None


def test_drills_measure_the_restore() -> None:
    journal = MemoryJournal(
        [
            run(Operation.DRILL, Outcome.SUCCESS, 1, stages={"restore": 61.5, "verify": 20.0}),
            run(Operation.DRILL, Outcome.FAILED, 2),
        ]
    )
    scraped = Scraped(journal, [APP])

    assert scraped("pra_drill_last_success_timestamp_seconds", backup_job="app") == stamp(1, 90)
    assert scraped("pra_drill_last_attempt_timestamp_seconds", backup_job="app") == stamp(2)
    assert scraped("pra_drill_duration_seconds", backup_job="app") == 61.5


def test_upkeep_of_the_repository() -> None:
    journal = MemoryJournal(
        [
            run(Operation.PRUNE, Outcome.SUCCESS, 1, job=""),
            run(Operation.COPY, Outcome.SUCCESS, 2, job="", destination=COPY.key),
        ]
    )
    scraped = Scraped(journal, [APP])

    assert scraped("pra_prune_last_success_timestamp_seconds") == stamp(1, 90)
    assert scraped("pra_copy_last_success_timestamp_seconds", destination=COPY.name) == stamp(2, 90)
    assert math.isnan(scraped("pra_check_last_success_timestamp_seconds") or 0.0)


def test_numbers_of_the_journal() -> None:
    journal = MemoryJournal(
        numbers={
            ("repository_size_bytes", ""): 5e9,
            ("snapshots", "app"): 48,
            ("unprotected_resources", "volume"): 2,
            ("storage_requests_total", "put/200"): 7,
            ("storage_requests_total", "get/503"): 1,
            ("storage_retries_total", ""): 3,
            ("storage_bytes_total", "up"): 1e6,
        }
    )
    scraped = Scraped(journal, [APP])

    assert scraped("pra_repository_size_bytes") == 5e9
    assert scraped("pra_snapshots", backup_job="app") == 48
    assert scraped("pra_unprotected_resources", kind="volume") == 2
    assert scraped("pra_storage_requests_total", operation="put", code="200") == 7
    assert scraped("pra_storage_requests_total", operation="get", code="503") == 1
    assert scraped("pra_storage_retries_total") == 3
    assert scraped("pra_storage_bytes_total", direction="up") == 1e6


def test_no_lock_is_no_timestamp() -> None:
    scraped = Scraped(MemoryJournal(numbers={("repository_oldest_lock_timestamp_seconds", ""): 0.0}), [])

    value = scraped("pra_repository_oldest_lock_timestamp_seconds")
    assert value is not None
    assert math.isnan(value)


def test_hold_suspect_missed_next() -> None:
    state = JobState("app", START, 4, on_hold=True, suspect=True)
    scraped = Scraped(MemoryJournal(states={"app": state}), [APP])

    assert scraped("pra_on_hold", backup_job="app") == 1
    assert scraped("pra_suspect", backup_job="app") == 1
    assert scraped("pra_job_missed_runs_total", backup_job="app") == 4
    assert scraped("pra_job_next_run_timestamp_seconds", backup_job="app") == stamp(0)
    held = Scraped(MemoryJournal(), [APP], replace(STATUS, on_hold=True))
    assert held("pra_on_hold", backup_job="app") == 1


@pytest.mark.parametrize(("error", "value"), [("", 1), ("config.yaml:3: bad", 0)])
def test_the_configuration(error: str, value: float) -> None:
    assert (
        Scraped(MemoryJournal(), [], replace(STATUS, config_error=error))("pra_config_last_reload_successful") == value
    )


def test_durations() -> None:
    histogram = StageHistogram(Operation.BACKUP, "total", {1.0: 1, 60.0: 3, math.inf: 4}, 200.5, 4)
    scraped = Scraped(MemoryJournal(stages=[histogram]), [APP])

    for bound, count in (("1.0", 1), ("60.0", 3), ("+Inf", 4)):
        value = scraped("pra_run_duration_seconds_bucket", operation="backup", stage="total", le=bound)
        assert value == count
    assert scraped("pra_run_duration_seconds_count", operation="backup", stage="total") == 4
    assert scraped("pra_run_duration_seconds_sum", operation="backup", stage="total") == 200.5


def test_the_table_is_what_is_exported_and_both_formats_parse() -> None:
    histogram = StageHistogram(Operation.BACKUP, "total", {1.0: 1, math.inf: 1}, 0.5, 1)
    job = JobFact('odd"job\n', "files", rpo=1.0, destinations=APP.destinations)
    scraped = Scraped(MemoryJournal(stages=[histogram]), [APP, job])
    plain = {family.name for family in parse_text(generate_latest(scraped.registry).decode())}
    opened = {family.name: family for family in parse_open(open_metrics(scraped.registry).decode())}
    expected = {metric.exported.removesuffix("_total").removesuffix("_info") for metric in TABLE}
    assert {name.removesuffix("_info") for name in opened} == expected
    assert {name.removesuffix("_info") for name in plain} == expected
    assert all(family.documentation for family in opened.values())


def test_naming_follows_the_conventions() -> None:
    for metric in TABLE:
        assert metric.exported.startswith("pra_")
        assert metric.help.endswith(".")
        assert ("_total" in metric.exported) == (metric.kind == "counter")
        assert len(metric.labels) <= 3


def test_times_are_in_utc() -> None:
    assert START.utcoffset() == timedelta()
    assert datetime.fromtimestamp(stamp(0), START.tzinfo) == START
