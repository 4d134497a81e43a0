"""The configuration's answers to the runner: urgency, the child's task, and what counts as data that is safe."""

from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from pra_agent.clock import Clock
from pra_agent.config import Config
from pra_agent.daemon.child import Task
from pra_agent.daemon.journal import LAST_FULL, Journal
from pra_agent.daemon.requests import RunRequest
from pra_agent.daemon.worker import RunTask
from pra_agent.model.runs import Operation, Outcome, RunRecord

WORKER = "pra_agent.daemon.worker:run"
#: What does an operation, by name: it is imported in the run's own process. An operation is added here.
_ACTIONS = MappingProxyType(
    {
        Operation.BACKUP: "pra_agent.daemon.actions:backup",
        Operation.FORGET: "pra_agent.daemon.care:forget",
        Operation.PRUNE: "pra_agent.daemon.care:prune",
        Operation.CHECK: "pra_agent.daemon.care:check",
        Operation.COPY: "pra_agent.daemon.care:copy",
    }
)
#: A partial run of these never counts: what is missing is not a file but the sense of the whole.
_WHOLE_OR_NOTHING = frozenset({"dump", "cassandra", "elasticsearch"})
#: What is due a little early counts, so that a daily full does not slip by an hour each day.
_EARLY = timedelta(minutes=30)


class ConfigRules:
    """`runner.Rules` of one configuration."""

    def __init__(self, config: Config, journal: Journal, clock: Clock, *, log_json: bool = False) -> None:
        self.config = config
        self._journal = journal
        self._clock = clock
        self._log_json = log_json

    @property
    def concurrent_backups(self) -> int:
        return self.config.limits.concurrent_backups

    def slack(self, request: RunRequest) -> float:
        """As in `Rules`; a job without any data instant is the most urgent."""
        job = self.config.jobs.get(request.job)
        instant = self._journal.data_instants(request.job).get("")
        if job is None or instant is None:
            return float("-inf")
        return (job.rpo - (self._clock.now() - instant)).total_seconds()

    def task(self, run: RunRecord, request: RunRequest) -> Task:
        return self.errand(_ACTIONS[request.operation], run, request)

    def errand(self, action: str, run: RunRecord, request: RunRequest) -> Task:
        """The task of an action by its name."""
        limits = self.config.limits
        return Task(
            WORKER,
            RunTask(
                action,
                run,
                request,
                self.config,
                Path(self._journal.path),
                nice=limits.nice,
                ionice=limits.ionice,
                log_json=self._log_json,
            ),
        )

    def can(self, operation: Operation) -> bool:
        """Whether this daemon knows how to do it; forget and prune may be another machine's."""
        upkeep = self.config.maintenance
        elsewhere = (operation is Operation.FORGET and upkeep.forget is None) or (
            operation is Operation.PRUNE and upkeep.prune is None
        )
        return operation in _ACTIONS and not elsewhere

    def judge(self, record: RunRecord) -> bool:
        """As in `Rules`: DESIGN's rules of the data instant."""
        # A copy tells the instants of its jobs itself.
        if record.operation is not Operation.BACKUP:
            return False
        if record.outcome is Outcome.SUCCESS:
            return True
        if record.outcome is Outcome.SKIPPED:
            # Another agent saves the cluster; its newest success is known.
            return bool(record.detail.get("advances"))
        if record.outcome is not Outcome.PARTIAL:
            return False
        job = self.config.jobs.get(record.job)
        return (
            job is not None
            and job.source.type not in _WHOLE_OR_NOTHING
            and bool(record.detail.get("advances"))
            and record.files_failed <= job.partial_ok
        )

    def full_due(self, job: str) -> bool:
        """Whether the job's next run is to read every byte."""
        configured = self.config.jobs.get(job)
        every = configured.full_every if configured is not None else None
        if every is None:
            return False
        last = self._journal.gauge(LAST_FULL, job)
        return last is None or self._clock.timestamp() - last >= (every - _EARLY).total_seconds()
