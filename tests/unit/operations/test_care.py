"""Forget, pin, prune and check as operations: locks, records, dry runs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest

from pra_agent.errors import AccessDenied, Interrupted, Locked
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.runs import Outcome
from pra_agent.model.snapshots import SUSPECT_TAG
from pra_agent.operations.check import CheckRequest, check
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.pin import pin, unpin
from pra_agent.operations.prune import PruneRequest, lock_until, prune
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, Scope
from pra_agent.storage.backend import Handle, Kind
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend
from tests.support.small_repository import START, content, new_repository, noise, open_repository, save

CLOCK = FakeClock(START + timedelta(days=10))
SCOPE = Scope("web-1", {"files": Keep(last=2)})
TIGHT = PruneSettings(max_unused="0")


def files(number: int) -> dict[str, bytes]:
    return {"same": noise(0, 30_000), f"only{number}": noise(number, 30_000)}


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend(clock=CLOCK)


@pytest.fixture
def repository(backend: MemoryBackend) -> Repository:
    """Five snapshots of a job, and one of nobody's."""
    repository = new_repository(backend, clock=CLOCK)
    for number in range(1, 6):
        save(repository, files(number), hours=number)
    save(repository, {"other": b"other"}, job="")
    return repository


def test_forget_removes_what_no_rule_keeps(repository):
    done = forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK)
    left = repository.snapshots()
    assert [s.time for s in left if s.job] == [START + timedelta(hours=4), START + timedelta(hours=5)]
    assert len(left) == 3
    assert done.record.outcome is Outcome.SUCCESS
    assert done.record.detail["forgotten"] == 3
    assert [d.snapshot.id for d in done.decisions if not d.keep] == done.record.detail["snapshots"]


def test_forget_dry_run_changes_nothing(backend, repository):
    before = dict(backend.objects)
    done = forget(ForgetRequest("r1", SCOPE, dry_run=True), repository, clock=CLOCK)
    assert backend.objects == before
    assert done.record.detail["forgotten"] == 3


def test_forget_goes_beside_a_backup_but_not_beside_a_prune(backend, repository):
    other = open_repository(backend, clock=CLOCK)
    with other.lock():
        forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK)
    with other.lock(exclusive=True), pytest.raises(Locked):
        forget(ForgetRequest("r2", SCOPE), repository, clock=CLOCK)


def test_forget_can_be_stopped_and_goes_on(repository):
    stop = Event()
    with pytest.raises(Interrupted, match="1 of 3"):
        forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK, report=lambda _: stop.set(), stop=stop)
    assert len(repository.snapshots()) == 5
    forget(ForgetRequest("r2", SCOPE), repository, clock=CLOCK)
    assert len(repository.snapshots()) == 3


def test_backdated_snapshots_are_quarantined_by_the_store_s_clock(backend, repository):
    for handle in list(backend.modified):
        if handle.kind is Kind.SNAPSHOT:
            backend.modified[handle] = START + timedelta(hours=6)
    fakes = [save(repository, {"bad": b"x"}, hours=hours) for hours in (5.2, 5.4)]  # written ten days later
    request = ForgetRequest("r1", SCOPE, quarantine=timedelta(days=2))
    done = forget(request, repository, clock=CLOCK)
    left = {s.id for s in repository.snapshots()}
    assert {fake.id for fake in fakes} <= left
    assert len([d for d in done.decisions if d.keep and "last snapshot" in d.reasons]) == 2
    trusted = ForgetRequest("r2", SCOPE, quarantine=timedelta(days=2), trusted=frozenset(f.id for f in fakes))
    forget(trusted, repository, clock=CLOCK)
    assert {s.id for s in repository.snapshots() if s.job} == {fake.id for fake in fakes}


def test_what_the_store_has_not_had_for_long_is_not_forgotten(backend, repository):
    careful: Any = {"quarantine": timedelta(days=30), "grace": timedelta(days=7)}
    young = sorted((handle for handle in backend.modified if handle.kind is Kind.SNAPSHOT), key=lambda one: one.name)
    for handle in young:
        backend.modified[handle] = CLOCK.now() - timedelta(days=6)
    assert forget(ForgetRequest("r1", SCOPE, **careful), repository, clock=CLOCK).record.detail["forgotten"] == 0
    written = {handle.name: CLOCK.now() - timedelta(days=8) for handle in young}
    done = forget(ForgetRequest("r2", SCOPE, written=written, **careful), repository, clock=CLOCK)
    assert done.record.detail["forgotten"] == 3


def test_a_job_whose_newest_snapshot_is_suspect_loses_nothing_at_the_pruner(backend, repository):
    for handle in list(backend.modified):
        backend.modified[handle] = START + timedelta(hours=6)
    newest = [snapshot for snapshot in repository.snapshots() if snapshot.job][-1]
    with repository.lock():
        suspect = repository.save_snapshot(
            replace(newest, id="", time=START + timedelta(hours=6), tags=(*newest.tags, SUSPECT_TAG))
        )
    request = ForgetRequest("r1", SCOPE, quarantine=timedelta(days=30))
    assert forget(request, repository, clock=CLOCK).record.detail["forgotten"] == 0
    with repository.lock():
        repository.save_snapshot(replace(suspect, id="", original=suspect.id, tags=newest.tags))
    assert forget(request, repository, clock=CLOCK).record.detail["forgotten"] == 4


