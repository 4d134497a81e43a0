"""The repository: one host's encrypted store, opened. See the package's docstring for the whole interface."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pra_agent.clock import Clock
from pra_agent.errors import (
    AlreadyExists,
    DamagedError,
    NoRepository,
    NotFound,
    PraError,
    RepositoryExists,
    StorageError,
    UsageError,
)
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node
from pra_agent.model.snapshot_json import decode_snapshot, encode_snapshot
from pra_agent.model.snapshots import Snapshot
from pra_agent.model.trees import decode_tree
from pra_agent.repository.cache import FileCache
from pra_agent.repository.chunker import Chunker
from pra_agent.repository.codec import Codec, MasterKey, content_id
from pra_agent.repository.config_file import RepositoryConfig
from pra_agent.repository.host import Host
from pra_agent.repository.index import DecodedIndex, Index, decode_index
from pra_agent.repository.keys import KeyRing, open_master_key
from pra_agent.repository.locks import Lock, LockFiles, LockInfo, hold
from pra_agent.repository.pack import PackEntry
from pra_agent.repository.pending import open_session
from pra_agent.repository.reader import BlobReader
from pra_agent.repository.resume import adopt
from pra_agent.repository.sealed_files import SealedFiles
from pra_agent.repository.sealer import SealedBlob, Sealer, still_sealed
from pra_agent.repository.settings import Settings
from pra_agent.repository.state import repository_state, write_atomically
from pra_agent.repository.writer import BlobWriter, WriterParts, WriterStats
from pra_agent.storage.backend import Backend, Handle, Kind

__all__ = [
    "BlobWriter",
    "Chunker",
    "Lock",
    "LockInfo",
    "Repository",
    "SealedBlob",
    "Sealer",
    "WriterStats",
    "still_sealed",
]

_CONFIG = Handle(Kind.CONFIG)
_MIN_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a repository is opened: clock, host, the host's state directory if any, and settings."""

    clock: Clock
    host: Host
    state: Path | None
    settings: Settings


