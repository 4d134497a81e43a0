"""The pruning host of a hardened set-up: forget and prune for many hosts, with credentials that may delete.

Each host keeps its own policies and key; only the store's credentials are replaced. One host that fails keeps none of
the others from its turn.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from zoneinfo import ZoneInfo

from pra_agent.cli.asking import ask_secret
from pra_agent.cli.directly import private_state, stoppable
from pra_agent.cli.output import Output, count
from pra_agent.cli.progress import showing
from pra_agent.clock import SystemClock
from pra_agent.config import Config, load
from pra_agent.config.models import PrunerSettings
from pra_agent.config.secrets import Resolver
from pra_agent.daemon.composition import Opening, opened_repository
from pra_agent.errors import Interrupted, PraError, UsageError
from pra_agent.model.events import Reporter
from pra_agent.model.runs import RunRecord
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.prune import PruneRequest, prune
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Scope
from pra_agent.units import human_size


@dataclass(frozen=True, slots=True)
class Turn:
    """One host's turn: its configuration with the pruner's credentials, and its open repository."""

    config: Config
    pruner: PrunerSettings
    repository: Repository
    report: Reporter
    stop: Event

    @property
    def run(self) -> str:
        """An id for the run."""
        return f"pruner-{secrets.token_hex(4)}"


def configurations(config: Config) -> Iterator[Config]:
    """This host's configuration and those of the others, each with the pruner's credentials for the store."""
    pruner = config.pruner
    if pruner is None:
        return
    for one in (config, *(load(path) for path in pruner.hosts)):
        repository = one.repository.model_copy(update={"credentials": pruner.credentials})
        yield one.model_copy(update={"repository": repository})


def everywhere(config: Config, output: Output, one: Callable[[Turn], tuple[RunRecord, str]]) -> int:
    """Give each host its turn; returns the exit code, 1 when any failed."""
    pruner = config.pruner
    if pruner is None:
        raise UsageError("this is no pruning host; its configuration has no pruner")
    code = 0
    for place in configurations(config):
        opening = Opening(state=private_state(), resolver=Resolver(ask=ask_secret))
        try:
            with (
                showing(output) as report,
                stoppable() as stop,
                opened_repository(place, SystemClock(), opening) as repository,
            ):
                record, line = one(Turn(place, pruner, repository, report, stop))
        except Interrupted:
            raise
        except PraError as error:
            code = 1
            output.data({"type": "failed", "node": place.node, "message": error.message, "advice": error.advice})
            output.warn(f"{place.node}: {error.message}")
            continue
        output.data({"type": "run", "node": place.node, "run": record})
        output.line(f"{place.node}: {line}")
    return code


def forget_one(turn: Turn) -> tuple[RunRecord, str]:
    """Forget by the host's own policies; snapshots whose time is not to be believed are left alone."""
    scope = Scope(turn.config.node, {name: job.keep for name, job in turn.config.jobs.items()})
    request = ForgetRequest(
        run=turn.run, scope=scope, zone=ZoneInfo(turn.config.timezone), quarantine=turn.pruner.quarantine
    )
    done = forget(request, turn.repository, report=turn.report, stop=turn.stop)
    gone = sum(not decision.keep for decision in done.decisions)
    return done.record, f"{count(gone, 'snapshot')} forgotten, {len(done.decisions) - gone:,} kept"


def prune_one(turn: Turn) -> tuple[RunRecord, str]:
    """Prune within the host's own bounds, and extend the object lock of what live snapshots need."""
    bounds, lock = turn.config.maintenance.prune, turn.config.repository.object_lock
    request = PruneRequest(
        run=turn.run,
        settings=PruneSettings(max_unused=bounds.max_unused, max_repack=bounds.max_repack, budget=bounds.budget),
        retain=lock.retain if lock is not None else None,
    )
    done = prune(request, turn.repository, report=turn.report, stop=turn.stop)
    given_back = done.done.bytes_given_back if done.done is not None else 0
    return done.record, f"{human_size(given_back)} given back"
