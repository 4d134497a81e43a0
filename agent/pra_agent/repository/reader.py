"""Reading blobs: planned by pack, neighbours in one request, several requests at once, every blob hashed again."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pra_agent.errors import DamagedError, NotFound
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.repository.cache import FileCache
from pra_agent.repository.codec import Codec, content_id
from pra_agent.repository.index import Index, Location
from pra_agent.repository.pack import PackEntry, open_blob
from pra_agent.repository.settings import Settings
from pra_agent.storage.backend import Backend, Handle, Kind

Blob = tuple[BlobHandle, bytes]

_GAP = 128 << 10
_RANGE = 4 << 20
#: Well compressed blobs may be many times as large as the range that they lie in.
_RANGE_PLAIN = 16 << 20
_TREE_PACKS = 32 << 20


@dataclass(slots=True)
class _Range:
    """A run of bytes of one pack and the blobs in it."""

    pack: str
    start: int
    end: int
    plain: int = 0
    entries: list[PackEntry] = field(default_factory=lambda: list[PackEntry]())

    @property
    def cost(self) -> int:
        """The bytes that are held while it is read: sealed and plain."""
        return self.end - self.start + self.plain


class BlobReader:
    """Reads blobs that the index knows; after a fork as well."""

    def __init__(self, backend: Backend, codec: Codec, settings: Settings, cache: FileCache | None) -> None:
        self._backend = backend
        self._codec = codec
        self._settings = settings
        self._cache = cache
        self._tree_packs: OrderedDict[str, bytes] = OrderedDict()
        self._tree_lock = threading.Lock()

    def read(self, index: Index, handles: Iterable[BlobHandle]) -> Iterator[Blob]:
        """Yield each distinct blob once, in the order in which their packs are first asked for.

        Raises `DamagedError` naming blob and pack; for a blob that the index does not know, before the first yield.
        """
        ranges = list(_plan(index, handles))
        if len(ranges) <= 1:
            for one in ranges:
                yield from self._fetch(index, one)
            return
        workers = max(1, min(self._backend.connections, len(ranges)))
        waiting: deque[tuple[int, Future[list[Blob]]]] = deque()
        held = 0
        pool = ThreadPoolExecutor(workers, thread_name_prefix="read-blobs")
        try:
            for one in ranges:
                while waiting and (held + one.cost > self._settings.read_memory or len(waiting) >= 2 * workers):
                    cost, future = waiting.popleft()
                    yield from future.result()
                    held -= cost
                waiting.append((one.cost, pool.submit(self._fetch, index, one)))
                held += one.cost
            while waiting:
                yield from waiting.popleft()[1].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def shares(self, index: Index, handles: Iterable[BlobHandle]) -> list[list[BlobHandle]]:
        """Split what is to be read into shares that are one request each, so that processes can divide them."""
        return [[BlobHandle(each.type, each.id) for each in one.entries] for one in _plan(index, handles)]

    def read_one(self, index: Index, handle: BlobHandle) -> bytes:
        """Read one blob."""
        location = index.find(handle)
        if location is None:
            raise _unknown(handle)
        return self._fetch(index, _single(location))[0][1]

    def stored(self, pack: str, entries: Iterable[PackEntry]) -> Iterator[tuple[PackEntry, bytes]]:
        """Yield blobs of one pack still sealed, as they are stored, in the pack's order and not verified."""
        for one in _ranges(pack, entries):
            data = memoryview(self._bytes(one))
            for entry in one.entries:
                start = entry.offset - one.start
                yield entry, bytes(data[start : start + entry.length])

    def _fetch(self, index: Index, one: _Range) -> list[Blob]:
        try:
            data = memoryview(self._bytes(one))
        except (NotFound, DamagedError) as error:
            return [self._elsewhere(index, one.pack, entry, error) for entry in one.entries]
        blobs: list[Blob] = []
        for entry in one.entries:
            start = entry.offset - one.start
            try:
                plaintext = open_blob(self._codec, one.pack, entry, data[start : start + entry.length])
            except DamagedError as error:
                blobs.append(self._elsewhere(index, one.pack, entry, error))
            else:
                blobs.append((BlobHandle(entry.type, entry.id), plaintext))
        return blobs

    def _elsewhere(self, index: Index, pack: str, entry: PackEntry, error: NotFound | DamagedError) -> Blob:
        """Read a blob from another pack that holds it too, or say what is broken."""
        handle = BlobHandle(entry.type, entry.id)
        for location in index.find_all(handle):
            if location.pack == pack:
                continue
            try:
                one = _single(location)
                return handle, open_blob(self._codec, location.pack, location.entry, self._bytes(one))
            except (NotFound, DamagedError):
                continue
        if isinstance(error, DamagedError) and str(handle) in error.message:
            raise error
        raise DamagedError(f"blob {handle} in pack {pack}: {error.message}") from error

    def _bytes(self, one: _Range) -> bytes | memoryview:
        handle = Handle(Kind.DATA, one.pack)
        if self._backend.off_host and all(entry.type is BlobType.TREE for entry in one.entries):
            whole = self._tree_pack(handle)
            if len(whole) < one.end:
                raise DamagedError(f"the pack has {len(whole)} bytes only")
            return memoryview(whole)[one.start : one.end]
        return self._backend.get(handle, one.start, one.end - one.start)

    def _tree_pack(self, handle: Handle) -> bytes:
        """Give a whole pack of trees: who reads one tree will soon read its neighbours."""
        with self._tree_lock:
            data = self._tree_packs.get(handle.name)
            if data is not None:
                self._tree_packs.move_to_end(handle.name)
                return data
            data = self._cache.get(handle) if self._cache else None
            if data is None:
                data = self._backend.get(handle)
                if self._cache and content_id(data).hex() == handle.name:
                    self._cache.put(handle, data)
            self._tree_packs[handle.name] = data
            while len(self._tree_packs) > 1 and sum(map(len, self._tree_packs.values())) > _TREE_PACKS:
                self._tree_packs.popitem(last=False)
            return data


