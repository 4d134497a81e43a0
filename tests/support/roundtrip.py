"""Backing up and restoring in a test, the way the operations do it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.operations.backup import BackupRequest, backup
from pra_agent.repository.repository import Repository
from pra_agent.restorer import Restored, RestoreRequest, execute, plan
from pra_agent.sources.files import FilesSettings


class NoState:
    """A state-before that nobody needs."""

    def remember(self, key: str, data: Mapping[str, object]) -> None:  # noqa: ARG002 - the contract
        raise AssertionError("a capture of files changes nothing")

    def forget(self, key: str) -> None:  # noqa: ARG002 - the contract
        raise AssertionError("a capture of files changes nothing")

    def pending(self) -> Mapping[str, Mapping[str, object]]:
        return {}


def back_up(
    repository: Repository, *paths: Path, job: str = "files", run: str = "r1", full: bool = False, **settings: Any
) -> RunRecord:
    """Back up paths as a job of files."""
    source = FilesSettings(paths=paths, **settings).build()
    request = BackupRequest(run=run, job=job, node="web-1", source=source, state=NoState(), full=full)
    return backup(request, repository)


def restore_snapshot(reader: SnapshotReader, snapshot: Snapshot, target: Path, **request: Any) -> Restored:
    """Plan and execute, as it is asked."""
    return execute(plan(reader, snapshot, RestoreRequest(target=target, **request)), reader)


def restored(reader: SnapshotReader, snapshot: Snapshot, target: Path, **request: Any) -> Restored:
    """Plan and execute; nothing may fail."""
    done = restore_snapshot(reader, snapshot, target, **request)
    assert [f"{each.path}: {each.reason}" for each in done.failures] == []
    return done


def below(target: Path, path: Path | str) -> Path:
    """Where an absolute path of the snapshot is below a target."""
    return target / str(path).lstrip("/")


def names(paths: Sequence[Path]) -> list[str]:
    """Sorted names, for short assertions."""
    return sorted(path.name for path in paths)
