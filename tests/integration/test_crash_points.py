"""The process dies at every storage operation of backup, forget, prune, copy and repair in turn.

After each death: the repository has no errors (ours says so each time, stock restic with `--read-data` at every n-th
point), every snapshot that was reported as saved and not forgotten reads back, and doing it again ends well. How many
points were tried is printed.
"""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from pra_agent.operations.copy import CopyRequest, copy
from pra_agent.operations.forget import ForgetRequest, forget
from pra_agent.operations.prune import PruneRequest, prune
from pra_agent.operations.repair import RepairRequest, repair
from pra_agent.repository.check import check
from pra_agent.repository.check_subset import parse_subset
from pra_agent.repository.copy import origin
from pra_agent.repository.prune_plan import PruneSettings
from pra_agent.repository.repository import Repository
from pra_agent.retention import Keep, Scope
from pra_agent.storage.backend import Backend, Handle, Kind
from pra_agent.storage.local import LocalBackend
from tests.support.clock import FakeClock
from tests.support.faulty import Crash, Fault, FaultyBackend, Mode
from tests.support.memory import MemoryBackend
from tests.support.restic import PASSWORD, Restic
from tests.support.roundtrip import back_up
from tests.support.small_repository import HOST, SETTINGS, START, content, new_repository, noise, open_repository, save

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALL = parse_subset("all")
TIGHT = PruneSettings(max_unused="0")
SCOPE = Scope("web-1", {"files": Keep(last=2)})
MODES = (Mode.DIE, Mode.DIE_AFTER)
#: Stock restic looks at every so many points: it takes a second, and ours a fiftieth of that.
STOCK_EVERY = 12

Objects = dict[Handle, bytes]
Contents = dict[str, dict[str, bytes]]


@dataclass
class Tried:
    """The points that were tried, for the record."""

    points: int = 0
    stock: int = 0
    by_operation: dict[str, int] = field(default_factory=dict)


TRIED = Tried()


@pytest.fixture(scope="module", autouse=True)
def told(request: pytest.FixtureRequest):
    """Print the count at the end, past the capture."""
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(  # noqa: T201 - the count is to be seen
            f"\ncrash points tried: {TRIED.points} {TRIED.by_operation}, of which stock restic looked at {TRIED.stock}"
        )


def files(number: int) -> dict[str, bytes]:
    return {f"d{n % 3}/f{n}": noise(n, 12_000) for n in range(number, number + 6)}


def loaded(objects: Objects) -> MemoryBackend:
    backend = MemoryBackend()
    backend.objects = dict(objects)
    return backend


def contents(backend: Backend) -> Contents:
    """What each snapshot holds, by the id under which it was first written."""
    repository = open_repository(backend)
    repository.load_index()
    return {origin(snapshot): content(repository, snapshot) for snapshot in repository.snapshots()}


def stock_check(backend: MemoryBackend, place: Path) -> None:
    for handle, data in backend.objects.items():
        path = place / handle.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for folder in ("locks", "index", "snapshots", "data"):
        (place / folder).mkdir(exist_ok=True)
    Restic(place).check()


def sound(backend: MemoryBackend, acknowledged: Mapping[str, dict[str, bytes]], place: Path | None) -> None:
    """No errors, and all that was acknowledged reads back."""
    repository = open_repository(backend)
    repository.unlock(everything=True)
    with repository.lock():
        result = check(repository, ALL)
    assert result.ok, result.lines()
    found = contents(backend)
    for name, expected in acknowledged.items():
        assert found[name] == expected
    if place is not None:
        stock_check(backend, place)
        TRIED.stock += 1


def die_everywhere(
    name: str,
    base: Objects,
    act: Callable[[Backend], object],
    judge: Callable[[MemoryBackend, Path | None], None],
    place: Path,
) -> int:
    """Run `act` with a death at the first operation, then at the second ... until it lives; judge what is left."""
    for mode in MODES:
        point = 0
        while True:
            point += 1
            backend = loaded(base)
            try:
                act(FaultyBackend(backend, Fault(point, mode)))
            except Crash:
                judge(backend, place / f"{mode}-{point}" if point % STOCK_EVERY == 0 else None)
                TRIED.points += 1
                TRIED.by_operation[name] = TRIED.by_operation.get(name, 0) + 1
            else:
                break
        assert point > 10
    return TRIED.by_operation[name]