def test_a_snapshot_that_was_pinned_without_the_right_to_delete_is_believed(backend, repository, monkeypatch):
    for handle in list(backend.modified):
        backend.modified[handle] = START + timedelta(hours=6)
    oldest = next(snapshot for snapshot in repository.snapshots() if snapshot.job)

    def denied(_name: str) -> None:
        raise AccessDenied("delete")

    with monkeypatch.context() as patch:
        patch.setattr(repository, "remove_snapshot", denied)
        pinned = pin(oldest.id, repository)
    request = ForgetRequest("r1", SCOPE, quarantine=timedelta(days=2))
    done = forget(request, repository, clock=CLOCK)
    assert done.quarantined == []
    assert {snapshot.id for snapshot in repository.snapshots() if snapshot.job} > {pinned.id}


def test_an_unreadable_snapshot_is_left_alone_and_told(backend, repository):
    backend.put(Handle(Kind.SNAPSHOT, "ab" * 32), b"?")
    told: list[Any] = []
    forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK, report=told.append)
    assert "abababab" in told[0].message
    assert Handle(Kind.SNAPSHOT, "ab" * 32) in backend.objects


def test_a_pinned_snapshot_survives_and_an_unpinned_one_does_not(repository):
    oldest = next(s for s in repository.snapshots() if s.job)
    pinned = pin(oldest.id[:8], repository)
    assert pinned.pinned
    assert (pinned.time, pinned.tree, pinned.original) == (oldest.time, oldest.tree, oldest.id)
    assert pin(pinned.id, repository) == pinned
    forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK)
    assert pinned.id in {s.id for s in repository.snapshots()}
    repository.load_index()
    assert content(repository, pinned)
    loose = unpin(pinned.id, repository)
    assert not loose.pinned
    assert loose.original == oldest.id
    forget(ForgetRequest("r2", SCOPE), repository, clock=CLOCK)
    assert loose.id not in {s.id for s in repository.snapshots()}


def test_a_pin_without_the_right_to_delete_leaves_both(backend, repository, monkeypatch):
    oldest = next(s for s in repository.snapshots() if s.job)
    delete = backend.delete

    def refuse(handle: Handle) -> None:
        if handle.kind is not Kind.LOCK:
            raise AccessDenied("no")
        delete(handle)

    monkeypatch.setattr(backend, "delete", refuse)
    pinned = pin(oldest.id, repository)
    assert {oldest.id, pinned.id} <= {s.id for s in repository.snapshots()}
    with pytest.raises(AccessDenied):
        unpin(pinned.id, repository)


def test_prune_gives_back_what_was_forgotten(backend, repository):
    forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK)
    dry = prune(PruneRequest("r2", TIGHT, dry_run=True), repository, clock=CLOCK)
    assert dry.done is None
    assert dry.record.detail["dry_run"]
    done = prune(PruneRequest("r3", TIGHT), repository, clock=CLOCK)
    assert done.done is not None
    assert done.done.bytes_given_back > 3 * 30_000
    assert check(CheckRequest("r4", parse_subset("all")), open_repository(backend)).report.ok


def test_prune_waits_for_nobody_and_dry_runs_disturb_nobody(backend, repository):
    other = open_repository(backend, clock=CLOCK)
    with other.lock():
        prune(PruneRequest("r1", dry_run=True), repository, clock=CLOCK)
        with pytest.raises(Locked):
            prune(PruneRequest("r2"), repository, clock=CLOCK)


def test_prune_keeps_locked_what_stays_and_lets_go_what_goes(backend, repository):
    forget(ForgetRequest("r1", SCOPE), repository, clock=CLOCK)
    before = {handle for handle in backend.objects if handle.kind is Kind.DATA}
    retain = timedelta(days=30)
    prune(PruneRequest("r2", TIGHT, retain=timedelta(days=30)), repository, clock=CLOCK)
    (until,) = set(backend.retained.values())
    assert retain <= until - CLOCK.now() <= retain * 1.25
    assert lock_until(CLOCK.now() + timedelta(minutes=1), retain) == until
    kept = {handle for handle in backend.objects if handle.kind is Kind.DATA} & before
    assert {handle for handle in backend.retained if handle.kind is Kind.DATA} == kept
    assert {handle for handle in backend.objects if handle.kind is Kind.SNAPSHOT} <= backend.retained.keys()
    assert not [handle for handle in backend.retained if handle.kind is Kind.LOCK]


def test_a_check_that_finds_damage_has_failed_and_names_the_job(backend, repository):
    repository.load_index()
    newest = repository.snapshots()[-1]
    node = next(n for n in repository.read_tree(newest.tree) if n.name == b"only5")
    assert node.content
    location = repository.index.find(BlobHandle(BlobType.DATA, node.content[0]))
    assert location
    backend.delete(Handle(Kind.DATA, location.pack))
    done = check(CheckRequest("r1"), open_repository(backend))
    assert done.record.outcome is Outcome.FAILED
    assert done.record.detail["jobs_hit"] == ["files"]
    assert done.record.files_failed >= 1
    assert "/only5" in {failure.path for failure in done.record.failures}
    assert "missing" in done.record.error


def test_a_scheduled_check_reads_the_window_that_is_due(repository):
    now = datetime(2026, 3, 11, tzinfo=UTC)
    request = CheckRequest("r1", read_every=timedelta(days=30), last=now - timedelta(days=60))
    done = check(request, repository, clock=FakeClock(now))
    assert done.report.packs_read == done.report.packs
    assert done.record.full
    structure = check(CheckRequest("r2"), repository, clock=FakeClock(now))
    assert structure.report.packs_read == 0
    assert not structure.record.full


def test_a_check_goes_beside_a_backup(backend, repository):
    other = open_repository(backend, clock=CLOCK)
    with other.lock():
        assert check(CheckRequest("r1"), repository, clock=CLOCK).record.outcome is Outcome.SUCCESS
