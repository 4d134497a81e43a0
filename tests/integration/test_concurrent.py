"""Two agents, a stock restic and a pruning agent on one repository at the same time: nothing is lost.

Real processes, real locks. Everybody who is refused because of a lock tries again. At the end every snapshot that its
maker was told is saved, and that nobody forgot, reads back; neither we nor stock restic find an error.
"""

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import Locked
from pra_agent.operations.check import CheckRequest, check
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.prune import PruneRequest, prune
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.host import this_host
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, Scope
from pra_agent.storage.local import LocalBackend
from tests.support.restic import PASSWORD, Restic, require_restic
from tests.support.small_repository import SETTINGS, content, new_repository, noise, save

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.timeout(300)]

ROUNDS = 8
KEEP = 3
LIMIT = 120.0  # seconds in which everybody must have had their turn


def opened(root: Path, state: Path) -> Repository:
    return Repository.open(
        LocalBackend(root), PASSWORD, clock=SystemClock(), host=this_host("web-1"), state=state, settings=SETTINGS
    )


def files(seed: int, number: int) -> dict[str, bytes]:
    """Some files that all share, some that stay for a few rounds, some that are new."""
    shared = {f"shared{n}": noise(n, 20_000) for n in range(4)}
    return {**shared, **{f"f{n}": noise(seed * 1000 + n, 15_000) for n in range(number, number + 4)}}


def again(work: Callable[[], object]) -> None:
    """Do it when nobody is in the way; a short pause between tries, or two who wait for each other starve."""
    until = time.monotonic() + LIMIT
    while True:
        try:
            work()
        except Locked:
            if time.monotonic() > until:
                raise
            time.sleep(0.05 + os.getpid() % 7 / 100)
        else:
            return


def agent(root: Path, home: Path, seed: int) -> None:
    """Save one job again and again; writes down what it was told is saved."""
    repository = opened(root, home / "state")
    saved: list[tuple[str, int]] = []
    for number in range(ROUNDS):
        again(
            lambda number=number: saved.append(  # type: ignore[misc]
                (save(repository, files(seed, number), hours=number, job=f"job{seed}").id, number)
            )
        )
    (home / "saved").write_text(json.dumps(saved))


def stock(root: Path, home: Path) -> None:
    """Stock restic backs up, and prunes once in between."""
    restic = Restic(root)
    source = home / "source"
    source.mkdir()
    for number in range(5):
        (source / f"s{number}").write_bytes(noise(77_000 + number, 30_000))
        command = ("backup", source) if number != 3 else ("prune", "--max-unused", "0")
        until = time.monotonic() + LIMIT
        while (done := restic.try_run(*command)).returncode:
            assert "lock" in done.stderr, done.stderr
            assert time.monotonic() < until
            time.sleep(0.1)
    (home / "saved").write_text("[]")


def pruner(root: Path, home: Path, others: list[Path]) -> None:
    """Forget and prune until all others are done, and once more."""
    repository = opened(root, home / "state")
    scope = Scope("web-1", {f"job{seed}": Keep(last=KEEP) for seed in (1, 2)})
    prunes = 0
    last = False
    while True:
        again(lambda: forget(ForgetRequest("f", scope), repository))
        again(lambda: prune(PruneRequest("p", PruneSettings(max_unused="0")), repository))
        prunes += 1
        time.sleep(0.3)  # the others are to have turns as well
        if last:
            break
        last = all((other / "saved").exists() for other in others)
    (home / "saved").write_text(json.dumps(prunes))


def beside(works: list[Callable[[], None]]) -> None:
    """Run each in a process of its own; all must end well."""
    children: list[int] = []
    for work in works:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            except Exception:  # noqa: BLE001 - told here, and by the status
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert statuses == [0] * len(works)


def test_nothing_is_lost(tmp_path: Path) -> None:
    require_restic()
    root = tmp_path / "repository"
    backend = LocalBackend(root)
    backend.create()
    new_repository(backend)
    homes = [tmp_path / name for name in ("one", "two", "stock", "pruner")]
    for home in homes:
        (home / "state").mkdir(parents=True)
    one, two, third, fourth = homes
    beside(
        [
            lambda: agent(root, one, 1),
            lambda: agent(root, two, 2),
            lambda: stock(root, third),
            lambda: pruner(root, fourth, homes[:3]),
        ]
    )
    repository = opened(root, tmp_path / "judge")
    result = check(CheckRequest("r", parse_subset("all")), repository).report
    assert result.ok, result.lines()
    Restic(root).check()
    repository.load_index()
    there = {snapshot.id: snapshot for snapshot in repository.snapshots()}
    for seed, home in ((1, one), (2, two)):
        saved = json.loads((home / "saved").read_text())
        assert len(saved) == ROUNDS
        for name, number in saved[-KEEP:]:
            assert content(repository, there[name]) == {f"/{path}": data for path, data in files(seed, number).items()}
    foreign = [snapshot for snapshot in there.values() if not snapshot.job]
    assert len(foreign) == 4
    newest = content(repository, foreign[-1])
    assert {Path(path).name: data for path, data in newest.items()} == {
        f"s{number}": noise(77_000 + number, 30_000) for number in range(5)
    }
    assert len(there) == 2 * KEEP + 4
    assert json.loads((fourth / "saved").read_text()) >= 2
