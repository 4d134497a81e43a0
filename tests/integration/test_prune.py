"""Prune beside stock restic, on a real S3 server under kill -9, and at scale."""

import os
import signal
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.operations.check import CheckRequest, check
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.prune import PruneDone, PruneRequest, prune
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, Scope
from pra_agent.storage.backend import Backend, Kind
from pra_agent.storage.local import LocalBackend
from pra_agent.storage.opening import open_backend
from tests.bench.scale import scale
from tests.support.faulty import Fault, FaultyBackend, Mode
from tests.support.restic import PASSWORD, Restic, require_restic
from tests.support.s3 import S3Store
from tests.support.small_repository import HOST, SETTINGS, content, new_repository, noise, open_repository, save
from tests.support.trees import make_nasty_tree

ALL = parse_subset("all")
TIGHT = PruneSettings(max_unused="0")


def pruned(backend: Backend) -> PruneDone:
    repository = Repository.open(backend, PASSWORD, clock=SystemClock(), host=HOST)
    done = prune(PruneRequest("r", TIGHT), repository)
    assert check(CheckRequest("r", ALL), repository).report.ok
    return done


@pytest.mark.peer
def test_what_stock_restic_stored_is_pruned_and_stock_restic_is_content(tmp_path: Path) -> None:
    """Stock makes three snapshots and forgets one; after our prune it finds no error and restores the others."""
    require_restic()
    nasty = make_nasty_tree(tmp_path / "source", depth=5, many=20, large=1 << 18)
    stock = Restic(tmp_path / "repository")
    stock.init()
    (nasty.root / "goes").write_bytes(noise(1, 6 << 20))
    stock.backup(nasty.root)
    (nasty.root / "goes").unlink()
    (nasty.root / "stays").write_bytes(noise(2, 3 << 20))
    stock.backup(nasty.root)
    (nasty.root / "new").write_bytes(noise(3, 1 << 20))
    stock.backup(nasty.root)
    first = min(stock.snapshots(), key=lambda each: str(each["time"]))
    stock.run("forget", str(first["id"]))
    backend = LocalBackend(tmp_path / "repository")
    done = pruned(backend)
    assert done.done
    assert done.done.bytes_given_back > 6 << 20
    stock.check()
    stock.restore(tmp_path / "restored")
    restored = tmp_path / "restored" / str(nasty.root).lstrip("/")
    assert (restored / "stays").read_bytes() == noise(2, 3 << 20)
    assert (restored / "new").read_bytes() == noise(3, 1 << 20)
    assert not (restored / "goes").exists()
    assert "unused" not in stock.run("prune", "--dry-run", "--max-unused", "0")  # nothing left for it to do
    backend.close()


@pytest.mark.peer
def test_what_we_pruned_stock_restic_prunes_and_the_other_way_round(tmp_path: Path) -> None:
    require_restic()
    backend = LocalBackend(tmp_path / "repository")
    backend.create()
    repository = new_repository(backend)
    stock = Restic(tmp_path / "repository")
    files = {number: {f"f{n}": noise(n, 300_000) for n in range(number, number + 4)} for number in range(6)}
    made = [save(repository, files[number], hours=number) for number in range(6)]
    forget(ForgetRequest("r", Scope("web-1", {"files": Keep(last=4)})), repository)
    pruned(backend)
    stock.check()
    stock.run("forget", made[2].id, "--prune", "--max-unused", "0")
    assert check(CheckRequest("r", ALL), open_repository(backend)).report.ok
    stock.run("forget", made[3].id)
    pruned(backend)
    stock.check()
    fresh = open_repository(backend)
    fresh.load_index()
    assert [content(fresh, each) for each in fresh.snapshots()] == [
        {f"/{path}": data for path, data in files[number].items()} for number in (4, 5)
    ]


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
@pytest.mark.slow
def test_kill_nine_at_every_change_on_a_real_s3_server(s3_store: S3Store) -> None:
    """SIGKILL before and after each write and delete of a prune, each on what the last one left."""
    require_restic()
    clock = SystemClock()
    backend = open_backend(s3_store.settings, clock=clock)
    repository = Repository.init(backend, PASSWORD, clock=clock, host=HOST, settings=SETTINGS)
    files = {number: {f"f{n}": noise(n, 20_000) for n in range(number, number + 8)} for number in range(4)}
    made = [save(repository, files[number], hours=number) for number in range(4)]
    with repository.lock():
        for snapshot in made[:2]:
            repository.remove_snapshot(snapshot.id)
    stock = Restic(s3_store.restic_repository, environment=tuple(s3_store.restic_environment.items()))
    deaths = 0
    for at in range(1, 100):
        mode = Mode.KILL if at % 2 else Mode.KILL_AFTER
        fault = Fault(at, mode, operations=("put", "delete"), kinds=(Kind.DATA, Kind.INDEX))
        if not killed(s3_store, fault):
            break
        deaths += 1
        repository.unlock(everything=True)
        if at % 4 == 1:
            stock.check()
    assert deaths >= 4
    stock.check()
    fresh = Repository.open(backend, PASSWORD, clock=clock, host=HOST)
    fresh.load_index()
    assert [content(fresh, each) for each in fresh.snapshots()] == [
        {f"/{path}": data for path, data in files[number].items()} for number in (2, 3)
    ]
    print(f"killed {deaths} times at S3")  # noqa: T201 - the count is to be seen
    backend.close()


def killed(store: S3Store, fault: Fault) -> bool:
    """Prune in a child that kills itself; whether it did."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            inner = open_backend(store.settings, clock=SystemClock())
            repository = Repository.open(FaultyBackend(inner, fault), PASSWORD, clock=SystemClock(), host=HOST)
            prune(PruneRequest("r", TIGHT), repository)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_a_plan_over_many_blobs_is_small() -> None:
    """A hundredth of what the bench measures."""
    figures = scale(100_000)
    assert figures.plan_removed > 500
    assert figures.plan_repacked > 10
    assert figures.plan_peak_bytes < 256 << 20
