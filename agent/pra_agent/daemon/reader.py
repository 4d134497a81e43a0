"""The child process of a restore session: opens the repository for `control.worker`."""

import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pra_agent.clock import SystemClock
from pra_agent.config import Config
from pra_agent.control.worker import serve
from pra_agent.daemon import log
from pra_agent.daemon.composition import Opening, opened_repository
from pra_agent.daemon.requests import ReaderTask
from pra_agent.model.snapshots import SnapshotReader


def run(payload: object, descriptors: Sequence[int]) -> int:
    """Serve a `ReaderTask` on the channel until that is closed."""
    task = cast("ReaderTask", payload)
    log.configure(json=task.log_json)
    serve(socket.socket(fileno=descriptors[0]), lambda: _open(task.config))
    return 0


@contextmanager
def _open(config: Config) -> Generator[SnapshotReader]:
    opening = Opening(state=Path(config.state.dir))
    with opened_repository(config, SystemClock(), opening) as repository, repository.lock():
        repository.load_index()
        yield repository
