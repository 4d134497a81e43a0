"""Taking over what a killed run of this host has stored: its packs are indexed, so nothing is stored twice."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pra_agent.errors import DamagedError, LockLost, NotFound, PraError
from pra_agent.repository.codec import Codec
from pra_agent.repository.index import Index, encode_index
from pra_agent.repository.pack import PackEntry, read_header
from pra_agent.repository.pending import PendingPack, abandoned
from pra_agent.repository.sealed_files import SealedFiles
from pra_agent.storage.backend import Backend, Kind


def adopt(
    backend: Backend, codec: Codec, files: SealedFiles, index: Index, directory: Path, confirm: Callable[[], None]
) -> int:
    """Index the packs that dead writers left pending; returns how many.

    The note of a pack is only a hint: what is in it, and that it is there, is read from the store. Who may not write
    indexes leaves all as it is.
    """
    count = 0
    for left in abandoned(directory):
        try:
            packs = _present(backend, codec, index, left.packs)
            if packs:
                confirm()
                name = files.write(Kind.INDEX, encode_index(packs))
                for pack, entries in packs:
                    index.add_pack(pack, entries, file=name)
                index.fold()
                count += len(packs)
        except LockLost:
            left.release()
            raise
        except PraError:
            left.release()
        else:
            left.done()
    return count


def _present(
    backend: Backend, codec: Codec, index: Index, pending: Sequence[PendingPack]
) -> list[tuple[str, list[PackEntry]]]:
    known = index.pack_ids() if pending else set[str]()
    found: list[tuple[str, list[PackEntry]]] = []
    for pack in pending:
        if pack.id in known:
            continue
        try:
            found.append((pack.id, read_header(backend, codec, pack.id, pack.size)))
        except (NotFound, DamagedError):
            continue
    return found
