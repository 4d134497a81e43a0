"""Job detail: one job of one host, with its runs, sizes, destinations, and the store of its repository."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import Dashboard

from pra_dashboards.parts import (
    NONE_IS_GOOD,
    PLAIN,
    SHARE,
    Panel,
    finish,
    lines,
    new,
    number,
    states,
    variable,
    words,
)

HERE = 'instance=~"$instance"'
JOB = f'{HERE}, backup_job=~"$backup_job"'


def dashboard() -> Dashboard:
    """Build it."""
    board = new("pra-job", "Job detail", "One job of one host: age, runs, sizes, repository and store.")
    board = board.with_variable(variable("instance", "Host", "label_values(pra_job_rpo_seconds, instance)", many=False))
    chosen = 'label_values(pra_job_rpo_seconds{instance=~"$instance"}, backup_job)'
    board = board.with_variable(variable("backup_job", "Job", chosen, many=False))
    for title, panels in (
        ("Now", _now()),
        ("Age and runs", _runs()),
        ("Sizes", _sizes()),
        ("Repository and store", _store()),
    ):
        board = board.with_row(build.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return finish(board)


def _now() -> Sequence[Panel]:
    return [
        number("RPO used", "percentunit", f"max(pra:rpo_used_ratio{{{JOB}}})", SHARE),
        number("Age", "s", f"max(pra:backup_age_seconds{{{JOB}}})", PLAIN),
        number("RPO", "s", f"min(pra:job_rpo_seconds{{{JOB}}})", PLAIN),
        number("Next run", "dateTimeFromNow", f"1000 * min(pra_job_next_run_timestamp_seconds{{{JOB}}})", PLAIN),
        number("Files in the newest backup", "short", f"max(pra_backup_last_files{{{JOB}}})", PLAIN),
        number("Files missing", "short", f"max(pra_backup_last_files_failed{{{JOB}}})", NONE_IS_GOOD),
    ]


def _runs() -> Sequence[Panel]:
    going = words({"0": ("idle", "text"), "1": ("running", "blue")})
    stages = "sum by (operation, stage) (rate(pra_run_duration_seconds_{0}{{{1}}}[$__range]))"
    return [
        lines(
            "Age at each destination",
            "s",
            [
                (f"pra:backup_age_seconds{{{JOB}}}", "{{destination}}"),
                (f"pra:job_rpo_seconds{{{JOB}}}", "RPO"),
            ],
        ),
        lines(
            "Runs that ended",
            "short",
            [(f"sum by (operation, outcome) (increase(pra_runs_total{{{JOB}}}[1h]))", "{{operation}} {{outcome}}")],
            bars=True,
        ),
        states("Running", f"pra_run_in_progress{{{JOB}}}", "{{operation}}", going, width=12),
        lines(
            "Stages: average duration",
            "s",
            [(f"{stages.format('sum', HERE)} / {stages.format('count', HERE)}", "{{operation}} {{stage}}")],
            about="Of all jobs of the host; durations are kept per operation.",
        ),
        lines("Handled by the running run", "bytes", [(f"pra_run_progress_bytes{{{JOB}}}", "{{operation}}")]),
        lines(
            "Missed starts, and holds",
            "short",
            [
                (f"increase(pra_job_missed_runs_total{{{JOB}}}[1h])", "missed"),
                (f"pra_on_hold{{{JOB}}}", "on hold"),
                (f"pra_suspect{{{JOB}}}", "suspect"),
            ],
        ),
    ]


def _sizes() -> Sequence[Panel]:
    return [
        lines("Size of the newest backup", "bytes", [(f"pra_backup_last_size_bytes{{{JOB}}}", "size")]),
        lines(
            "New in the newest backup",
            "bytes",
            [
                (f"pra_backup_last_added_bytes{{{JOB}}}", "added"),
                (f"pra_backup_last_stored_bytes{{{JOB}}}", "stored, compressed"),
            ],
        ),
        lines("Files", "short", [(f"pra_backup_last_files{{{JOB}}}", "files")]),
        lines(
            "Snapshots",
            "short",
            [(f"pra_snapshots{{{JOB}}}", "snapshots")],
        ),
    ]


def _store() -> Sequence[Panel]:
    return [
        lines("Size of the repository", "bytes", [(f"pra_repository_size_bytes{{{HERE}}}", "repository")]),
        lines(
            "Requests to the store",
            "reqps",
            [
                (
                    f"sum by (operation, code) (rate(pra_storage_requests_total{{{HERE}}}[$__rate_interval]))",
                    "{{operation}} {{code}}",
                )
            ],
        ),
        lines(
            "Bytes to and from the store",
            "Bps",
            [(f"sum by (direction) (rate(pra_storage_bytes_total{{{HERE}}}[$__rate_interval]))", "{{direction}}")],
        ),
        lines(
            "Requests that were repeated",
            "reqps",
            [(f"rate(pra_storage_retries_total{{{HERE}}}[$__rate_interval])", "retries")],
        ),
        lines(
            "Cache and scratch",
            "bytes",
            [(f"pra_cache_bytes{{{HERE}}}", "cache"), (f"pra_scratch_bytes{{{HERE}}}", "scratch")],
        ),
        lines(
            "Clock against the store",
            "s",
            [(f"abs(pra_clock_skew_seconds{{{HERE}}}) or 0 * pra_build_info{{{HERE}}}", "difference")],
            about="Zero also where the store tells no time (a directory).",
        ),
    ]
