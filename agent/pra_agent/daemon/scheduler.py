"""Makes runs due: APScheduler fires by the timetable; what was missed while the daemon was down is caught up once.

The next run of each entry is in the journal, so that a restart knows what it missed. Missed fires of a job are
coalesced into one run, and each of them is counted. All methods belong to the event loop's thread.
"""

from abc import ABCMeta
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from apscheduler.jobstores.base import JobLookupError  # type: ignore[import-untyped]
from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]

from pra_agent.clock import Clock
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.timetable import Entry
from pra_agent.model.runs import Operation

_log = structlog.get_logger()


class EntryTrigger:
    """An entry of the timetable as APScheduler wants it."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The fire after the previous one, or after now."""
        return self._entry.next_after(previous if previous is not None else now)


cast("ABCMeta", BaseTrigger).register(EntryTrigger)


class Scheduler:
    """The clockwork. `due` is called for each request when its time has come; False: it is under way already."""

    def __init__(self, journal: Journal, clock: Clock, due: Callable[[RunRequest], bool]) -> None:
        self._journal = journal
        self._clock = clock
        self._due = due
        self._entries: dict[str, Entry] = {}
        self._alarms: Any = AsyncIOScheduler(timezone=UTC)

    def start(self, entries: Sequence[Entry]) -> None:
        """Begin to fire."""
        self._alarms.start()
        self.plan(entries)

    def stop(self) -> None:
        """Fire no more; harmless when it was not started."""
        if self._alarms.running:
            self._alarms.shutdown(wait=False)

    def wake(self) -> None:
        """Look at the wall clock again: timers sleep while the host does."""
        if self._alarms.running:
            self._alarms.wakeup()

    def plan(self, entries: Sequence[Entry]) -> None:
        """Replace the timetable; entries that stay keep their next run."""
        wanted = {_key(entry.request): entry for entry in entries}
        for key in self._entries.keys() - wanted.keys():
            with suppress(JobLookupError):
                self._alarms.remove_job(key)
            self._keep(self._entries[key].request, None)
        self._entries = wanted
        now = self._clock.now()
        for key, entry in wanted.items():
            when = self._first(entry, now)
            self._keep(entry.request, when)
            self._alarms.add_job(
                self._fire,
                args=[key],
                id=key,
                trigger=EntryTrigger(entry),
                next_run_time=when,
                coalesce=True,
                misfire_grace_time=None,
                replace_existing=True,
            )

    def _first(self, entry: Entry, now: datetime) -> datetime:
        planned = self._known(entry.request)
        regular = entry.next_after(now)
        if planned is None:
            return regular
        if planned > now:
            return min(planned, regular)
        missed = 1 + entry.fires(planned, now)
        self._count(entry.request, missed)
        _log.warning("runs were missed; one catches up", **_names(entry.request), missed=missed, since=str(planned))
        return min(now + entry.shift, regular)

    async def _fire(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        request, now = entry.request, self._clock.now()
        planned = self._known(request)
        self._keep(request, entry.next_after(now))
        missed = entry.fires(planned, now) if planned is not None else 0
        if self._journal.job_state(request.job).on_hold:
            _log.info("no scheduled run: on hold", **_names(request))
            return
        if not self._due(request):
            missed += 1
            _log.warning("the run before is not over; this one is left out", **_names(request))
        self._count(request, missed)

    def _known(self, request: RunRequest) -> datetime | None:
        if request.operation is Operation.BACKUP:
            return self._journal.job_state(request.job).next_run
        return self._journal.due(request.operation, request.job)

    def _keep(self, request: RunRequest, when: datetime | None) -> None:
        if request.operation is Operation.BACKUP:
            self._journal.set_next_run(request.job, when)
        else:
            self._journal.set_due(request.operation, when, request.job)

    def _count(self, request: RunRequest, missed: int) -> None:
        if request.operation is Operation.BACKUP:
            self._journal.add_missed(request.job, missed)


def _key(request: RunRequest) -> str:
    return f"{request.operation}:{request.job}"


def _names(request: RunRequest) -> dict[str, str]:
    names = {"operation": request.operation.value}
    return {**names, "job": request.job} if request.job else names