class Repository:
    """An open repository; implements `model.snapshots.SnapshotReader`. Reading may be done from several threads."""

    def __init__(
        self, backend: Backend, config: RepositoryConfig, master: MasterKey, slot: str, here: Surroundings
    ) -> None:
        self.backend = backend
        self.config = config
        self.clock = here.clock
        self.host = here.host
        self.settings = here.settings
        self.state = repository_state(here.state, config.id)
        self.codec = Codec(master, level=self.settings.compression)
        self.keys = KeyRing(backend, master, slot, here.clock, here.host)
        self.cache = (
            FileCache(self.state / "cache", self.settings.cache_size) if self.state and backend.off_host else None
        )
        self.files = SealedFiles(backend, self.codec, self.cache)
        self.locks = LockFiles(backend, self.codec, here.clock, here.host, self.state / "locks" if self.state else None)
        self.index = Index()
        #: Snapshots that the last `snapshots` could not read: hex id and why.
        self.unreadable_snapshots: dict[str, str] = {}
        self._master = master
        self._reader = BlobReader(backend, self.codec, self.settings, self.cache)
        self._held: list[Lock] = []
        self._writing = False

    # ---------------------------------------------------------------- init, open
    @classmethod
    def init(
        cls,
        backend: Backend,
        password: str,
        *,
        clock: Clock,
        host: Host,
        state: Path | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """Make a new repository and open it; `RepositoryExists` when there is one."""
        here = Surroundings(clock, host, state, settings or Settings())
        backend.create()
        with suppress(NotFound):
            backend.stat(_CONFIG)
            raise RepositoryExists(f"there is a repository at {backend.location}")
        master = MasterKey.generate()
        ring = KeyRing(backend, master, "", clock, host)
        slot = ring.add(password, cost=here.settings.scrypt)
        config = RepositoryConfig.generate()
        try:
            backend.put(_CONFIG, config.seal(Codec(master)))
        except AlreadyExists:
            with suppress(StorageError):
                backend.delete(Handle(Kind.KEY, slot.id))
            raise RepositoryExists(f"there is a repository at {backend.location}") from None
        return cls(backend, config, master, slot.id, here)

    @classmethod
    def open(
        cls,
        backend: Backend,
        password: str,
        *,
        clock: Clock,
        host: Host,
        state: Path | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """Open a repository; `NoRepository` or `WrongKey`. `state` is the directory for what this host keeps of it."""
        try:
            sealed = backend.get(_CONFIG)
        except NotFound:
            raise NoRepository(f"there is no repository at {backend.location}") from None
        hint = state / f"key-{content_id(sealed).hex()[:16]}" if state else None
        try:
            remembered = hint.read_text("ascii") if hint else ""
        except (OSError, UnicodeDecodeError):
            remembered = ""
        master, slot = open_master_key(backend, password, remembered)
        config = RepositoryConfig.unseal(Codec(master), sealed)
        if hint and slot != remembered:
            with suppress(OSError):
                write_atomically(hint, slot.encode())
        return cls(backend, config, master, slot, Surroundings(clock, host, state, settings or Settings()))

    @property
    def id(self) -> str:
        """The repository's id, 64 hex digits."""
        return self.config.id

    # ---------------------------------------------------------------- blobs
    def load_index(self) -> None:
        """Forget what was known of blobs and load all indexes.

        Under a lock, packs that a killed run of this host has stored are indexed first. `DamagedError` when an index
        is not readable.
        """
        unreadable = self.load_readable_index()
        if unreadable:
            raise DamagedError("; ".join(list(unreadable.values())[:3]))

    def load_readable_index(self) -> dict[str, str]:
        """Load all indexes that can be read; returns the others: hex id and why. For check and repair."""
        index = Index()
        unreadable: dict[str, str] = {}
        names = sorted(info.handle.name for info in self.backend.list(Kind.INDEX))
        index.load(self._decoded(names, unreadable))
        if self.cache:
            self.cache.keep_only(Kind.INDEX, names)
            self.cache.trim()
        if self._held and self.state:
            adopt(self.backend, self.codec, self.files, index, self.state / "pending", self.confirm_lock)
        self.index = index
        return unreadable

    def _decoded(self, names: Iterable[str], unreadable: dict[str, str]) -> Iterator[tuple[str, DecodedIndex]]:
        for handle, document in self.files.read_many(Handle(Kind.INDEX, name) for name in names):
            if isinstance(document, DamagedError):
                unreadable[handle.name] = document.message
            elif isinstance(document, StorageError):
                raise document
            else:
                try:
                    yield handle.name, decode_index(document)
                except DamagedError as error:
                    unreadable[handle.name] = f"{handle.path}: {error.message}"

    def has(self, handle: BlobHandle) -> bool:
        """Whether a blob is stored or under way; needs `load_index`."""
        return self.index.has(handle)

    def sizes(self, handles: Iterable[BlobHandle]) -> Mapping[BlobHandle, int]:
        """Plaintext lengths in bytes of the blobs that exist."""
        found = ((handle, self.index.find(handle)) for handle in handles)
        return {handle: location.entry.size for handle, location in found if location}

    def read(self, handles: Iterable[BlobHandle]) -> Iterator[tuple[BlobHandle, bytes]]:
        """Yield each distinct blob once, in pack order, verified; see `SnapshotReader.read`."""
        return self._reader.read(self.index, handles)

    def shares(self, handles: Iterable[BlobHandle]) -> Sequence[Sequence[BlobHandle]]:
        """See `model.snapshots.Divisible`: connections to another host would not survive the fork."""
        return [] if self.backend.off_host else self._reader.shares(self.index, handles)

    def read_blob(self, handle: BlobHandle) -> bytes:
        """Read one blob; `DamagedError` when it is missing or broken."""
        return self._reader.read_one(self.index, handle)

    def read_tree(self, tree: bytes) -> list[Node]:
        """Read a directory's listing by its raw id."""
        return decode_tree(self.read_blob(BlobHandle(BlobType.TREE, tree)))

    def stored_blobs(self, pack: str, entries: Iterable[PackEntry]) -> Iterator[tuple[PackEntry, bytes]]:
        """Yield blobs of a pack still sealed, for repacking; see `reader.BlobReader.stored`."""
        return self._reader.stored(pack, entries)

    # ---------------------------------------------------------------- snapshots
    def snapshots(self) -> list[Snapshot]:
        """All readable snapshots, the oldest first; the others are named in `unreadable_snapshots`."""
        names = [info.handle.name for info in self.backend.list(Kind.SNAPSHOT)]
        if self.cache:
            self.cache.keep_only(Kind.SNAPSHOT, names)
        found: list[Snapshot] = []
        unreadable: dict[str, str] = {}
        for handle, document in self.files.read_many(Handle(Kind.SNAPSHOT, name) for name in names):
            if isinstance(document, NotFound):
                continue
            if isinstance(document, PraError):
                unreadable[handle.name] = document.message
                continue
            try:
                found.append(decode_snapshot(handle.name, document))
            except DamagedError as error:
                unreadable[handle.name] = error.message
        self.unreadable_snapshots = unreadable
        return sorted(found, key=lambda one: (one.time, one.nanoseconds, one.id))

    def find_snapshot(self, prefix_or_latest: str) -> Snapshot:
        """The snapshot with that id or unique prefix of it (4 digits at least), or the newest for "latest".

        `NotFound` when there is none, `UsageError` when the prefix is too short or not unique.
        """
        if prefix_or_latest == "latest":
            snapshots = self.snapshots()
            if not snapshots:
                raise NotFound("there are no snapshots yet", advice="Run pra-agent backup first.")
            return snapshots[-1]
        prefix = prefix_or_latest.lower()
        if len(prefix) < _MIN_PREFIX:
            raise UsageError(f"snapshot id {prefix_or_latest!r} is too short", advice="Give 4 digits at least.")
        names = [info.handle.name for info in self.backend.list(Kind.SNAPSHOT) if info.handle.name.startswith(prefix)]
        if not names:
            raise NotFound(f"no snapshot {prefix_or_latest!r}", advice="See pra-agent snapshots.")
        if len(names) > 1:
            raise UsageError(f"{len(names)} snapshots start with {prefix_or_latest!r}", advice="Give more digits.")
        return decode_snapshot(names[0], self.files.read(Handle(Kind.SNAPSHOT, names[0])))

    def save_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Store a snapshot durably and return it with its id; needs a lock. Its tree must be indexed before."""
        self.confirm_lock()
        return replace(snapshot, id=self.files.write(Kind.SNAPSHOT, encode_snapshot(snapshot)))

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot by its full hex id; needs a lock."""
        self.confirm_lock()
        self.backend.delete(Handle(Kind.SNAPSHOT, snapshot_id))

    # ---------------------------------------------------------------- locks
    @contextmanager
    def lock(self, *, exclusive: bool = False) -> Generator[Lock]:
        """Hold a lock; `Locked` names who is in the way. Dead locks of this host are cleared first."""
        with hold(self.locks, exclusive=exclusive) as held:
            self._held.append(held)
            try:
                yield held
            finally:
                self._held.remove(held)

    def unlock(self, *, everything: bool = False) -> list[LockInfo]:
        """Remove stale locks, or all; returns those removed."""
        return self.locks.unlock(everything=everything)

    def confirm_lock(self) -> None:
        """Raise `LockLost` unless a lock is held and is in the store still; called before anything is made visible."""
        if not self._held:
            raise RuntimeError("the repository is changed without a lock")
        self._held[-1].confirm()

    # ---------------------------------------------------------------- writing
    @contextmanager
    def writer(self) -> Generator[BlobWriter]:
        """Store blobs; needs a lock and a loaded index. One at a time. See `writer.BlobWriter`."""
        if self._writing:
            raise RuntimeError("there is a writer already")
        self.confirm_lock()
        self._writing = True
        try:
            pending = open_session(self.state / "pending") if self.state else None
            parts = WriterParts(
                self.backend, self.codec, self.files, self.index, self.settings, self.clock, self.confirm_lock, pending
            )
            with BlobWriter(parts) as writer:
                yield writer
        finally:
            self._writing = False

    def sealer(self) -> Sealer:
        """What seals blobs in workers."""
        return Sealer(self.codec)

    def chunker(self) -> Chunker:
        """What cuts streams into blobs; keyed by this repository's master key."""
        return Chunker(self._master)
