"""A writer that is killed with SIGKILL, again and again: the next one uses what it stored, and stock restic agrees."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.repository.codec import content_id
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Kind
from pra_agent.storage.local import LocalBackend
from tests.support.process import wait_until
from tests.support.repositories import PASSWORD, SETTINGS
from tests.support.restic import Restic, require_restic

pytestmark = pytest.mark.peer

BLOBS, SIZE = 60, 1 << 20

_SCRIPT = f"""
import random, sys
from pathlib import Path
from pra_agent.clock import SystemClock
from pra_agent.model.ids import BlobType
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.storage.local import LocalBackend
from tests.support.repositories import PASSWORD, SETTINGS
repository = Repository.open(
    LocalBackend(Path(sys.argv[1])), PASSWORD, clock=SystemClock(), host=this_host("n"), state=Path(sys.argv[2]),
    settings=SETTINGS,
)
rng = random.Random(5)
with repository.lock():
    repository.load_index()
    with repository.writer() as writer:
        for _ in range({BLOBS}):
            writer.add(BlobType.DATA, rng.randbytes({SIZE}))
        print(writer.stats.blobs, flush=True)
        if len(sys.argv) > 3:
            sys.stdin.read()
"""


def start(script: Path, root: Path, state: Path, *extra: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, script, root, state, *extra],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_what_a_killed_writer_stored_is_used(tmp_path: Path) -> None:
    require_restic()
    root, state, script = tmp_path / "repository", tmp_path / "state", tmp_path / "writer.py"
    script.write_text(_SCRIPT)
    backend = LocalBackend(root)
    Repository.init(backend, PASSWORD, clock=SystemClock(), host=this_host("n"), settings=SETTINGS)

    def packs() -> int:
        return sum(1 for _ in backend.list(Kind.DATA))

    rng = random.Random(1)
    for kill in range(4):
        before, more = packs(), rng.randrange(1, 4)
        process = start(script, root, state, "wait")
        try:
            wait_until(lambda: packs() >= min(before + more, 12), f"packs before kill {kill}")  # noqa: B023 - called here
        finally:
            process.kill()
            process.communicate()

    process = start(script, root, state)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    # At most the packs that were under way at each kill had to be stored again.
    assert int(output) <= BLOBS - 4 * 4
    repository = Repository.open(backend, PASSWORD, clock=SystemClock(), host=this_host("n"), settings=SETTINGS)
    repository.load_index()
    data = random.Random(5)
    blobs = [data.randbytes(SIZE) for _ in range(BLOBS)]
    handles = [BlobHandle(BlobType.DATA, content_id(blob)) for blob in blobs]
    assert dict(repository.read(handles)) == dict(zip(handles, blobs, strict=True))
    assert repository.locks.read_all() == []
    Restic(root, PASSWORD).check()
