"""The pruning host of a hardened set-up: its configuration, and what it prints of forget and prune for many hosts.

Each host keeps its own policies and key; only the store's credentials are replaced.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from zoneinfo import ZoneInfo

from pra_agent.cli.asking import ask_secret
from pra_agent.cli.decisions import show_decisions
from pra_agent.cli.directly import private_state, stoppable
from pra_agent.cli.operating import number
from pra_agent.cli.output import Output, count, instant
from pra_agent.cli.progress import showing
from pra_agent.cli.pruning_hosts import configurations
from pra_agent.cli.pruning_report import note
from pra_agent.clock import Clock, SystemClock
from pra_agent.config import Config, CopySettings
from pra_agent.config.models import PrunerSettings
from pra_agent.config.secrets import Resolver
from pra_agent.daemon.composition import Opening, opened_backend, opened_originals, opened_repository
from pra_agent.errors import UsageError
from pra_agent.model.runs import Operation
from pra_agent.operations.pruner import Place, Round, Visit, forget_at, prune_at
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.retention import Scope
from pra_agent.storage.settings import StorageSettings
from pra_agent.units import human_size

_WALKS: Mapping[Operation, Callable[[Iterable[Place], Round], Iterator[Visit]]] = {
    Operation.FORGET: forget_at,
    Operation.PRUNE: prune_at,
}


def everywhere(config: Config, output: Output, operation: Operation, *, node: str = "", dry_run: bool = False) -> int:
    """Give each host (or the one that is named) its turn and print how it went; returns the exit code.

    That is 1 when a host failed, or when something had been written over there.
    """
    pruner = config.pruner
    if pruner is None:
        raise UsageError("this is no pruning host; its configuration has no pruner")
    clock = SystemClock()
    hosts = [one for one in configurations(config) if not node or one.node == node]
    if not hosts:
        raise UsageError(f"the pruner knows no host {node}", advice="See pruner.hosts.")
    places = [place for host in hosts for place in _places(host, pruner, clock)]
    started = clock.now()
    visits: list[Visit] = []
    with showing(output) as report, stoppable() as stop:
        for visit in _WALKS[operation](places, Round(clock, report, stop, dry_run)):
            visits.append(visit)
            _tell(output, visit, operation, dry_run=dry_run)
    if pruner.textfile is not None and not dry_run and not node:
        note(private_state(), pruner.textfile, operation, visits, started, clock.now())
    return 1 if any(visit.error is not None or visit.covered for visit in visits) else 0


def _places(config: Config, pruner: PrunerSettings, clock: Clock) -> Iterator[Place]:
    """The repository of a host, and those of its copies for which the pruner has credentials."""
    yield _place(config, pruner, clock, None)
    for number_of, copy in enumerate(config.copies):
        credentials = pruner.copies.get(copy.name) or pruner.copies.get(copy.url)
        if credentials is not None:
            ours = copy.model_copy(update={"credentials": credentials})
            copies = (*config.copies[:number_of], ours, *config.copies[number_of + 1 :])
            yield _place(config.model_copy(update={"copies": copies}), pruner, clock, ours)


def _place(config: Config, pruner: PrunerSettings, clock: Clock, copy: CopySettings | None) -> Place:
    storage: StorageSettings = config.repository if copy is None else copy
    keep = copy.keep if copy is not None else None
    opening = Opening(
        copy=copy.label if copy is not None else "", state=private_state(), resolver=Resolver(ask=ask_secret)
    )
    lock = storage.object_lock
    retain = lock.retain if lock is not None else None
    return Place(
        node=config.node,
        copy=copy.label if copy is not None else "",
        scope=Scope(config.node, {name: keep or job.keep for name, job in config.jobs.items()}),
        zone=ZoneInfo(config.timezone),
        store=lambda: opened_backend(config, clock, opening),
        originals=lambda: opened_originals(config, clock, opening) if lock is not None else nullcontext(),
        repository=lambda: opened_repository(config, clock, opening),
        retain=retain,
        # A copy gets a snapshot when it comes to it, a new one gets those of years.
        quarantine=pruner.quarantine if copy is None else None,
        trusted=frozenset(pruner.trusted),
        grace=pruner.grace if pruner.grace is not None else retain,
        bounds=PruneSettings(
            max_unused=pruner.prune.max_unused, max_repack=pruner.prune.max_repack, budget=pruner.prune.budget
        ),
    )


def _tell(output: Output, visit: Visit, operation: Operation, *, dry_run: bool) -> None:
    place = visit.place
    where = {"node": place.node, "copy": place.copy}
    for handle in visit.covered:
        state = "is written over" if dry_run else "was written over, and was brought back"
        output.warn(f"{place.name}: {handle.path} {state}: somebody else has this host's credentials")
    for snapshot in visit.quarantined:
        output.warn(
            f"{place.name}: snapshot {snapshot.id[:8]} of {snapshot.job}, {instant(snapshot.time)} UTC,"
            " is in quarantine: the store got it at another time"
        )
    covered = [handle.path for handle in visit.covered]
    if visit.error is not None:
        error = visit.error
        output.data(
            {"type": "failed", **where, "overwritten": covered, "message": error.message, "advice": error.advice}
        )
        output.warn(f"{place.name}: {error.message}")
        return
    if operation is Operation.FORGET and dry_run:
        output.line(f"{place.name}:")
        show_decisions(output, visit.decisions, **where)
        return
    output.data({"type": "run", **where, "overwritten": covered, "run": visit.record})
    output.line(f"{place.name}: {_words(visit, operation, dry_run=dry_run)}")


def _words(visit: Visit, operation: Operation, *, dry_run: bool) -> str:
    if operation is Operation.FORGET:
        gone = sum(not decision.keep for decision in visit.decisions)
        aside = f", {len(visit.quarantined):,} in quarantine" if visit.quarantined else ""
        return f"{count(gone, 'snapshot')} forgotten, {len(visit.decisions) - gone:,} kept{aside}"
    if visit.record is None:
        return "nothing done"
    done = number(visit.record, "plan" if dry_run else "done", "bytes_given_back")
    return f"{human_size(done)} {'would be' if dry_run else ''} given back".replace("  ", " ")