def _plan(index: Index, handles: Iterable[BlobHandle]) -> Iterator[_Range]:
    wanted = dict.fromkeys(handles)
    places: dict[BlobHandle, tuple[int, int, int, int] | None] = {}
    for blob_type in BlobType:
        ids = [handle.id for handle in wanted if handle.type is blob_type]
        if ids:
            found = index.find_many(blob_type, ids)
            places.update(zip((BlobHandle(blob_type, blob_id) for blob_id in ids), found, strict=True))
    by_pack: dict[int, list[PackEntry]] = {}
    for handle in wanted:
        place = places[handle]
        if place is None:
            raise _unknown(handle)
        by_pack.setdefault(place[0], []).append(PackEntry(handle.type, handle.id, *place[1:]))
    for number, entries in by_pack.items():
        yield from _ranges(index.pack_id(number), entries)


def _ranges(pack: str, entries: Iterable[PackEntry]) -> Iterator[_Range]:
    """Join neighbours, and near neighbours, into ranges of bounded size."""
    current: _Range | None = None
    for entry in sorted(entries, key=lambda one: one.offset):
        end = entry.offset + entry.length
        fits = (
            current is not None
            and entry.offset - current.end <= _GAP
            and end - current.start <= _RANGE
            and current.plain + entry.size <= _RANGE_PLAIN
        )
        if current is None or not fits:
            if current:
                yield current
            current = _Range(pack, entry.offset, end)
        current.end = max(current.end, end)
        current.plain += entry.size
        current.entries.append(entry)
    if current:
        yield current


def _single(location: Location) -> _Range:
    entry = location.entry
    return _Range(location.pack, entry.offset, entry.offset + entry.length, entry.size, [entry])


def _unknown(handle: BlobHandle) -> DamagedError:
    return DamagedError(f"blob {handle} is in no index")
