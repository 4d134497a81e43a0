"""Small repositories with known content, without the archiver: a snapshot is a dictionary of paths and bytes."""

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pra_agent.clock import Clock
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.snapshots import AGENT_TAG, Snapshot
from pra_agent.model.trees import encode_tree
from pra_agent.repository.host import Host
from pra_agent.repository.repository import BlobWriter, Repository
from pra_agent.repository.settings import ScryptCost, Settings
from pra_agent.storage.backend import Backend
from tests.support.clock import FakeClock
from tests.support.restic import PASSWORD

#: Cheap keys, and packs so small that little data fills many.
SETTINGS = Settings(scrypt=ScryptCost(n=128, r=8, p=1)).model_copy(update={"pack_size": 64 << 10, "open_packs": 1})
HOST = Host("web-1", "web-1", "", "", 0, "root", 0, 0, 1)
START = datetime(2026, 3, 1, tzinfo=UTC)
Files = Mapping[str, bytes]


def new_repository(backend: Backend, *, clock: Clock | None = None, settings: Settings = SETTINGS) -> Repository:
    """Make a repository with the usual test password."""
    return Repository.init(backend, PASSWORD, clock=clock or FakeClock(), host=HOST, settings=settings)


def open_repository(backend: Backend, *, clock: Clock | None = None, settings: Settings = SETTINGS) -> Repository:
    """Open it as another process would."""
    return Repository.open(backend, PASSWORD, clock=clock or FakeClock(), host=HOST, settings=settings)


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@dataclass
class _Folder:
    files: dict[str, bytes] = field(default_factory=dict)
    folders: "dict[str, _Folder]" = field(default_factory=dict)


def store(repository: Repository, writer: BlobWriter, files: Files) -> bytes:
    """Store files and their trees; returns the root tree's id."""
    root = _Folder()
    for path, content in files.items():
        *parents, name = path.strip("/").split("/")
        folder = root
        for parent in parents:
            folder = folder.folders.setdefault(parent, _Folder())
        folder.files[name] = content
    return _store_folder(repository, writer, root)


def _store_folder(repository: Repository, writer: BlobWriter, folder: _Folder) -> bytes:
    nodes = [
        Node(
            name.encode(),
            NodeType.FILE,
            mode=0o644,
            size=len(content),
            content=[
                writer.add(BlobType.DATA, piece) for piece in repository.chunker().chunks(io.BytesIO(content).read)
            ],
        )
        for name, content in folder.files.items()
    ]
    nodes += [
        Node(name.encode(), NodeType.DIR, mode=0o755, subtree=_store_folder(repository, writer, inner))
        for name, inner in folder.folders.items()
    ]
    return writer.add(BlobType.TREE, encode_tree(sorted(nodes, key=lambda node: node.name)))


def save(
    repository: Repository,
    files: Files,
    *,
    hours: float = 0,
    job: str = "files",
    tags: tuple[str, ...] = (),
    locked: bool = False,
) -> Snapshot:
    """Make a snapshot of files, `hours` after `START`; takes a lock unless one is held."""
    if not locked:
        with repository.lock():
            repository.load_index()
            return save(repository, files, hours=hours, job=job, tags=tags, locked=True)
    with repository.writer() as writer:
        tree = store(repository, writer, files)
    return repository.save_snapshot(
        Snapshot(
            time=START + timedelta(hours=hours),
            tree=tree,
            paths=("/srv",),
            hostname="web-1",
            username="root",
            tags=(AGENT_TAG, f"job={job}", *tags) if job else tags,
        )
    )


def content(repository: Repository, snapshot: Snapshot) -> dict[str, bytes]:
    """Read all files of a snapshot back."""
    return dict(_read_folder(repository, snapshot.tree, ""))


def _read_folder(repository: Repository, tree: bytes, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for node in repository.read_tree(tree):
        path = f"{prefix}/{node.name.decode()}"
        if node.subtree is not None:
            found += _read_folder(repository, node.subtree, path)
        elif node.content is not None:
            blobs = [repository.read_blob(BlobHandle(BlobType.DATA, blob)) for blob in node.content]
            found.append((path, b"".join(blobs)))
    return found
