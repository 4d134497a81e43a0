"""What a configured job promises (facts), and how it stands (status): for the socket, the exporter and the page.

The facts come from the configuration, the status is computed from them and the journal, so that the command
line, the status page and the alerts never disagree. Durations in seconds, times aware and in UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pra_agent.model.runs import JournalReader, Operation, Outcome, RunRecord

#: The key of the job's own repository in `RunRecord.destination` and `JournalReader.data_instants`.
REPOSITORY = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """A place where snapshots of a job must be. `key` is what the journal calls it, `name` what people are shown.

    `name` is the value of the `destination` label: "repository" for the job's own repository, the URL of a copy
    (without credentials) for a copy. `rpo` is None where the job's own holds.
    """

    key: str = REPOSITORY
    name: str = "repository"
    off_host: bool = False
    rpo: float | None = None


@dataclass(frozen=True, slots=True)
class JobFact:
    """A configured job: `source` is the type of its source, `schedule` the text of its schedule.

    `operations` are the operations that it has a schedule or a duty for (a drill, a copy ...), so that their
    series exist before their first run. `full` is how often every byte is to be read again (s), None: never.
    """

    name: str
    source: str
    schedule: str = ""
    rpo: float | None = None
    rto: float | None = None
    destinations: Sequence[Destination] = (Destination(),)
    operations: Sequence[Operation] = (Operation.BACKUP,)
    full: float | None = None


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The daemon itself. `repository` is its URL without credentials; `repository_id` is "" while not opened.

    `config_error` is the reason why the newest reload was refused, "" when it was taken.
    """

    node: str
    version: str
    started: datetime
    pid: int = 0
    repository: str = ""
    repository_id: str = ""
    config_loaded: datetime | None = None
    config_error: str = ""
    on_hold: bool = False
    #: False until the journal is open, the configuration is loaded and the scheduler runs.
    ready: bool = True


class Health(StrEnum):
    """How a job stands against its RPO, the worst that holds."""

    BREACHED = "breached"
    SUSPECT = "suspect"
    AT_RISK = "at_risk"
    ON_HOLD = "on_hold"
    AWAITING_FIRST = "awaiting_first"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as it stands.

    `data_instants` go by the destination's name; `age` is the oldest's, None while one has none.
    """

    fact: JobFact
    health: Health
    age: float | None = None
    data_instants: Mapping[str, datetime] = field(default_factory=lambda: dict[str, datetime]())
    last_attempt: RunRecord | None = None
    last_success: RunRecord | None = None
    next_run: datetime | None = None
    missed_runs: int = 0
    on_hold: bool = False
    suspect: bool = False
    progress: Mapping[str, object] | None = None


def assess(fact: JobFact, journal: JournalReader, now: datetime) -> JobStatus:
    """Judge the job: its age is that of its destination that is farthest behind.

    "At risk" is: half of the RPO is used and the last attempt failed, or none was made when one was due.
    """
    known = journal.data_instants(fact.name)
    instants = {place.name: known[place.key] for place in fact.destinations if place.key in known}
    state = journal.job_state(fact.name)
    attempt = journal.last_run(fact.name, Operation.BACKUP)
    running = attempt is not None and attempt.finished is None
    return JobStatus(
        fact=fact,
        health=_health(_Standing(fact, known, now, state.on_hold, state.suspect, _tried(attempt, state.next_run, now))),
        age=_age(instants.values(), now) if len(instants) == len(fact.destinations) else None,
        data_instants=instants,
        last_attempt=attempt,
        last_success=journal.last_with(fact.name, Operation.BACKUP, (Outcome.SUCCESS,)),
        next_run=state.next_run,
        missed_runs=state.missed_runs,
        on_hold=state.on_hold,
        suspect=state.suspect,
        progress=journal.progress(attempt.id) if attempt is not None and running else None,
    )


@dataclass(frozen=True, slots=True)
class _Standing:
    fact: JobFact
    instants: Mapping[str, datetime]
    now: datetime
    on_hold: bool
    suspect: bool
    tried: bool


def _health(standing: _Standing) -> Health:
    used = [_used(standing, place) for place in standing.fact.destinations]
    verdicts = (
        (Health.BREACHED, any(share is not None and share > 1 for share in used)),
        (Health.SUSPECT, standing.suspect),
        (Health.AT_RISK, not standing.tried and any(share is not None and share > 0.5 for share in used)),
        (Health.ON_HOLD, standing.on_hold),
        (Health.AWAITING_FIRST, any(place.key not in standing.instants for place in standing.fact.destinations)),
    )
    return next((health for health, holds in verdicts if holds), Health.OK)


def _used(standing: _Standing, place: Destination) -> float | None:
    """Tell the share of the RPO that is used; None without an RPO or before the first snapshot."""
    rpo = standing.fact.rpo if place.rpo is None else place.rpo
    instant = standing.instants.get(place.key)
    if not rpo or instant is None:
        return None
    return (standing.now - instant).total_seconds() / rpo


def _age(instants: Iterable[datetime], now: datetime) -> float | None:
    oldest = min(instants, default=None)
    return None if oldest is None else (now - oldest).total_seconds()


#: How late a due run may start before it counts as not made: jitter and a busy lane.
LATE = timedelta(minutes=15)


def _tried(attempt: RunRecord | None, next_run: datetime | None, now: datetime) -> bool:
    """Tell whether the last attempt went well (or still runs) and none is overdue."""
    if next_run is not None and now - next_run > LATE:
        return False
    return attempt is None or attempt.outcome in (None, Outcome.SUCCESS)
