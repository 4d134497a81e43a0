"""Storing blobs: open packs, uploads in threads, and indexes that are written while the run goes on.

A blob becomes visible to others by an index, and that is written only after its pack is durable. Packs that are
durable but in no index yet are noted on the host (`pending`).
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pra_agent.clock import Clock
from pra_agent.errors import Interrupted, PraError
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.repository.codec import Buffer, Codec, content_id
from pra_agent.repository.index import Index, encode_index
from pra_agent.repository.pack import OpenPack, PackEntry, SealedBlob
from pra_agent.repository.pending import PendingPack, PendingSession
from pra_agent.repository.sealed_files import SealedFiles
from pra_agent.repository.sealer import Sealer
from pra_agent.repository.settings import Settings
from pra_agent.storage.backend import Backend, Kind


@dataclass(slots=True)
class WriterStats:
    """What this writer stored: blobs that were new, their plaintext bytes and their sealed bytes."""

    blobs: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    bytes_added: int = 0
    bytes_stored: int = 0
    packs: int = 0


@dataclass(frozen=True, slots=True)
class WriterParts:
    """What a writer works with. `confirm` raises `LockLost` when nothing may be made visible any more."""

    backend: Backend
    codec: Codec
    files: SealedFiles
    index: Index
    settings: Settings
    clock: Clock
    confirm: Callable[[], None]
    pending: PendingSession | None


class BlobWriter:
    """A context: leaving it without an error means that all blobs are durable and indexed.

    Methods may be called from several threads; they wait while the memory budget is used up, and raise the first
    error that an upload met. After an error nothing more is stored, but what is durable is indexed if possible.
    """

    def __init__(self, parts: WriterParts) -> None:
        self.stats = WriterStats()
        self._parts = parts
        self._index = parts.index
        self._sealer = Sealer(parts.codec)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._open: dict[BlobType, list[OpenPack]] = {t: [] for t in BlobType}
        self._wanted_open = {BlobType.DATA: parts.settings.open_packs, BlobType.TREE: 1}
        under_way = max(1, parts.settings.upload_memory // parts.settings.pack_size)
        self._slots = threading.BoundedSemaphore(under_way)
        self._uploads = max(1, min(parts.backend.connections, under_way))
        self._pool = ThreadPoolExecutor(self._uploads, thread_name_prefix="upload")
        self._under_way = 0
        self._idle = threading.Condition(self._lock)
        self._unindexed: list[tuple[str, Sequence[PackEntry]]] = []
        self._unindexed_blobs = 0
        self._flushed = parts.clock.monotonic()
        self._error: BaseException | None = None
        self._index_failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
            elif isinstance(error, Interrupted):
                # Who is asked to stop keeps what is done: a few packs, so that the next run need not make them again.
                with suppress(PraError):
                    self.flush()
            else:
                self._abandon(error)
        except BaseException as failure:
            if error is None:
                self._abandon(failure)
            raise
        finally:
            self._pool.shutdown(wait=True)
            self._index.release_all()
            if self._parts.pending:
                self._parts.pending.close()

    def add(self, blob_type: BlobType, plaintext: Buffer, blob_id: bytes | None = None) -> bytes:
        """Store a blob unless it is stored already; returns its id. Seals in the caller's thread."""
        blob_id = blob_id or content_id(plaintext)
        handle = BlobHandle(blob_type, blob_id)
        if not self._index.reserve(handle):
            return blob_id
        try:
            sealed = self._sealer.seal(blob_type, plaintext, blob_id)
        except BaseException:
            self._index.release(handle)
            raise
        self._append(sealed)
        return blob_id

    def add_sealed(self, blob: SealedBlob) -> bool:
        """Store a blob that is sealed already; False when it was stored before."""
        if not self._index.reserve(BlobHandle(blob.type, blob.id)):
            return False
        self._append(blob)
        return True

    def repack(self, blob: SealedBlob) -> None:
        """Store a sealed blob although the index knows it elsewhere (prune moves it to a new pack)."""
        self._append(blob)

    def flush(self) -> None:
        """Make everything that was added durable and indexed."""
        with self._lock:
            packs = [pack for group in self._open.values() for pack in _merged(group, self._parts.settings.pack_size)]
            for group in self._open.values():
                group.clear()
        for pack in packs:
            self._submit(pack)
        with self._idle:
            self._idle.wait_for(lambda: self._under_way == 0)
        self._raise()
        self._write_index()

    def _append(self, blob: SealedBlob) -> None:
        self._raise()
        with self._lock:
            group = self._open[blob.type]
            while len(group) < self._wanted_open[blob.type]:
                group.append(OpenPack(blob.type))
            # A byte of the system's randomness costs a sixth of SystemRandom.randrange, and there is one per blob.
            number = os.urandom(1)[0] % len(group)
            pack = group[number]
            pack.add(blob)
            full = pack.full(self._parts.settings.pack_size)
            if full:
                group.pop(number)
            stats = self.stats
            stats.blobs += 1
            stats.bytes_added += blob.length
            stats.bytes_stored += len(blob.stored)
            if blob.type is BlobType.TREE:
                stats.tree_blobs += 1
            else:
                stats.data_blobs += 1
        if full:
            self._submit(pack)

    def _submit(self, pack: OpenPack) -> None:
        self._slots.acquire()
        with self._lock:
            self._under_way += 1
        self._pool.submit(self._store, pack)

    def _store(self, pack: OpenPack) -> None:
        try:
            if self._error is None:
                self._upload(pack)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that adds
            self._error = self._error or error
        finally:
            self._slots.release()
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def _upload(self, pack: OpenPack) -> None:
        parts = self._parts
        finished = pack.finish(parts.codec)
        parts.backend.put(finished.handle, finished.data)
        if parts.pending:
            parts.pending.stored(PendingPack(finished.id, len(finished.data)))
        self._index.add_pack(finished.id, finished.entries)
        with self._lock:
            self.stats.packs += 1
            self._unindexed.append((finished.id, finished.entries))
            self._unindexed_blobs += len(finished.entries)
            due = (
                self._unindexed_blobs >= parts.settings.index_blobs
                or parts.clock.monotonic() - self._flushed >= parts.settings.index_seconds
            )
        if due:
            self._write_index()

    def _write_index(self) -> None:
        parts = self._parts
        with self._flushing:
            with self._lock:
                packs, self._unindexed, self._unindexed_blobs = self._unindexed, [], 0
                self._flushed = parts.clock.monotonic()
            while packs:
                batch = _batch(packs, parts.settings.index_blobs)
                try:
                    parts.confirm()
                    parts.files.write(Kind.INDEX, encode_index(batch))
                except BaseException:
                    # Perhaps it was stored and only the answer was lost: a second one would list the packs twice.
                    self._index_failed = True
                    raise
                packs = packs[len(batch) :]
                if parts.pending:
                    parts.pending.indexed(pack for pack, _ in batch)
            self._index.fold()

    def _abandon(self, cause: BaseException) -> None:
        self._error = self._error or cause
        with self._idle:
            self._idle.wait_for(lambda: self._under_way == 0)
        if self._index_failed:
            return
        try:
            self._write_index()
        except PraError:
            # What is durable stays noted as pending; the cause is what the caller must hear of.
            return

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def _merged(packs: list[OpenPack], target: int) -> list[OpenPack]:
    """Join half-filled packs where they fit into one."""
    merged: list[OpenPack] = []
    for pack in sorted((pack for pack in packs if len(pack)), key=len):
        if merged and len(merged[-1]) + len(pack) <= target:
            merged[-1].absorb(pack)
        else:
            merged.append(pack)
    return merged


def _batch(packs: Sequence[tuple[str, Sequence[PackEntry]]], blobs: int) -> list[tuple[str, Sequence[PackEntry]]]:
    """Take packs for one index file: whole packs, up to about so many blobs."""
    batch: list[tuple[str, Sequence[PackEntry]]] = []
    count = 0
    for pack in packs:
        if batch and count + len(pack[1]) > blobs:
            break
        batch.append(pack)
        count += len(pack[1])
    return batch
