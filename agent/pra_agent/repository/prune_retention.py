"""Retention under object lock: what live snapshots need stays locked; what a prune will remove is let go."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Event

import numpy as np

from pra_agent.errors import Interrupted
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.repository.prune_plan import PrunePlan
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Backend, Handle, Kind

_STEP = 500


def extend_retention(
    repository: Repository,
    plan: PrunePlan,
    until: datetime,
    *,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> int:
    """Lock everything that stays until then at least; returns how many objects there are."""
    stays = plan.packs.table.used > 0
    stays[plan.repack] = False
    handles = _listed(repository.backend, (Kind.CONFIG, Kind.KEY, Kind.SNAPSHOT))
    handles += [Handle(Kind.INDEX, name) for name in sorted(plan.index_files)]
    handles += [Handle(Kind.DATA, plan.packs.table.name(int(number))) for number in np.flatnonzero(stays)]
    return _extend(repository.backend, handles, until, report, stop)


def extend_everything(
    backend: Backend, until: datetime, *, report: Reporter = ignore, stop: Event | None = None
) -> int:
    """Lock all objects until then at least, for want of a plan that tells what is needed; takes no lock and no index.

    Whoever keeps a prune from its turn cannot let the locks run out with it.
    """
    handles = _listed(backend, (kind for kind in Kind if kind is not Kind.LOCK))
    return _extend(backend, handles, until, report, stop)


def _listed(backend: Backend, kinds: Iterable[Kind]) -> list[Handle]:
    return [info.handle for kind in kinds for info in backend.list(kind)]


def _extend(backend: Backend, handles: Sequence[Handle], until: datetime, report: Reporter, stop: Event | None) -> int:
    def extend(handle: Handle) -> None:
        backend.extend_retention(handle, until)

    workers = max(1, backend.connections)
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="retention") as pool:
        for start in range(0, len(handles), _STEP):
            part = handles[start : start + _STEP]
            if stop is not None and stop.is_set():
                raise Interrupted("stopped while retention was extended")
            list(pool.map(extend, part))
            done += len(part)
            report(Progress("extend retention", files_done=done, files_total=len(handles)))
    return done
