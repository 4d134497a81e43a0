"""What a prune would do: a value that can be printed, made from packs under a usage and the store's listing."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pra_agent.errors import RefusedError
from pra_agent.repository.prune_packs import MIXED, Ids, Int, Packs, PackTable, hex_id, raw_ids
from pra_agent.storage.backend import ObjectInfo
from pra_agent.units import human_size, parse_size

#: So many packs of a kind below half of the target size are worth merging.
SMALL_PACKS = 4

Flags = npt.NDArray[np.bool_]


class PruneSettings(BaseModel):
    """Within which bounds a prune works. Sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_unused: str = Field(default="5%", description="what may stay unused: a share, a size, or `unlimited`")
    max_repack: int | None = Field(default=None, ge=0, description="how much is rewritten at most")
    budget: timedelta | None = Field(default=None, description="rewriting ends so long after the plan was begun")

    @field_validator("max_unused")
    @classmethod
    def _is_room(cls, value: str) -> str:
        room(value, 0)
        return value


def room(text: str, used: int) -> float:
    """How many bytes may stay unused beside `used` ones: `5%` of the whole, `10GiB`, `unlimited`. ValueError."""
    text = text.strip()
    if text == "unlimited":
        return float("inf")
    if not text.endswith("%"):
        return float(parse_size(text))
    share = float(text[:-1]) / 100
    if not 0 <= share < 1:
        raise ValueError(f"{text!r} is not a share below 100%")
    return used * share / (1 - share)


class Listing(NamedTuple):
    """The packs in the store: raw ids in ascending order, and their sizes."""

    ids: Ids
    sizes: Int

    @classmethod
    def of(cls, infos: Iterable[ObjectInfo]) -> "Listing":
        """Take a backend's listing; a pack that is named twice counts once."""
        names = bytearray()
        sizes: list[int] = []
        for info in infos:
            names += bytes.fromhex(info.handle.name)
            sizes.append(info.size)
        ids, first = np.unique(raw_ids([names.hex()]), return_index=True)
        return cls(ids, np.array(sizes, np.int64)[first])

    def sizes_of(self, ids: Ids) -> Int:
        """The size of each pack, -1 where it is not in the store."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, self.sizes[places], -1)


@dataclass(frozen=True, slots=True)
class PruneFigures:
    """A plan in numbers; sizes in bytes as stored."""

    packs_kept: int = 0
    packs_repacked: int = 0
    packs_removed: int = 0
    packs_unindexed: int = 0
    packs_vanished: int = 0
    blobs_used: int = 0
    blobs_unused: int = 0
    bytes_before: int = 0
    bytes_used: int = 0
    bytes_garbage: int = 0
    bytes_duplicate: int = 0
    bytes_repacked: int = 0
    bytes_given_back: int = 0
    bytes_unused_after: int = 0


@dataclass(slots=True)
class PrunePlan:
    """What to do. `repack` and `remove` are pack numbers of `packs`; `unindexed` are hex ids that no index lists.

    `vanished` are pack numbers whose files are gone, and that nothing needs: they leave the index only.
    """

    figures: PruneFigures
    packs: Packs
    repack: Int
    remove: Int
    vanished: Int
    unindexed: Sequence[str]
    snapshots: frozenset[str] = frozenset()
    index_files: frozenset[str] = frozenset()
    #: When the planning began, by the monotonic clock; the budget counts from there.
    started: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (len(self.repack) or len(self.remove) or len(self.vanished) or self.unindexed)

    def lines(self) -> list[str]:
        """The plan for people."""
        f = self.figures
        return [
            f"{f.packs_kept} packs stay as they are",
            f"{f.packs_repacked} packs are rewritten, {human_size(f.bytes_repacked)} of them is needed",
            f"{f.packs_removed} packs that nothing needs are removed, and {f.packs_unindexed} that no index lists",
            f"{f.blobs_used} blobs are used, {f.blobs_unused} are not",
            f"{human_size(f.bytes_garbage)} are garbage, {human_size(f.bytes_duplicate)} lie elsewhere as well",
            f"{human_size(f.bytes_given_back)} of {human_size(f.bytes_before)} are given back",
            f"{human_size(f.bytes_unused_after)} stay unused",
        ]

    def to_json(self) -> dict[str, int]:
        """The plan's figures for machines."""
        return asdict(self.figures)


