"""Which packs can be trusted, what is in those that no index lists, and what can be saved out of broken ones."""

from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event

from pra_agent.errors import DamagedError, Interrupted, NotFound
from pra_agent.model.events import Progress, Reporter, ignore
from pra_agent.repository.check_data import header_of
from pra_agent.repository.codec import content_id
from pra_agent.repository.index import Index
from pra_agent.repository.pack import PackEntry, open_blob, pack_size, read_header
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind

Entries = Sequence[PackEntry]
_STEP = 200
#: Entries that are added before the index is folded, which keeps what is held in dictionaries small.
_FOLD = 100_000


@dataclass(slots=True)
class PackSurvey:
    """What is to be known of packs. All names are hex ids.

    `found` are whole packs whose entries were read from their own headers, because no index lists them (rightly).
    `broken` are packs that are missing or altered, with the entries that can still be opened in them. `obsolete` are
    the index files that list a broken pack, or a found one wrongly; `relist` are the sound packs in those.
    """

    found: dict[str, Entries] = field(default_factory=lambda: dict[str, Entries]())
    broken: dict[str, Entries] = field(default_factory=lambda: dict[str, Entries]())
    hopeless: list[str] = field(default_factory=lambda: list[str]())
    obsolete: set[str] = field(default_factory=lambda: set[str]())
    relist: set[str] = field(default_factory=lambda: set[str]())


def survey(
    repository: Repository,
    suspects: Container[str] = frozenset(),
    *,
    prove: bool = False,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> tuple[PackSurvey, Index]:
    """Compare packs and indexes; returns what was found, and the index as it can be made from that.

    The readable indexes must be loaded. Packs in `suspects` are read as a whole; others are trusted when an index and
    the store agree about their size. Of packs that no index lists the header is believed, unless `prove` is set.
    """
    sizes = {info.handle.name: info.size for info in repository.backend.list(Kind.DATA)}
    result, index = PackSurvey(), _Builder()
    files = _files_of(repository.index)
    doubtful: dict[str, Entries] = {}
    for pack, entries in repository.index.packs():
        size = sizes.pop(pack, None)
        if size == pack_size(entries) and pack not in suspects:
            index.add(pack, entries)
        else:
            doubtful[pack] = entries
    unlisted = dict(sizes)
    total = len(doubtful) + len(unlisted)
    for done, (pack, whole, held) in enumerate(_examine(repository, doubtful, unlisted, prove=prove)):
        if stop is not None and stop.is_set():
            raise Interrupted("stopped while packs were examined")
        if pack in doubtful and not (whole and set(held) == set(doubtful[pack])):
            result.obsolete.update(files.get(pack, ()))
        if whole:
            result.found[pack] = held
        elif pack in doubtful or held:
            result.broken[pack] = held
        else:
            result.hopeless.append(pack)
        index.add(pack, held)
        report(Progress("examine packs", files_done=done + 1, files_total=total))
    listed = {pack for pack, file in repository.index.memberships() if file in result.obsolete}
    result.relist = listed - result.found.keys() - result.broken.keys()
    return result, index.done()


class _Builder:
    """Builds an index without holding much of it in dictionaries."""

    def __init__(self) -> None:
        self._index = Index()
        self._loose = 0

    def add(self, pack: str, entries: Entries) -> None:
        """Know a pack."""
        self._index.add_pack(pack, entries)
        self._loose += len(entries)
        if self._loose >= _FOLD:
            self._index.fold()
            self._loose = 0

    def done(self) -> Index:
        """Give the index."""
        self._index.fold()
        return self._index


def _files_of(index: Index) -> Mapping[str, set[str]]:
    files: dict[str, set[str]] = {}
    for pack, file in index.memberships():
        files.setdefault(pack, set()).add(file)
    return files


def _examine(
    repository: Repository, doubtful: Mapping[str, Entries], unlisted: Mapping[str, int], *, prove: bool
) -> Iterator[tuple[str, bool, Entries]]:
    """Yield packs, whether they are whole, and their entries; of broken ones those that open."""

    def doubted(pack: str) -> tuple[str, bool, Entries]:
        return (pack, *examine_pack(repository, pack, doubtful[pack]))

    def listed(pack: str) -> tuple[str, bool, Entries]:
        if prove:
            return (pack, *examine_pack(repository, pack, ()))
        try:
            return pack, True, read_header(repository.backend, repository.codec, pack, unlisted[pack])
        except (DamagedError, NotFound):
            return pack, False, ()

    with ThreadPoolExecutor(max(1, min(4, repository.backend.connections)), thread_name_prefix="examine") as pool:
        for names, look in ((list(doubtful), doubted), (list(unlisted), listed)):
            for start in range(0, len(names), _STEP):
                yield from pool.map(look, names[start : start + _STEP])


def examine_pack(repository: Repository, pack: str, entries: Entries) -> tuple[bool, Entries]:
    """Read a pack that is doubted: whether it is whole, and its entries; of a broken one those that open.

    What a broken pack may hold is told by the index and by its own header, which may be another pack's.
    """
    try:
        data = repository.backend.get(Handle(Kind.DATA, pack))
    except (NotFound, DamagedError):
        return False, ()
    try:
        own: Entries = header_of(repository.codec, data)
    except DamagedError:
        own = ()
    candidates = sorted({*entries, *own}, key=lambda entry: entry.offset)
    good = [entry for entry in candidates if opens(repository, pack, entry, data)]
    whole = content_id(data).hex() == pack and bool(own) and set(own) <= set(good)
    return whole, (own if whole else good)


def opens(repository: Repository, pack: str, entry: PackEntry, data: bytes) -> bool:
    """Whether a blob can be opened where an entry says that it lies."""
    try:
        open_blob(repository.codec, pack, entry, memoryview(data)[entry.offset : entry.offset + entry.length])
    except DamagedError:
        return False
    return True
