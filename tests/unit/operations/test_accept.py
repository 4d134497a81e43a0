"""A snapshot that was accepted is suspect no more, in the repository itself."""

from dataclasses import replace

import pytest

from pra_agent.errors import AccessDenied
from pra_agent.model.snapshots import SUSPECT_TAG, Snapshot
from pra_agent.operations.accept import accept
from pra_agent.operations.restore import choose_snapshot
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind
from tests.support.memory import MemoryBackend
from tests.support.small_repository import content, new_repository, noise, save

HELD = {"file": noise(3, 10_000)}


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def repository(backend: MemoryBackend) -> Repository:
    made = new_repository(backend)
    save(made, {"large": noise(1, 200_000)}, hours=1)
    return made


def suspect(repository: Repository, hours: float) -> Snapshot:
    """A snapshot that looked too small."""
    plain = save(repository, HELD, hours=hours)
    with repository.lock():
        repository.remove_snapshot(plain.id)
        return repository.save_snapshot(replace(plain, tags=(*plain.tags, SUSPECT_TAG), id=""))


def test_a_restore_takes_the_accepted_one(repository):
    older, small = suspect(repository, 2), suspect(repository, 3)
    assert choose_snapshot(repository.snapshots(), "files").time < older.time
    (accepted,) = accept({small.id}, repository)
    assert choose_snapshot(repository.snapshots(), "files").id == accepted.id
    assert (accepted.time, accepted.tree, accepted.original) == (small.time, small.tree, small.id)
    repository.load_index()
    assert content(repository, accepted) == {"/file": HELD["file"]}
    found = {each.id: each for each in repository.snapshots()}
    assert small.id not in found
    assert SUSPECT_TAG in found[older.id].tags
    assert accept({small.id}, repository) == []


def test_without_the_right_to_delete_both_are_left_and_it_is_done_once(backend, repository, monkeypatch):
    small = suspect(repository, 2)
    delete = backend.delete

    def refuse(handle: Handle) -> None:
        if handle.kind is not Kind.LOCK:
            raise AccessDenied("no")
        delete(handle)

    monkeypatch.setattr(backend, "delete", refuse)
    (accepted,) = accept({small.id}, repository)
    assert accept({small.id}, repository) == []
    assert {small.id, accepted.id} <= {each.id for each in repository.snapshots()}
    assert choose_snapshot(repository.snapshots(), "files").id == accepted.id
