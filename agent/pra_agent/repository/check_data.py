"""Reading packs to prove them: name and content agree, header and index agree, and every blob opens."""

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pra_agent.errors import DamagedError, NotFound, StorageError
from pra_agent.repository.codec import Codec, content_id
from pra_agent.repository.pack import PackEntry, open_blob, parse_header
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class PackProof:
    """What reading one pack showed: why it is broken ("" when it is whole), and the entries that cannot be opened."""

    pack: str
    size: int
    fault: str = ""
    broken: Sequence[PackEntry] = ()


def prove_packs(repository: Repository, packs: Iterable[tuple[str, Sequence[PackEntry]]]) -> Iterator[PackProof]:
    """Read packs, some at once; the entries are those that the index lists."""
    workers = max(1, min(4, repository.backend.connections))
    waiting: deque[Future[PackProof]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read-packs") as pool:
        try:
            for pack, entries in packs:
                waiting.append(pool.submit(prove_pack, repository, pack, entries))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def prove_pack(repository: Repository, pack: str, entries: Sequence[PackEntry]) -> PackProof:
    """Read one pack."""
    try:
        data = repository.backend.get(Handle(Kind.DATA, pack))
    except (NotFound, DamagedError) as error:
        return PackProof(pack, 0, error.message, tuple(entries))
    except StorageError as error:
        repository.backend.get(Handle(Kind.CONFIG))  # raises when it is the store that cannot be read
        return PackProof(pack, 0, f"it cannot be read: {error.message}", tuple(entries))
    faults: list[str] = []
    if content_id(data).hex() != pack:
        faults.append("its content does not match its name")
    try:
        listed = header_of(repository.codec, data)
        if set(listed) != set(entries):
            faults.append("its header and the index disagree")
    except DamagedError as error:
        faults.append(error.message)
    broken = [entry for entry in entries if not _opens(repository.codec, pack, entry, data)]
    if broken:
        faults.append(f"{len(broken)} of its {len(entries)} blobs cannot be opened")
    return PackProof(pack, len(data), "; ".join(faults), broken)


def header_of(codec: Codec, data: bytes) -> list[PackEntry]:
    """The entries that a whole pack's own header lists. `DamagedError` when it has none that is right."""
    if len(data) < _LENGTH.size:
        raise DamagedError("it is too short for a header")
    (length,) = _LENGTH.unpack(data[-_LENGTH.size :])
    start = len(data) - _LENGTH.size - length
    if start < 0:
        raise DamagedError("its header's length cannot be")
    try:
        entries = parse_header(codec.unseal(data[start : -_LENGTH.size]))
    except DamagedError as error:
        raise DamagedError(f"its header cannot be read: {error.message}") from error
    if sum(entry.length for entry in entries) != start:
        raise DamagedError("its header's lengths do not add up to its size")
    return entries


def _opens(codec: Codec, pack: str, entry: PackEntry, data: bytes) -> bool:
    try:
        open_blob(codec, pack, entry, memoryview(data)[entry.offset : entry.offset + entry.length])
    except DamagedError:
        return False
    return True
