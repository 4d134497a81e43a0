"""Repositories for tests: key derivation that costs nothing, small packs, a host that is not this one."""

import os
from dataclasses import replace
from pathlib import Path

from pra_agent.clock import Clock, SystemClock
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.snapshots import Snapshot
from pra_agent.repository.host import Host, this_host
from pra_agent.repository.repository import BlobWriter, Repository
from pra_agent.repository.settings import MIB, ScryptCost, Settings
from pra_agent.storage.backend import Backend
from tests.support.memory import MemoryBackend

PASSWORD = "correct horse battery staple"
QUICK = ScryptCost(n=128, r=1, p=1)
SETTINGS = Settings(scrypt=QUICK, pack_size=4 * MIB, upload_memory=16 * MIB)
HOST = replace(this_host("web-1"), hostname="web-1.example.org")
ELSEWHERE = replace(HOST, node="web-2", hostname="web-2.example.org", machine_id="2" * 32, boot_id="other", pid=1)


def make_repository(
    backend: Backend | None = None,
    *,
    state: Path | None = None,
    clock: Clock | None = None,
    settings: Settings = SETTINGS,
) -> Repository:
    """A new repository, in memory unless a backend is given."""
    backend = MemoryBackend() if backend is None else backend
    return Repository.init(backend, PASSWORD, clock=clock or SystemClock(), host=HOST, state=state, settings=settings)


def reopen(
    repository: Repository,
    *,
    backend: Backend | None = None,
    state: Path | None = None,
    host: Host = HOST,
    settings: Settings = SETTINGS,
) -> Repository:
    """The same repository as another process sees it, its indexes loaded."""
    other = Repository.open(
        backend or repository.backend,
        PASSWORD,
        clock=repository.clock,
        host=host,
        state=state,
        settings=settings,
    )
    other.load_index()
    return other


def store(repository: Repository, *blobs: bytes) -> list[BlobHandle]:
    """Save data blobs in a run of their own."""
    with repository.lock():
        repository.load_index()
        with repository.writer() as writer:
            return add_all(writer, blobs)


def add_all(writer: BlobWriter, blobs: tuple[bytes, ...]) -> list[BlobHandle]:
    """Add data blobs; their handles."""
    return [BlobHandle(BlobType.DATA, writer.add(BlobType.DATA, blob)) for blob in blobs]


def snapshot(repository: Repository, tree: bytes, *, tags: tuple[str, ...] = ()) -> Snapshot:
    """A snapshot of a tree, not stored yet."""
    return Snapshot(
        time=repository.clock.now(), tree=tree, paths=("/srv",), hostname="web-1", username="root", tags=tags
    )


def noise(size: int) -> bytes:
    """Bytes that do not compress."""
    return os.urandom(size)
