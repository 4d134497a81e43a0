"""status: how old every backup is, and what runs."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Annotated

import typer

from pra_agent.cli.options import options
from pra_agent.cli.output import Output, age, instant
from pra_agent.cli.reaching import configuration, daemon, direct
from pra_agent.cli.watching import watch
from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.control.client import Client
from pra_agent.daemon.facts import job_facts
from pra_agent.model.jobs import DaemonStatus, Health, JobFact, JobStatus
from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshots import SUSPECT_TAG, Snapshot
from pra_agent.repository.repository import Repository
from pra_agent.units import human_size

REPOSITORY_NAME = "repository"
COLUMNS = ("JOB", "STATE", "AGE", "RPO", "LAST RUN", "OUTCOME", "SIZE", "NEXT RUN")


def command(
    context: typer.Context,
    watching: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every other second.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 unless every job is within its RPO.")] = False,
) -> None:
    """Show every job: how old its data is against its RPO, its last run, its next one, and what runs now.

    With --direct the repository alone is asked: what it has of each job, without runs and schedules.
    """
    chosen = options(context)
    output = Output.of(chosen)
    with ExitStack() as opened:
        if chosen.direct:
            repository = opened.enter_context(direct(chosen))
            config = configuration(chosen)
            show = partial(_from_repository, output, config, repository)
        else:
            show = partial(_show, output, opened.enter_context(daemon(chosen)))
        if watching:
            watch(output, show)
        jobs = show()
    if check and any(job.health not in (Health.OK, Health.AWAITING_FIRST) for job in jobs):
        raise typer.Exit(1)


def _show(output: Output, client: Client) -> Sequence[JobStatus]:
    status, jobs = client.status(), client.jobs()
    now = SystemClock().now()
    output.data({"type": "status", "time": now, "daemon": status, "jobs": jobs})
    output.line(_headline(status, now))
    if status.config_error:
        output.line(f"the newest configuration was refused, the one before is in use: {status.config_error}")
    if status.on_hold:
        output.line("on hold: no scheduled run until pra-agent release")
    output.table(COLUMNS, [_row(job, now) for job in jobs], right=("AGE", "RPO", "SIZE"))
    for job in jobs:
        if job.health is Health.AWAITING_FIRST and job.data_instants:
            lacking = [place.name for place in job.fact.destinations if place.name not in job.data_instants]
            output.line(f"{job.fact.name}: nothing of it yet at {', '.join(lacking)}")
        if job.progress:
            output.line(f"{job.fact.name}: {_progress(job)}")
        if job.suspect:
            output.line(f"{job.fact.name}: the last backup looks too small; pra-agent accept {job.fact.name}")
    return jobs


def _from_repository(output: Output, config: Config, repository: Repository) -> Sequence[JobStatus]:
    """What the snapshots tell of each job, as a journal that has seen nothing else would."""
    now = SystemClock().now()
    good = {
        one.job: one
        for one in repository.snapshots()
        if one.hostname == config.node and not one.partial and SUSPECT_TAG not in one.tags
    }
    jobs = [_of_snapshot(fact, good.get(fact.name), now) for fact in job_facts(config)]
    place = repository.backend.location
    output.data({"type": "status", "time": now, "daemon": None, "repository": place, "jobs": jobs})
    output.line(f"{config.node}: repository {place}, asked directly")
    output.table(COLUMNS, [_row(job, now) for job in jobs], right=("AGE", "RPO", "SIZE"))
    return jobs


def _of_snapshot(fact: JobFact, newest: Snapshot | None, now: datetime) -> JobStatus:
    if newest is None:
        return JobStatus(fact, Health.AWAITING_FIRST)
    old = (now - newest.time).total_seconds()
    health = Health.BREACHED if fact.rpo and old > fact.rpo else Health.OK
    return JobStatus(fact, health, old, {REPOSITORY_NAME: newest.time})


def _headline(status: DaemonStatus, now: datetime) -> str:
    up = age((now - status.started).total_seconds())
    state = "" if status.ready else ", not ready yet"
    return f"{status.node}: pra-agent {status.version}, up {up}{state}, repository {status.repository}"


def _row(job: JobStatus, now: datetime) -> tuple[str, ...]:
    last = job.last_attempt
    return (
        job.fact.name,
        job.health.value,
        age(job.age),
        age(job.fact.rpo),
        instant(last.started) if last else "-",
        _outcome(last),
        human_size(job.last_success.bytes) if job.last_success else "-",
        _next(job, now),
    )


def _outcome(last: RunRecord | None) -> str:
    if last is None:
        return "-"
    return last.outcome.value if last.outcome is not None else "running"


def _next(job: JobStatus, now: datetime) -> str:
    if job.on_hold:
        return "on hold"
    if job.next_run is None:
        return "-"
    left = (job.next_run - now).total_seconds()
    return f"in {age(left)}" if left > 0 else "due"


def _progress(job: JobStatus) -> str:
    fields = job.progress or {}
    done, total = fields.get("bytes_done"), fields.get("bytes_total")
    text = f"{fields.get('stage', 'running')}, {fields.get('files_done', 0):,} files"
    if isinstance(done, int):
        text += f", {human_size(done)}"
        if isinstance(total, int) and total:
            text += f" of {human_size(total)} ({done / total:.0%})"
    return text
