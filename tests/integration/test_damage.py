"""Each kind of file of a repository flipped, cut, emptied, swapped with another of its kind, deleted.

Our check finds it and names what is hit; repair saves what can be saved; stock restic finds no error afterwards and
restores what is left, byte for byte.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pra_agent.errors import DamagedError, Locked, NoRepository, NotFound, PraError, WrongKey
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.repair import RepairRequest, repair
from pra_agent.repository.check import check
from pra_agent.repository.check_report import CheckReport
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.repair_config import rebuild_config
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.local import LocalBackend
from tests.support.restic import PASSWORD, Restic, require_restic
from tests.support.small_repository import content, new_repository, noise, open_repository, save

pytestmark = [pytest.mark.slow, pytest.mark.peer, pytest.mark.xdist_group("damage")]

ALL = parse_subset("all")
JOBS = {
    "files": [{f"d{n % 2}/f{n}": noise(n, 15_000) for n in range(start, start + 5)} for start in (0, 3)],
    "db": [{"dump.sql": noise(50, 40_000), "schema/tables.sql": noise(51, 4_000)}],
}


@dataclass
class Place:
    """A repository in a directory, and what its snapshots hold."""

    root: Path
    wanted: dict[str, tuple[Snapshot, dict[str, bytes]]]

    @property
    def backend(self) -> LocalBackend:
        return LocalBackend(self.root)

    def open(self) -> Repository:
        return open_repository(self.backend)

    def files(self, kind: str) -> list[Path]:
        """The files of a kind, the largest first; packs by what is in them."""
        if kind not in {"data", "trees"}:
            where = self.root / kind
            found = [where] if where.is_file() else [path for path in where.rglob("*") if path.is_file()]
        else:
            repository = self.open()
            repository.load_index()
            wanted = "data" if kind == "data" else "tree"
            packs = [pack for pack, entries in repository.index.packs() if entries[0].type == wanted]
            found = [self.root / Handle(Kind.DATA, pack).path for pack in packs]
        return sorted(found, key=lambda path: (-path.stat().st_size, path.name))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Place:
    require_restic()
    root = tmp_path_factory.mktemp("pristine") / "repository"
    backend = LocalBackend(root)
    backend.create()
    repository = new_repository(backend)
    repository.keys.add("another password")
    wanted: dict[str, tuple[Snapshot, dict[str, bytes]]] = {}
    for hours, (job, files) in enumerate((job, files) for job, all_files in JOBS.items() for files in all_files):
        snapshot = save(repository, files, hours=hours, job=job)
        wanted[snapshot.id] = (snapshot, {f"/{path}": data for path, data in files.items()})
    return Place(root, wanted)


@pytest.fixture
def place(pristine: Place, tmp_path: Path) -> Place:
    shutil.copytree(pristine.root, tmp_path / "repository")
    return Place(tmp_path / "repository", pristine.wanted)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(change(data))


def hurt(files: list[Path], how: str) -> list[Path]:
    """Damage the first of the files (and a second one, to swap them); returns those that were hit."""
    first = files[0]
    if how == "swapped":
        second = files[1]
        one, other = first.read_bytes(), second.read_bytes()
        rewrite(first, lambda _: other)
        rewrite(second, lambda _: one)
        return [first, second]
    if how == "deleted":
        first.unlink()
    elif how == "flipped":
        rewrite(first, lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:])
    elif how == "cut":
        rewrite(first, lambda data: data[: len(data) * 3 // 4])
    else:
        rewrite(first, lambda _: b"")
    return [first]


def found(place: Place) -> CheckReport:
    repository = place.open()
    with repository.lock():
        return check(repository, ALL)


HOW = ("flipped", "cut", "emptied", "swapped", "deleted")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["data", "trees", "index", "snapshots"])
def test_found_named_and_saved(place: Place, kind: str, how: str, tmp_path: Path) -> None:
    victims = hurt(place.files(kind), how)
    result = found(place)
    subjects = {finding.subject for finding in result.damage}
    if how != "deleted" or kind in {"data", "trees"}:
        assert {str(path.relative_to(place.root)) for path in victims} <= subjects
        assert not result.ok
    elif kind == "index":
        assert not result.ok  # what it listed is missed
    if result.lost:
        assert result.hits
        assert set(result.jobs) <= {"files", "db"}

    repair(RepairRequest(ALL, recover=kind == "snapshots"), place.open())
    after = found(place)
    assert after.ok, after.lines()
    Restic(place.root).check()
    saved = judge(place, tmp_path)
    if kind == "index" or (kind in {"data", "snapshots"} and how == "swapped"):
        assert saved == sum(len(files) for _, files in place.wanted.values())  # nothing is lost at all
    elif kind == "data" and how in {"flipped", "cut"}:
        assert saved >= sum(len(files) for _, files in place.wanted.values()) - 4
    elif kind == "snapshots":
        assert saved == sum(len(files) for _, files in place.wanted.values())


def judge(place: Place, tmp_path: Path) -> int:
    """All files that are left are what they were, also as stock restic restores them; returns how many there are."""
    repository = place.open()
    repository.load_index()
    total = 0
    for number, snapshot in enumerate(repository.snapshots()):
        files = content(repository, snapshot)
        assert any(files.items() <= wanted.items() for _, wanted in place.wanted.values()), snapshot
        total += len(files)
        if number == 0:
            Restic(place.root).restore(tmp_path / "restored", snapshot.id)
            restored = {
                f"/{path.relative_to(tmp_path / 'restored')}": path.read_bytes()
                for path in (tmp_path / "restored").rglob("*")
                if path.is_file()
            }
            assert restored == files
    return total


@pytest.mark.parametrize("how", HOW)
def test_a_key_slot(place: Place, how: str) -> None:
    """The other slot still opens the repository, and check names the damaged one."""
    repository = place.open()
    current = place.root / "keys" / repository.keys.current
    files = [current, *(path for path in place.files("keys") if path != current)]
    hurt(files, how)
    if how != "swapped":  # both are whole then, under each other's names
        with pytest.raises((WrongKey, DamagedError)):
            place.open()
    other = Repository.open(
        place.backend, "another password", clock=repository.clock, host=repository.host, settings=repository.settings
    )
    with other.lock():
        result = check(other)
    assert result.ok == (how == "deleted")
    other.keys.add("a new password")
    other.load_index()
    assert len(other.snapshots()) == 3


@pytest.mark.parametrize("how", [how for how in HOW if how != "swapped"])
def test_the_config(place: Place, how: str, tmp_path: Path) -> None:
    hurt([place.root / "config"], how)
    with pytest.raises((DamagedError, NoRepository)):
        place.open()
    rebuild_config(place.backend, PASSWORD)
    assert found(place).ok
    Restic(place.root).check()
    assert judge(place, tmp_path) == sum(len(files) for _, files in place.wanted.values())


@pytest.mark.parametrize("how", [how for how in HOW if how not in {"swapped", "deleted"}])
def test_a_lock(place: Place, how: str) -> None:
    """An empty lock is none, another damaged one is in the way until it is removed."""
    holder = place.open()
    with holder.lock() as held:
        (lock,) = place.files("locks")
        saved = lock.read_bytes()
        hurt([lock], how)
        other = place.open()
        if how == "emptied":
            with other.lock():
                pass
        else:
            with pytest.raises(Locked, match="unreadable"), other.lock():
                pass
        rewrite(lock, lambda _: saved)
        held.check()
    hurt_lock = place.root / "locks" / ("ab" * 32)
    hurt_lock.write_bytes(b"broken")
    assert place.open().unlock(everything=True)
    with place.open().lock(exclusive=True):
        pass


def test_a_lost_lock_ends_the_work(place: Place) -> None:
    repository = place.open()
    with repository.lock():
        for path in place.files("locks"):
            path.unlink()
        with pytest.raises(PraError, match="removed by somebody else"):
            save(repository, {"x": b"x"}, locked=True)


def test_everything_under_data_gone(place: Place) -> None:
    """Nothing can be saved but the knowledge of it, and repair says so instead of failing."""
    for path in place.files("data") + place.files("trees"):
        path.unlink()
    result = found(place)
    assert set(result.jobs) == {"files", "db"}
    done = repair(RepairRequest(ALL), place.open())
    assert len(done.plan.doomed) == 3
    assert found(place).ok
    with pytest.raises(NotFound):
        place.open().find_snapshot("latest")
