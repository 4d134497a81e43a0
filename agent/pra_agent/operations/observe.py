"""observe: a second pair of eyes. What a store shows of a repository to somebody who may only list it.

No password, no object is read: names, sizes and the store's own times are enough to tell whether an agent's word about
its newest backup can be true.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from pra_agent.clock import Clock
from pra_agent.errors import PraError
from pra_agent.storage.backend import Backend, Kind

#: Seen at every look; listing the data takes a request for each thousand packs, so it is done less often.
ALWAYS: Final = (Kind.CONFIG, Kind.KEY, Kind.LOCK, Kind.SNAPSHOT, Kind.INDEX)


@dataclass(frozen=True, slots=True)
class Watched:
    """A repository to look at. `destination` is the label that the agent's metrics have for it."""

    node: str
    destination: str
    store: Callable[[], AbstractContextManager[Backend]]


@dataclass(frozen=True, slots=True)
class Tally:
    """Number and bytes of the objects of a kind."""

    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a repository; with an `error` it has nothing else. Times are the store's (LastModified), in UTC.

    `newest` is the newest snapshot's, `oldest_lock` the oldest lock's; None when there is none.
    """

    node: str
    destination: str
    looked: datetime
    newest: datetime | None = None
    oldest_lock: datetime | None = None
    tallies: Mapping[Kind, Tally] = field(default_factory=lambda: MappingProxyType({}))
    error: str = ""


def observe(watched: Watched, clock: Clock, kinds: Collection[Kind] = tuple(Kind)) -> Observation:
    """Look once. What the store refuses, or a place without a repository, is the observation's error."""
    looked = clock.now()
    tallies: dict[Kind, Tally] = {}
    times: dict[Kind, list[datetime]] = {Kind.SNAPSHOT: [], Kind.LOCK: []}
    try:
        with watched.store() as backend:
            for kind in kinds:
                tallies[kind] = _count(backend, kind, times.get(kind))
    except PraError as error:
        return Observation(watched.node, watched.destination, looked, error=error.message)
    if Kind.CONFIG in tallies and tallies[Kind.CONFIG].objects == 0:
        return Observation(watched.node, watched.destination, looked, error="there is no repository")
    return Observation(
        watched.node,
        watched.destination,
        looked,
        newest=max(times[Kind.SNAPSHOT], default=None),
        oldest_lock=min(times[Kind.LOCK], default=None),
        tallies=tallies,
    )


def _count(backend: Backend, kind: Kind, times: list[datetime] | None) -> Tally:
    objects = size = 0
    for info in backend.list(kind):
        objects += 1
        size += info.size
        if times is not None and info.modified is not None:
            times.append(info.modified)
    return Tally(objects, size)
