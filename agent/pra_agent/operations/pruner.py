"""The pruner: forget and prune for many hosts, from another machine, with credentials that the hosts do not have.

A host may be in other hands while this runs, and its credentials write into its repository. So nothing that it wrote is
taken for granted: what was written over in a versioned bucket is brought back first; snapshots whose time the store's
clock contradicts are set aside, nothing young is forgotten (see `forget.ForgetRequest`); and what live snapshots need
stays under object lock, also where a lock or a contradiction that the host left keeps a prune from its turn. A place
that fails keeps no other from its turn.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from threading import Event

from pra_agent.clock import Clock
from pra_agent.errors import Interrupted, PraError, RefusedError
from pra_agent.model.events import Notice, Reporter
from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.prune import PruneRequest, lock_until, prune
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.prune_retention import extend_everything
from pra_agent.repository.repository import Repository
from pra_agent.retention import Decision, Scope
from pra_agent.storage.backend import Backend, Handle, Kind

#: So many objects that were written over are brought back in one run; more is for people to look at.
MOST_BROUGHT_BACK = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """One repository of one host, and by which rules it is looked after.

    `store` and `originals` open its backend and `storage.opening.open_originals`; `repository` opens it as a whole.
    `retain` is how long its objects are locked, None without object lock. `copy` is a copy's label, "" the host's own.
    """

    node: str
    scope: Scope
    store: Callable[[], AbstractContextManager[Backend]]
    originals: Callable[[], AbstractContextManager[Backend | None]]
    repository: Callable[[], AbstractContextManager[Repository]]
    copy: str = ""
    zone: tzinfo = UTC
    retain: timedelta | None = None
    quarantine: timedelta | None = None
    trusted: frozenset[str] = frozenset()
    grace: timedelta | None = None
    bounds: PruneSettings = field(default_factory=PruneSettings)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.node} (copy {self.copy})" if self.copy else self.node


@dataclass(frozen=True, slots=True)
class Visit:
    """What was done at a place; `record` is None when it failed, and `error` says why.

    `covered` are objects that had been written over; unless it was a dry run they were brought back. `quarantined` are
    set aside for people to look at, `decisions` is the whole table of a forget.
    """

    place: Place
    record: RunRecord | None = None
    error: PraError | None = None
    covered: Sequence[Handle] = ()
    decisions: Sequence[Decision] = ()
    quarantined: Sequence[Snapshot] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """What all visits of one round share."""

    clock: Clock
    report: Reporter
    stop: Event
    dry_run: bool = False


#: Does one operation at a place, given when the store first got what was written over.
Act = Callable[[Place, Repository, Round, Mapping[Handle, datetime]], Visit]


def forget_at(places: Iterable[Place], going: Round) -> Iterator[Visit]:
    """Forget at each place by its own policies."""
    return (_visit(place, going, _forget) for place in places)


def prune_at(places: Iterable[Place], going: Round) -> Iterator[Visit]:
    """Prune at each place within its own bounds; what stays is locked for `retain` from now on at least."""
    for place in places:
        visit = _visit(place, going, _prune)
        if visit.error is not None:
            try:
                _hold_all(place, going)
            except Interrupted:
                raise
            except PraError as error:
                going.report(Notice(f"{place.name}: the object lock was not extended: {error.message}", "warning"))
        yield visit


def _visit(place: Place, going: Round, act: Act) -> Visit:
    covered: list[Handle] = []
    try:
        written = bring_back(place, going, covered)
        with place.repository() as repository:
            if not going.dry_run:
                # Nobody is at work under a stale lock, and here is nobody to be asked.
                repository.unlock()
            return replace(act(place, repository, going, written), covered=covered)
    except Interrupted:
        raise
    except PraError as error:
        return Visit(place, error=error, covered=covered)


def bring_back(place: Place, going: Round, covered: list[Handle]) -> Mapping[Handle, datetime]:
    """Make the first version of what was written over the present one again; fills in `covered`.

    Returns when the store first got each object that has several versions. Raises `RefusedError` when there are more
    than `MOST_BROUGHT_BACK` of them.
    """
    written: dict[Handle, datetime] = {}
    with place.originals() as originals, place.store() as store:
        if originals is None:
            return written
        for kind in (Kind.CONFIG, Kind.KEY, Kind.SNAPSHOT, Kind.INDEX, Kind.DATA):
            for info in list(originals.list(kind)):
                first = originals.get(info.handle)
                if not _is_itself(info.handle, first):
                    continue
                if info.modified is not None:
                    written[info.handle] = info.modified
                if store.get(info.handle) == first:
                    continue
                covered.append(info.handle)
                if going.dry_run:
                    continue
                if len(covered) > MOST_BROUGHT_BACK:
                    raise RefusedError(
                        f"more than {MOST_BROUGHT_BACK} objects were written over",
                        advice="The host's credentials are in other hands; see docs/hardening.md.",
                    )
                originals.put(info.handle, first)
                going.report(Notice(f"{place.name}: {info.handle.path} was written over; it is back", "warning"))
    return written


def _is_itself(handle: Handle, data: bytes) -> bool:
    """Whether the bytes are those of the name; a repository's config has no name, there the first ones count."""
    return handle.kind is Kind.CONFIG or hashlib.sha256(data).hexdigest() == handle.name


def _forget(place: Place, repository: Repository, going: Round, written: Mapping[Handle, datetime]) -> Visit:
    request = ForgetRequest(
        run=_run_id(),
        scope=place.scope,
        zone=place.zone,
        dry_run=going.dry_run,
        quarantine=place.quarantine,
        trusted=place.trusted,
        written={handle.name: since for handle, since in written.items() if handle.kind is Kind.SNAPSHOT},
        grace=place.grace,
    )
    done = forget(request, repository, clock=going.clock, report=going.report, stop=going.stop)
    return Visit(place, done.record, decisions=done.decisions, quarantined=done.quarantined)


def _prune(place: Place, repository: Repository, going: Round, _written: Mapping[Handle, datetime]) -> Visit:
    request = PruneRequest(
        run=_run_id(), settings=place.bounds, dry_run=going.dry_run, retain=place.retain, prove_copies=True
    )
    done = prune(request, repository, clock=going.clock, report=going.report, stop=going.stop)
    return Visit(place, done.record)


def _hold_all(place: Place, going: Round) -> None:
    """Extend the lock of everything at a place that could not be pruned; also of what was written over."""
    if place.retain is None or going.dry_run:
        return
    until = lock_until(going.clock.now(), place.retain)
    with place.store() as store, place.originals() as originals:
        for backend in (store, originals):
            if backend is not None:
                extend_everything(backend, until, report=going.report, stop=going.stop)


def _run_id() -> str:
    return f"pruner-{secrets.token_hex(4)}"
