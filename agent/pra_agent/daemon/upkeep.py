"""What follows from what: a fire becomes a run, a backup is followed by its copies, a failed one by another try.

Belongs to the event loop's thread.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from pra_agent.daemon.desk import Standing
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.runner import Runner
from pra_agent.errors import RefusedError
from pra_agent.model.runs import Operation, Outcome, RunRecord

#: Seconds after which a scheduled backup that failed is tried again, unless its next run comes sooner.
RETRIES: Sequence[float] = (300.0, 900.0, 1800.0, 3600.0)
#: What the journal says of runs that were stopped with the daemon, and of those that it left when it died.
STOPPED = "the daemon was stopped"
DIED = "the daemon ended while this ran"

_log = structlog.get_logger()


class Upkeep:
    """Gives the runner what is due."""

    def __init__(self, runner: Runner, journal: Journal, standing: Standing) -> None:
        self._runner = runner
        self._journal = journal
        self._standing = standing
        self._again: set[tuple[Operation, str, str]] = set()
        self._failed: dict[str, int] = {}

    def due(self, request: RunRequest) -> bool:
        """Queue what is due by the timetable; False when the one before is not over."""
        rules = self._standing.rules
        if not rules.can(request.operation):
            return True
        if self._runner.find(request) is not None:
            return False
        if request.operation is Operation.BACKUP:
            request = replace(request, full=rules.full_due(request.job))
        try:
            self._runner.submit(request)
        except RefusedError:
            return False
        return True

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Let the copies follow a backup, and a copy that began too early another one."""
        if record.operation is Operation.BACKUP:
            self._try_again(request, record)
        if record.operation is Operation.BACKUP and record.snapshot:
            for copy in self._standing.config.copies:
                self._copy(copy.url)
        elif request.key in self._again:
            self._again.discard(request.key)
            if record.outcome is Outcome.SUCCESS:
                self._submit(request)

    def catch_up(self) -> None:
        """Begin again what ended with the daemon before, and copy what it did not come to copy.

        A backup that was stopped with it (an upgrade) goes on at once: what it has stored is taken over. After a crash
        there is a pause, in case that the run was the reason.
        """
        for job in self._standing.config.jobs:
            newest = self._journal.last_run(job, Operation.BACKUP)
            if newest is None or newest.outcome is not Outcome.FAILED or newest.error not in {STOPPED, DIED}:
                continue
            request = RunRequest(Operation.BACKUP, job, full=newest.full, scheduled=True)
            _log.info("the backup that ended with the daemon begins again", job=job, run=newest.id)
            pause = 0.0 if newest.error == STOPPED else RETRIES[0]
            asyncio.get_running_loop().call_later(pause, self._retry, request, newest.id)
        for copy in self._standing.config.copies:
            if any(self._behind(job, copy.url) for job in self._standing.config.jobs):
                self._copy(copy.url)

    def _try_again(self, request: RunRequest, record: RunRecord) -> None:
        """After a scheduled backup has failed, try it again before its next turn, more and more seldom."""
        if record.outcome is not Outcome.FAILED:
            self._failed.pop(record.job, None)
            return
        if not request.scheduled or record.finished is None:
            return
        times = self._failed.get(record.job, 0)
        self._failed[record.job] = times + 1
        pause = RETRIES[min(times, len(RETRIES) - 1)]
        next_run = self._journal.job_state(record.job).next_run
        if next_run is None or (next_run - record.finished).total_seconds() > pause:
            _log.info("the backup is tried again", job=record.job, seconds=pause)
            asyncio.get_running_loop().call_later(pause, self._retry, request, record.id)

    def _retry(self, request: RunRequest, failed: str) -> None:
        newest = self._journal.last_run(request.job, Operation.BACKUP)
        gone = request.job not in self._standing.config.jobs
        if gone or newest is None or newest.id != failed or self._journal.job_state(request.job).on_hold:
            return
        self._submit(request)

    def _behind(self, job: str, destination: str) -> bool:
        instants = self._journal.data_instants(job)
        here, there = instants.get(""), instants.get(destination)
        return here is not None and (there is None or there < here)

    def _copy(self, destination: str) -> None:
        if not self._standing.rules.can(Operation.COPY):
            return
        request = RunRequest(Operation.COPY, destination=destination, scheduled=True)
        known = self._runner.find(request)
        if known is not None and known.record is not None:
            self._again.add(request.key)
        else:
            self._submit(request)

    def _submit(self, request: RunRequest) -> None:
        try:
            self._runner.submit(request)
        except RefusedError:
            _log.info("not begun: the daemon stops", operation=request.operation.value)
