"""Which packs a check reads: a random share, one of n parts, or a window that walks the whole in so many days."""

import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pra_agent.repository.prune_packs import Ids

Flags = npt.NDArray[np.bool_]
_PART = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%")


class Subset(Protocol):
    """A choice among packs, by their raw ids in ascending order."""

    def choose(self, ids: Ids) -> Flags:
        """Flag the packs to read."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """A random share, in percent; one pack at least."""

    percent: float
    seed: int | None = None

    def choose(self, ids: Ids) -> Flags:
        """Flag the packs to read."""
        flags = np.zeros(len(ids), np.bool_)
        count = min(len(ids), max(1, round(len(ids) * self.percent / 100)))
        # Which packs are read must not be foreseen by whoever damages them.
        rng = random.SystemRandom() if self.seed is None else random.Random(self.seed)  # noqa: S311 - for tests
        flags[rng.sample(range(len(ids)), count)] = True
        return flags


@dataclass(frozen=True, slots=True)
class Part:
    """The n-th of t parts; all parts together are the whole, whatever is added meanwhile."""

    number: int
    total: int

    def choose(self, ids: Ids) -> Flags:
        """Flag the packs to read."""
        flags: Flags = _leading(ids) % np.uint64(self.total) == self.number - 1
        return flags


@dataclass(frozen=True, slots=True)
class Window:
    """A range of the space of ids, as fractions of it from 0 to 1; it may run over the end."""

    start: float
    length: float

    @classmethod
    def since(cls, last: datetime | None, now: datetime, every: timedelta) -> "Window":
        """The range that is due so that the whole is read once in `every`, when `last` was the time before.

        Without a `last` it is a day's range; after a longer pause it is the whole.
        """
        elapsed = min(max(now - (last or now - timedelta(days=1)), timedelta()), every)
        return cls((now - elapsed).timestamp() % every.total_seconds() / every.total_seconds(), elapsed / every)

    def choose(self, ids: Ids) -> Flags:
        """Flag the packs to read."""
        if self.length >= 1:
            return np.ones(len(ids), np.bool_)
        places = _leading(ids) / 2.0**64
        return (places - self.start) % 1.0 < self.length


def parse_subset(text: str) -> Subset:
    """Read `5%`, `2/7` or `all`. ValueError for anything else."""
    text = text.strip()
    if text == "all":
        return Window(0, 1)
    if share := _SHARE.fullmatch(text):
        percent = float(share[1])
        if 0 < percent <= 100:
            return Window(0, 1) if percent == 100 else Share(percent)
    if part := _PART.fullmatch(text):
        number, total = int(part[1]), int(part[2])
        if 1 <= number <= total:
            return Part(number, total)
    raise ValueError(f"{text!r} is not a subset; write it like 5%, 2/7 or all")


def _leading(ids: Ids) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each id as a number."""
    raw = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), ids.dtype.itemsize)[:, :8]
    return np.ascontiguousarray(raw).view(">u8").reshape(-1).astype(np.uint64)