@pytest.fixture(scope="module")
def base() -> Objects:
    """Five snapshots; two have been forgotten, so that a prune has work."""
    backend = MemoryBackend()
    repository = new_repository(backend)
    for number in range(5):
        save(repository, files(number * 2), hours=number)
    with repository.lock():
        for snapshot in repository.snapshots()[1:3]:
            repository.remove_snapshot(snapshot.id)
    return dict(backend.objects)


def test_backup(base: Objects, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path, data in {**files(100), "empty": b"", "text": b"text\n" * 9000}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    before = contents(loaded(base))

    def judge(backend: MemoryBackend, place: Path | None) -> None:
        sound(backend, before, place)
        repository = open_repository(backend)
        record = back_up(repository, source)
        saved = content(repository, repository.find_snapshot(record.snapshot))
        assert {Path(path).name: data for path, data in saved.items()} == {
            path.name: path.read_bytes() for path in source.rglob("*") if path.is_file()
        }

    assert die_everywhere("backup", base, lambda b: back_up(open_repository(b), source), judge, tmp_path) > 40


def test_forget(base: Objects, tmp_path: Path) -> None:
    clock = FakeClock(START + timedelta(days=1))
    before = contents(loaded(base))
    reference = loaded(base)
    forget(ForgetRequest("r", SCOPE), open_repository(reference), clock=clock)
    kept = contents(reference)
    assert len(kept) == 2

    def judge(backend: MemoryBackend, place: Path | None) -> None:
        sound(backend, kept, place)
        assert contents(backend).items() <= before.items()
        forget(ForgetRequest("r", SCOPE), open_repository(backend), clock=clock)
        assert contents(backend) == kept

    die_everywhere(
        "forget", base, lambda b: forget(ForgetRequest("r", SCOPE), open_repository(b), clock=clock), judge, tmp_path
    )


def test_prune(base: Objects, tmp_path: Path) -> None:
    wanted = contents(loaded(base))
    reference = loaded(base)
    first = prune(PruneRequest("r", TIGHT), open_repository(reference))
    assert first.done
    assert first.done.packs_repacked
    assert first.done.packs_removed
    size = sum(info.size for info in reference.list(Kind.DATA))

    def judge(backend: MemoryBackend, place: Path | None) -> None:
        sound(backend, wanted, place)
        prune(PruneRequest("r", TIGHT), open_repository(backend))
        sound(backend, wanted, None)
        left = sum(info.size for info in backend.list(Kind.DATA))
        assert left < size + 2000  # nothing stays behind but headers of other cuts
        assert prune(PruneRequest("r", TIGHT, dry_run=True), open_repository(backend)).plan.empty

    die_everywhere("prune", base, lambda b: prune(PruneRequest("r", TIGHT), open_repository(b)), judge, tmp_path)


def test_copy_at_the_destination(base: Objects, tmp_path: Path) -> None:
    source = loaded(base)
    wanted = contents(source)
    target = MemoryBackend()
    old = new_repository(target)
    save(old, files(50), job="other")
    empty, before = dict(target.objects), contents(target)
    request = CopyRequest("r", "web-1")

    def judge(backend: MemoryBackend, place: Path | None) -> None:
        sound(backend, before, place)
        assert contents(backend).items() <= (before | wanted).items()
        copy(request, open_repository(source), open_repository(backend))
        sound(backend, before | wanted, None)

    die_everywhere("copy", empty, lambda b: copy(request, open_repository(source), open_repository(b)), judge, tmp_path)


def test_copy_at_the_source(base: Objects, tmp_path: Path) -> None:
    wanted = contents(loaded(base))
    request = CopyRequest("r", "web-1")
    targets: list[MemoryBackend] = []

    def act(backend: Backend) -> None:
        targets.append(MemoryBackend())
        copy(request, open_repository(backend), new_repository(targets[-1]))

    def judge(backend: MemoryBackend, place: Path | None) -> None:
        sound(backend, wanted, place)
        target = targets[-1]
        if Handle(Kind.CONFIG) in target.objects:
            sound(target, {}, None)
            copy(request, open_repository(backend), open_repository(target))
            sound(target, wanted, None)

    die_everywhere("copy", base, act, judge, tmp_path)


@pytest.mark.parametrize("damage", ["packs", "index and snapshot"])
def test_repair(base: Objects, tmp_path: Path, damage: str) -> None:
    """Never worse: what could be read is readable, and a repair after it gives what the first would have given."""
    broken = loaded(base)
    handles = sorted((h for h in base if h.kind is Kind.DATA), key=lambda h: (len(base[h]), h.name))
    if damage == "packs":
        broken.delete(handles[-1])
        victim = handles[-2]
        broken.objects[victim] = broken.objects[victim][:-1] + b"?"
        broken.objects[handles[0]] = broken.objects[handles[0]][: len(base[handles[0]]) // 2]
    else:
        for info in list(broken.list(Kind.INDEX))[:3]:
            broken.objects[info.handle] = b"broken"
        snapshot = next(iter(broken.list(Kind.SNAPSHOT)))
        broken.objects[snapshot.handle] = snapshot.handle.name.encode()

    def act(backend: Backend) -> Repository:
        repository = open_repository(backend)
        repair(RepairRequest(ALL), repository)
        return repository

    reference = loaded(broken.objects)
    act(reference)
    wanted = sorted(map(sorted_items, contents(reference).values()))
    whole = contents(loaded(base))
    intact = {name: of for name, of in contents(reference).items() if whole.get(name) == of}

    def judge(backend: MemoryBackend, place: Path | None) -> None:
        repository = open_repository(backend)
        repository.unlock(everything=True)
        act(backend)
        sound(backend, intact, place)
        assert sorted(map(sorted_items, contents(backend).values())) == wanted

    die_everywhere("repair", broken.objects, act, judge, tmp_path)


def sorted_items(of: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return sorted(of.items())


# ---------------------------------------------------------------- real deaths
def killed(action: Callable[[], object]) -> bool:
    """Run in a child that may kill itself with SIGKILL; whether it did."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def remembering(backend: Backend, state: Path) -> Repository:
    """The repository as a host with a state directory opens it."""
    return Repository.open(backend, PASSWORD, clock=FakeClock(), host=HOST, state=state, settings=SETTINGS)


def test_prune_and_copy_killed_for_real_in_a_directory(tmp_path: Path) -> None:
    """SIGKILL before each write and delete, on one directory that goes on from death to death."""
    local = LocalBackend(tmp_path / "repository")
    local.create()
    repository = new_repository(local)
    for number in range(6):
        save(repository, files(number * 2), hours=number)
    with repository.lock():
        for snapshot in repository.snapshots()[1:4]:
            repository.remove_snapshot(snapshot.id)
    wanted = contents(local)
    second = LocalBackend(tmp_path / "second")
    second.create()
    new_repository(second)
    deaths = 0
    changes = ("put", "delete")

    def until_it_lives(act: Callable[[FaultyBackend], object], backend: LocalBackend) -> None:
        nonlocal deaths
        for at in range(1, 200):
            mode = Mode.KILL if at % 2 else Mode.KILL_AFTER
            # It goes on where the one before died, and gets one change further.
            fault = Fault(at, mode, operations=changes, kinds=(Kind.DATA, Kind.INDEX, Kind.SNAPSHOT))
            if not killed(lambda fault=fault: act(FaultyBackend(backend, fault))):  # type: ignore[misc]
                return
            deaths += 1
            open_repository(backend).unlock(everything=True)
            Restic(backend.location).check()
        pytest.fail("it never came to an end")

    # A host that remembers what it has stored takes over what it had stored when it died.
    until_it_lives(lambda b: prune(PruneRequest("r", TIGHT), remembering(b, tmp_path / "state")), local)
    assert contents(local) == wanted
    until_it_lives(
        lambda b: copy(CopyRequest("r", "web-1"), open_repository(local), remembering(b, tmp_path / "state")), second
    )
    assert contents(second) == wanted
    assert deaths >= 4
    TRIED.points += deaths
    TRIED.by_operation["killed"] = deaths
