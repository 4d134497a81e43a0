"""When what is due: schedules with a stable shift, as a pure function of the configuration."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pra_agent.config import Config, Schedule
from pra_agent.daemon.requests import RunRequest
from pra_agent.model.runs import Operation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Missed fires are counted up to here; a host that was off for years needs no exact number.
_MOST_MISSED = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is due by a schedule: every fire comes `shift` later than the schedule says."""

    request: RunRequest
    schedule: Schedule
    zone: str
    shift: timedelta

    def next_after(self, instant: datetime) -> datetime:
        """The first fire strictly after an instant, in UTC. Intervals lie on a grid, whatever restarts."""
        unshifted = instant - self.shift
        every = self.schedule.every
        if every is not None:
            return _EPOCH + ((unshifted - _EPOCH) // every + 1) * every + self.shift
        return self.schedule.next_after(unshifted, self.zone) + self.shift

    def fires(self, after: datetime, until: datetime) -> int:
        """How many fires there are after one instant, up to and with another."""
        if self.schedule.every is not None:
            return max(0, (until - self.next_after(after)) // self.schedule.every + 1)
        number = 0
        while (after := self.next_after(after)) <= until and number < _MOST_MISSED:
            number += 1
        return number


def stable_shift(node: str, what: str, jitter: timedelta) -> timedelta:
    """A part of the jitter that is always the same for this host and job, and differs between hosts; whole seconds."""
    digest = hashlib.sha256(f"{node}\0{what}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return timedelta(seconds=int(jitter.total_seconds() * share))


def timetable(config: Config) -> Sequence[Entry]:
    """Everything that the configuration schedules: the jobs' backups, then the care of the repository."""
    entries: list[Entry] = []
    for name, job in config.jobs.items():
        if job.schedule is not None:
            shift = stable_shift(config.node, name, job.jitter)
            entries.append(
                Entry(RunRequest(Operation.BACKUP, name, scheduled=True), job.schedule, config.timezone, shift)
            )
    upkeep = config.maintenance
    for operation, schedule in (
        (Operation.FORGET, upkeep.forget.schedule if upkeep.forget is not None else None),
        (Operation.PRUNE, upkeep.prune.schedule if upkeep.prune is not None else None),
        (Operation.CHECK, upkeep.check.schedule),
    ):
        if schedule is not None:
            shift = stable_shift(config.node, operation, config.defaults.jitter)
            entries.append(Entry(RunRequest(operation, scheduled=True), schedule, config.timezone, shift))
    return entries
