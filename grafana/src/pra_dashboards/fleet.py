"""RPO fleet: one row per host and job, the worst first, and what is wrong anywhere."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import Dashboard

from pra_dashboards.parts import (
    GREEN,
    NONE_IS_GOOD,
    ORANGE,
    OUTCOME,
    RED,
    SHARE,
    YES_NO,
    Panel,
    bars,
    finish,
    how,
    levels,
    lines,
    new,
    number,
    rows,
    states,
    variable,
    words,
)

HERE = 'instance=~"$instance"'
JOB = f'{HERE}, backup_job=~"$backup_job"'
#: Per host and job.
_BY = "by (instance, backup_job)"

#: 2 while a backup runs, 3 while one is suspect, 1 after a success, 0 after anything else.
LAST_OUTCOME = (
    f'max {_BY} (2 * (pra_run_in_progress{{operation="backup", {JOB}}} == 1)) '
    f"or max {_BY} (3 * (pra_suspect{{{JOB}}} == 1)) "
    f"or max {_BY} (pra_backup_last_success_timestamp_seconds{{{JOB}}} "
    f">= bool pra_backup_last_attempt_timestamp_seconds{{{JOB}}})"
)


def dashboard() -> Dashboard:
    """Build it."""
    board = new("pra-fleet", "RPO fleet", "How old the newest backup of every job is, against what was agreed.")
    board = board.with_variable(variable("instance", "Host", "label_values(pra_job_rpo_seconds, instance)"))
    chosen = 'label_values(pra_job_rpo_seconds{instance=~"$instance"}, backup_job)'
    board = board.with_variable(variable("backup_job", "Job", chosen))
    for panel in (*_numbers(), _table()):
        board = board.with_panel(panel)
    board = board.with_row(build.Row("Over time"))
    worst = f"max {_BY} (pra:rpo_used_ratio{{{JOB}}})"
    board = board.with_panel(
        lines(
            "Share of the RPO that is used",
            "percentunit",
            [(worst, "{{instance}} {{backup_job}}")],
            about="A saw: it rises with time and falls with each backup. Above 100 % the RPO is breached.",
        )
    )
    board = board.with_panel(
        bars(
            "Closest to a breach now",
            "percentunit",
            f"topk(15, {worst})",
            "{{instance}} {{backup_job}}",
        )
    )
    met = words({"0": ("breached", RED), "1": ("met", GREEN)})
    board = board.with_panel(states("RPO met", f"min {_BY} (pra:rpo_met{{{JOB}}})", "{{instance}} {{backup_job}}", met))
    board = board.with_panel(
        lines(
            "Backups that ended, per hour",
            "short",
            [(f'sum by (outcome) (increase(pra_runs_total{{operation="backup", {JOB}}}[1h]))', "{{outcome}}")],
            bars=True,
        )
    )
    return finish(
        board.with_panel(
            lines(
                "Size of the repositories",
                "bytes",
                [(f"pra_repository_size_bytes{{{HERE}}}", "{{instance}}")],
            )
        )
    )


def _numbers() -> Sequence[Panel]:
    # `or vector(0)`: a count of nothing has no series.
    return [
        number("Breached", "short", f"count(pra:rpo_used_ratio{{{JOB}}} > 1) or vector(0)", NONE_IS_GOOD),
        number(
            "More than half used",
            "short",
            f"count(pra:rpo_used_ratio{{{JOB}}} > 0.5 <= 1) or vector(0)",
            levels((None, GREEN), (1, ORANGE)),
        ),
        number(
            "Silent agents",
            "short",
            'count(count by (instance) (pra:expected_job_rpo_seconds) unless on (instance) up{job="pra-agent"} == 1) '
            'or count(up{job="pra-agent"} == 0) or vector(0)',
            NONE_IS_GOOD,
        ),
        number(
            "Expected jobs that are gone",
            "short",
            "count(pra:expected_job_rpo_seconds unless on (instance, backup_job) pra_job_rpo_seconds) or vector(0)",
            NONE_IS_GOOD,
        ),
        number(
            "Awaiting the first backup",
            "short",
            f"sum(pra_backup_awaiting_first{{{JOB}}})",
            levels((None, GREEN), (1, ORANGE)),
        ),
        number(
            "RPO kept in 30 days",
            "percentunit",
            f"avg(pra:rpo_compliance_ratio:30d{{{JOB}}})",
            levels((None, RED), (0.99, ORANGE), (0.999, GREEN)),
            about="The average over all jobs and destinations of the share of time within the RPO.",
        ),
    ]


def _table() -> Panel:
    size = f"max {_BY} (pra_backup_last_size_bytes{{{JOB}}})"
    return rows(
        "Hosts and jobs",
        {"instance": "Host", "backup_job": "Job"},
        {
            f"max {_BY} (pra:rpo_used_ratio{{{JOB}}})": ("RPO used", how("percentunit", SHARE)),
            f"max {_BY} (pra:backup_age_seconds{{{JOB}}})": ("Age", how("s")),
            f"max {_BY} (pra:job_rpo_seconds{{{JOB}}})": ("RPO", how("s")),
            LAST_OUTCOME: ("Last outcome", how(mapping=OUTCOME)),
            f"1000 * max {_BY} (pra_job_next_run_timestamp_seconds{{{JOB}}})": ("Next run", how("dateTimeFromNow")),
            size: ("Size", how("bytes")),
            f"max {_BY} (pra_backup_last_files_failed{{{JOB}}})": ("Files missing", how("short", NONE_IS_GOOD)),
            f"max {_BY} (pra_snapshots{{{JOB}}})": ("Snapshots", how("short")),
            f"max {_BY} (pra_on_hold{{{JOB}}})": ("On hold", how(mapping=YES_NO)),
            f"min {_BY} (pra:rpo_compliance_ratio:30d{{{JOB}}})": ("RPO kept, 30 days", how("percentunit")),
        },
        about="The destination that is farthest behind counts. A silent agent keeps its last word, which ages.",
    )
