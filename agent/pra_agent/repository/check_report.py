"""What a check found: damage, notes, and which snapshots, jobs and paths the damage hits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pra_agent.model.ids import BlobHandle
from pra_agent.units import human_size


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one object: its path in the repository (or a blob's address), and what is wrong with it."""

    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A snapshot that damage hits. `paths` are printable and at most some dozens; `count` is how many there are."""

    snapshot: str
    job: str
    time: datetime
    paths: Sequence[str]
    count: int

    def __str__(self) -> str:
        job = f"job {self.job}" if self.job else "no job"
        return f"snapshot {self.snapshot[:8]} ({job}, {self.time:%F %T}): {self.count} paths"


@dataclass(slots=True)
class CheckReport:
    """The outcome of a check; sizes in bytes as stored.

    `damage` means that something is lost or contradicts itself; `notes` are harmless (a prune clears them).
    `lost` are blobs that are needed or indexed and cannot be read from anywhere; `broken_packs` are hex ids of packs
    that are missing, cut or altered.
    """

    damage: list[Finding] = field(default_factory=lambda: list[Finding]())
    notes: list[Finding] = field(default_factory=lambda: list[Finding]())
    hits: list[Hit] = field(default_factory=lambda: list[Hit]())
    lost: set[BlobHandle] = field(default_factory=lambda: set[BlobHandle]())
    broken_packs: set[str] = field(default_factory=lambda: set[str]())
    snapshots: int = 0
    trees: int = 0
    blobs: int = 0
    packs: int = 0
    packs_read: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    bytes_unused: int = 0

    @property
    def ok(self) -> bool:
        """Whether all is well, as far as it was looked at."""
        return not self.damage

    @property
    def jobs(self) -> list[str]:
        """The jobs that the damage hits."""
        return sorted({hit.job for hit in self.hits})

    def lines(self) -> list[str]:
        """The report for people."""
        head = [
            f"{self.snapshots} snapshots, {self.trees} trees, {self.blobs} blobs in {self.packs} packs",
            f"{human_size(self.bytes_stored)} are stored, {human_size(self.bytes_unused)} of that unused",
            f"{self.packs_read} packs were read and proven ({human_size(self.bytes_read)})",
        ]
        body = [f"damage: {finding}" for finding in self.damage] + [f"note: {finding}" for finding in self.notes]
        for hit in self.hits:
            body.append(f"hit: {hit}")
            body += [f"     {path}" for path in hit.paths]
        return [*head, *body, "no damage was found" if self.ok else f"{len(self.damage)} things are damaged"]
