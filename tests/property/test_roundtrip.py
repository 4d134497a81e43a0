"""Random trees, and random changes to them: what is backed up is what comes back, by us and by stock restic."""

# Raw names are the point.
# ruff: noqa: PTH101, PTH102, PTH103, PTH104, PTH108, PTH118, PTH120, PTH211

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pra_agent.archiver.values import Limits
from pra_agent.model.runs import Outcome, RunRecord
from pra_agent.operations.backup import BackupRequest, backup
from pra_agent.repository.repository import Repository
from pra_agent.sources.files import FilesSettings
from pra_agent.storage.local import LocalBackend
from tests.support.captures import MemoryState
from tests.support.clock import FakeClock
from tests.support.repositories import make_repository, reopen
from tests.support.restic import Restic, require_restic
from tests.support.roundtrip import below, restored
from tests.support.trees import EVERYTHING, STOCK, compare_trees

#: Any bytes but "/" and NUL, short, often the same.
NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"a-", b"a.b", b"\xff", b"\xc3\xa9", b" ", b"\n", b'"', b"\\x41"]),
    st.binary(min_size=1, max_size=8).filter(lambda name: name not in {b".", b".."} and not set(name) & {0, 47}),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
CONTENTS = st.one_of(
    st.binary(max_size=50),
    st.tuples(st.binary(min_size=1, max_size=3), st.integers(0, 3 << 20)).map(lambda part: part[0] * (part[1] // 3)),
)
TIMES = st.integers(0, 4_000_000_000_000_000_000)
CHANGES = st.one_of(
    st.tuples(st.just("write"), PATHS, CONTENTS),
    st.tuples(st.just("append"), PATHS, st.binary(max_size=10)),
    st.tuples(st.just("mkdir"), PATHS),
    st.tuples(st.just("symlink"), PATHS, NAMES),
    st.tuples(st.just("fifo"), PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("chmod"), PATHS, st.integers(0, 0o7777)),
    st.tuples(st.just("utime"), PATHS, TIMES),
    st.tuples(st.just("truncate"), PATHS, st.integers(0, 1 << 20)),
)
STEPS = st.lists(CHANGES, max_size=12)


def change(root: bytes, step: tuple[object, ...]) -> None:
    """Make a change; one that is not possible is none."""
    kind, relative, *rest = step
    assert isinstance(relative, bytes)
    path = os.path.join(root, relative)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _change(str(kind), root, path, rest)
    except OSError:
        return


def _change(kind: str, root: bytes, path: bytes, rest: list[object]) -> None:
    argument = rest[0] if rest else None
    if kind in {"write", "append"}:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(path, flags | (os.O_TRUNC if kind == "write" else os.O_APPEND), 0o644)
        with os.fdopen(fd, "wb") as file:
            assert isinstance(argument, bytes)
            file.write(argument)
    elif kind == "mkdir":
        os.mkdir(path)
    elif kind == "symlink":
        assert isinstance(argument, bytes)
        os.symlink(argument, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        assert isinstance(argument, bytes)
        os.link(path, os.path.join(root, argument), follow_symlinks=False)
    elif kind == "rename":
        assert isinstance(argument, bytes)
        os.rename(path, os.path.join(root, argument))
    elif kind == "remove":
        _remove(path)
    else:
        _change_status(kind, path, argument)


def _remove(path: bytes) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _change_status(kind: str, path: bytes, argument: object) -> None:
    assert isinstance(argument, int)
    if kind == "utime":
        os.utime(path, ns=(argument, argument), follow_symlinks=False)
    elif stat.S_ISLNK(os.lstat(path).st_mode):
        return
    elif kind == "chmod":
        # Without root, a directory must stay one that can be walked.
        os.chmod(path, argument if os.geteuid() == 0 else argument | 0o700)
    elif stat.S_ISREG(os.lstat(path).st_mode):
        os.truncate(path, argument)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that can be removed whatever its modes are."""
    with TemporaryDirectory(prefix="pra-roundtrip-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def save(repository: Repository, root: Path, run: str, *, full: bool = False, workers: int = 0) -> RunRecord:
    """Back up the tree."""
    request = BackupRequest(
        run=run,
        job="tree",
        node="web-1",
        source=FilesSettings(paths=(root,)).build(clock=repository.clock),
        state=MemoryState(),
        full=full,
        limits=Limits(workers=workers),
    )
    assert isinstance(repository.clock, FakeClock)
    repository.clock.advance(3600)
    return backup(request, repository, clock=repository.clock)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(first=STEPS, later=st.lists(STEPS, max_size=3), full=st.booleans())
def test_every_snapshot_comes_back_as_its_tree_was(first, later, full):
    with scratch() as place:
        root = place / "tree"
        root.mkdir()
        repository = make_repository(state=place / "state", clock=FakeClock())
        kept: list[tuple[str, Path]] = []
        for number, steps in enumerate([first, *later]):
            for step in steps:
                change(os.fsencode(root), step)
            record = save(repository, root, f"r{number}", full=full and number > 0)
            # A tree without any file is suspect, and saved all the same.
            assert record.outcome in {Outcome.SUCCESS, Outcome.SUSPECT}, record.failures
            target = place / f"restored{number}"
            reader = reopen(repository)
            snapshot = next(each for each in reader.snapshots() if each.id == record.snapshot)
            restored(reader, snapshot, target)
            assert compare_trees(root, below(target, root), EVERYTHING) == []
            kept.append((record.snapshot, target))
        # Later snapshots took nothing away from earlier ones.
        reader = reopen(repository)
        for identity, target in kept:
            snapshot = next(each for each in reader.snapshots() if each.id == identity)
            again = place / f"again-{identity[:8]}"
            restored(reader, snapshot, again)
            assert compare_trees(below(target, root), below(again, root), EVERYTHING) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(first=STEPS, later=STEPS)
def test_an_incremental_run_makes_the_tree_that_a_first_run_makes(first, later):
    with scratch() as place:
        root = place / "tree"
        root.mkdir()
        repository = make_repository(state=place / "state", clock=FakeClock())
        for step in first:
            change(os.fsencode(root), step)
        save(repository, root, "r1")
        for step in later:
            change(os.fsencode(root), step)
        incremental = save(repository, root, "r2")
        again = save(repository, root, "r3", full=True)
        snapshots = {each.id: each for each in repository.snapshots()}
        assert _subtree(repository, snapshots[incremental.snapshot].tree, root) == _subtree(
            repository, snapshots[again.snapshot].tree, root
        )
        assert (incremental.files, incremental.bytes) == (again.files, again.bytes)


def _subtree(repository: Repository, tree: bytes, root: Path) -> bytes | None:
    """The tree of the root itself; those above it change with whatever else this machine does."""
    for name in root.parts[1:]:
        tree = next(node.subtree or b"" for node in repository.read_tree(tree) if node.name == os.fsencode(name))
    return tree


@pytest.mark.peer
@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(first=STEPS, later=STEPS)
def test_stock_restic_agrees(first, later):
    require_restic()
    with scratch() as place:
        root = place / "tree"
        root.mkdir()
        restic = Restic(place / "repository")
        restic.init()
        backend = LocalBackend(place / "repository")
        repository = Repository.open(
            backend, restic.password, clock=FakeClock(), host=make_repository().host, state=place / "state"
        )
        for number, steps in enumerate((first, later)):
            for step in steps:
                change(os.fsencode(root), step)
            save(repository, root, f"r{number}", workers=2)
        restic.check()
        restic.restore(place / "restored")
        assert compare_trees(root, below(place / "restored", root), STOCK) == []