def make_plan(packs: Packs, listing: Listing, settings: PruneSettings, *, pack_size: int) -> PrunePlan:
    """Decide over each pack. Raises `RefusedError` when index and store contradict each other."""
    facts = packs.table
    stored = listing.sizes_of(facts.ids)
    needed = facts.used > 0
    _refuse(facts, needed & (stored < 0), "packs that are needed are missing")
    _refuse(facts, needed & (stored != facts.size), "packs that are needed have another size than the index says")
    unused = facts.garbage + facts.duplicate
    repack = _to_repack(facts, needed, unused, settings) | _small(facts, needed, pack_size)
    if settings.max_repack is not None:
        repack = _within(facts, repack, settings.max_repack)
    remove = ~needed & (stored >= 0)
    kept = needed & ~repack
    strangers = np.setdiff1d(listing.ids, facts.ids, assume_unique=True)
    strange_bytes = int(listing.sizes_of(strangers).sum())
    figures = PruneFigures(
        packs_kept=int(kept.sum()),
        packs_repacked=int(repack.sum()),
        packs_removed=int(remove.sum()),
        packs_unindexed=len(strangers),
        packs_vanished=int((~needed & (stored < 0)).sum()),
        blobs_used=int(facts.used_blobs.sum()),
        blobs_unused=int((facts.blobs - facts.used_blobs).sum()),
        bytes_before=int(listing.sizes.sum()),
        bytes_used=int(facts.used.sum()),
        bytes_garbage=int(facts.garbage.sum()),
        bytes_duplicate=int(facts.duplicate.sum()),
        bytes_repacked=int(facts.used[repack].sum()),
        bytes_given_back=int(unused[repack].sum() + stored[remove].sum()) + strange_bytes,
        bytes_unused_after=int(unused[kept].sum()),
    )
    return PrunePlan(
        figures,
        packs,
        repack=np.flatnonzero(repack),
        remove=np.flatnonzero(remove),
        vanished=np.flatnonzero(~needed & (stored < 0)),
        unindexed=[hex_id(raw) for raw in strangers.tolist()],
    )


def _to_repack(facts: PackTable, needed: Flags, unused: Int, settings: PruneSettings) -> Flags:
    """The packs with the largest share of unused bytes, until no more is left unused than is allowed."""
    partly = np.flatnonzero(needed & (unused > 0))
    share = unused[partly] / facts.size[partly]
    order = partly[np.argsort(-share, kind="stable")]
    left = unused[order].sum() - np.cumsum(unused[order]) + unused[order]  # before each is rewritten
    chosen = np.zeros(len(facts), np.bool_)
    chosen[order[left > room(settings.max_unused, int(facts.used.sum()))]] = True
    chosen |= needed & (facts.types == MIXED)
    return chosen


def _small(facts: PackTable, needed: Flags, pack_size: int) -> Flags:
    """Packs of less than half the target size, when there are several of a kind to be merged."""
    chosen = np.zeros(len(facts), np.bool_)
    for kind in np.unique(facts.types).tolist():
        small = needed & (facts.types == kind) & (facts.size < pack_size // 2)
        if np.count_nonzero(small) >= SMALL_PACKS:
            chosen |= small
    return chosen


def _within(facts: PackTable, repack: Flags, limit: int) -> Flags:
    """As many of the packs to rewrite as the limit allows, those first that give back most for their bytes."""
    numbers = np.flatnonzero(repack)
    gain = (facts.garbage + facts.duplicate)[numbers] / facts.size[numbers]
    order = numbers[np.argsort(-gain, kind="stable")]
    chosen = np.zeros(len(facts), np.bool_)
    chosen[order[np.cumsum(facts.used[order]) <= limit]] = True
    return chosen


def _refuse(facts: PackTable, wrong: Flags, what: str) -> None:
    numbers = np.flatnonzero(wrong)
    if len(numbers):
        names = ", ".join(facts.name(int(number))[:10] for number in numbers[:3])
        raise RefusedError(
            f"{len(numbers)} {what}: {names}", advice="Nothing was changed; run pra-agent check, then pra-agent repair."
        )
