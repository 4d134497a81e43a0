"""Recovery readiness: would a restore work, how long would it take, is everything covered, and who says so."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import Dashboard

from pra_dashboards.parts import (
    GREEN,
    NONE_IS_GOOD,
    ORANGE,
    RED,
    Panel,
    finish,
    how,
    levels,
    lines,
    new,
    number,
    rows,
    variable,
)

HERE = 'instance=~"$instance"'
_BY = "by (instance, backup_job)"
_DAY = 86400
#: An age of something that is to be done every day, and of a monthly one.
DAILY = levels((None, GREEN), (2 * _DAY, ORANGE), (3 * _DAY, RED))
MONTHLY = levels((None, GREEN), (30 * _DAY, ORANGE), (35 * _DAY, RED))


def dashboard() -> Dashboard:
    """Build it."""
    board = new("pra-readiness", "Recovery readiness", "Whether a restore would work, and who says so.", "now-7d")
    board = board.with_variable(variable("instance", "Host", "label_values(pra_job_rpo_seconds, instance)"))
    for panel in _numbers():
        board = board.with_panel(panel)
    for title, panels in (("Proof", [_proof(), _care()]), ("Observer against agent", _observed())):
        board = board.with_row(build.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return finish(board)


def _numbers() -> Sequence[Panel]:
    drilled = f"pra_drill_last_success_timestamp_seconds{{{HERE}}}"
    return [
        number(
            "Jobs without a drill in 35 days",
            "short",
            f"count(pra_job_rto_seconds{{{HERE}}} unless on (instance, backup_job) time() - {drilled} < 35 * {_DAY}) "
            "or vector(0)",
            levels((None, GREEN), (1, ORANGE)),
        ),
        number(
            "Drills slower than the RTO",
            "short",
            f"count(pra_drill_duration_seconds{{{HERE}}} > on (instance, backup_job) pra_job_rto_seconds) or vector(0)",
            NONE_IS_GOOD,
        ),
        number(
            "Not checked in 3 days",
            "short",
            f"count(pra_build_info{{{HERE}}} unless on (instance) "
            f"time() - pra_check_last_success_timestamp_seconds{{{HERE}}} < 3 * {_DAY}) or vector(0)",
            NONE_IS_GOOD,
        ),
        number(
            "Unprotected resources",
            "short",
            f"sum(pra_unprotected_resources{{{HERE}}}) or vector(0)",
            NONE_IS_GOOD,
            about="Volumes, keyspaces and indices that no job covers.",
        ),
        number(
            "Suspect backups",
            "short",
            f"sum(pra_suspect{{{HERE}}})",
            NONE_IS_GOOD,
        ),
        number(
            "Repositories that nobody observes",
            "short",
            'count(label_replace(pra_build_info, "node", "$1", "instance", "(.+):[0-9]+") '
            "unless on (node) pra_observed_last_success_timestamp_seconds > 0) or vector(0)",
            levels((None, GREEN), (1, ORANGE)),
        ),
    ]


def _proof() -> Panel:
    return rows(
        "Jobs: drills and measured times against objectives",
        {"instance": "Host", "backup_job": "Job"},
        {
            f"max {_BY} (pra_job_rto_seconds{{{HERE}}})": ("RTO", how("s")),
            f"max {_BY} (pra_drill_duration_seconds{{{HERE}}}) or max {_BY} (pra_job_rto_seconds{{{HERE}}}) * NaN": (
                "Restore took",
                how("s"),
            ),
            f"max {_BY} (time() - pra_drill_last_success_timestamp_seconds{{{HERE}}}) "
            f"or max {_BY} (pra_job_rto_seconds{{{HERE}}}) * NaN": ("Last good drill", how("s", MONTHLY)),
            f"max {_BY} (pra_snapshots{{{HERE}}})": ("Snapshots", how("short")),
            f"max {_BY} (time() - pra_oldest_snapshot_timestamp_seconds{{{HERE}}})": ("Goes back", how("s")),
            f"max {_BY} (time() - pra_backup_offsite_timestamp_seconds{{{HERE}}})": ("Off the host", how("s")),
        },
        about="Empty cells: never.",
        height=9,
    )


def _care() -> Panel:
    by = "by (instance)"
    return rows(
        "Repositories: care",
        {"instance": "Host"},
        {
            f"max {by} (time() - pra_check_last_success_timestamp_seconds{{{HERE}}})": ("Checked", how("s", DAILY)),
            f"max {by} (time() - pra_forget_last_success_timestamp_seconds{{{HERE}}})": ("Forgotten", how("s")),
            f"max {by} (time() - pra_prune_last_success_timestamp_seconds{{{HERE}}})": ("Pruned", how("s")),
            f"max {by} (time() - pra_recover_last_success_timestamp_seconds{{{HERE}}})": ("Recovered", how("s")),
            f"max {by} (time() - pra_repository_oldest_lock_timestamp_seconds{{{HERE}}})": ("Oldest lock", how("s")),
            f"max {by} (pra_repository_size_bytes{{{HERE}}})": ("Size", how("bytes")),
        },
        about="How long ago each ended well. Empty cells: never, or another machine's to do.",
        height=7,
    )


def _observed() -> Sequence[Panel]:
    by = "by (node, destination)"
    claimed = (
        f"max {by} (label_replace(pra:backup_data_timestamp_seconds{{{HERE}}}, "
        '"node", "$1", "instance", "(.+):[0-9]+"))'
    )
    seen = f"max {by} (pra_observed_newest_snapshot_timestamp_seconds)"
    return [
        rows(
            "Newest backup, by the agent and by the store",
            {"node": "Node", "destination": "Destination"},
            {
                f"time() - {claimed}": ("Agent says", how("s")),
                f"time() - {seen}": ("Store shows", how("s")),
                f"{claimed} - {seen}": ("Agent ahead by", how("s", levels((None, GREEN), (600, RED)))),
                f'max {by} (pra_observed_objects{{kind="snapshots"}})': ("Snapshots", how("short")),
                f"sum {by} (pra_observed_bytes)": ("Size", how("bytes")),
                f"time() - max {by} (pra_observed_last_success_timestamp_seconds)": ("Looked", how("s")),
            },
            about="An object is never older than the data in it: an agent that is ahead of its store claims too much.",
            height=8,
        ),
        lines(
            "Snapshots in the store",
            "short",
            [('pra_observed_objects{kind="snapshots"}', "{{node}} {{destination}}")],
        ),
        lines(
            "Size in the store",
            "bytes",
            [(f"sum {by} (pra_observed_bytes)", "{{node}} {{destination}}")],
        ),
    ]
