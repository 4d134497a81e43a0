"""Random trees, random changes to them: a restore in place makes the tree what it was, whatever was done to it."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.repositories import make_repository, reopen
from tests.support.roundtrip import back_up, below, restored
from tests.support.trees import compare_trees

NAMES = st.sampled_from([b"a", b"b", b"c\xff", b"d e", b"\xc3\xa9\n"])
DATA = st.one_of(
    st.binary(max_size=50),
    st.integers(0, 40).map(lambda size: bytes(size * 10_000)),
    st.integers(1, 255).map(lambda byte: bytes([byte]) * 70_000),
)
KINDS = st.one_of(
    st.tuples(st.just("file"), DATA),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=10).filter(lambda target: b"\0" not in target)),
    st.tuples(st.just("fifo"), st.just(b"")),
    st.tuples(st.just("twin"), st.just(b"")),
)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o1777, 0o000])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
STEPS = st.lists(st.tuples(PATHS, KINDS, MODES, st.integers(0, 2**31 * 10**9)), max_size=8)


@contextmanager
def _cwd(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _apply(root: Path, steps: list[tuple[tuple[bytes, ...], tuple[str, bytes], int, int]]) -> None:
    """Put each thing at its path, over whatever is in the way."""
    files: list[bytes] = []
    with _cwd(root):
        for path, (kind, data), mode, mtime in steps:
            for end in range(1, len(path)):
                _make_directory(b"/".join(path[:end]))
            name = b"/".join(path)
            _clear(name)
            files = [each for each in files if os.path.lexists(each) and stat.S_ISREG(os.lstat(each).st_mode)]
            if kind == "link":
                os.symlink(data, name)  # noqa: PTH211 - raw bytes
            elif kind == "fifo":
                os.mkfifo(name)
            elif kind == "twin" and files:
                os.link(files[-1], name)
            else:
                Path(os.fsdecode(name)).write_bytes(data)
                files.append(name)
            if kind != "link":
                Path(os.fsdecode(name)).chmod(mode)
            os.utime(name, ns=(mtime, mtime), follow_symlinks=False)


def _make_directory(path: bytes) -> None:
    if not (os.path.lexists(path) and stat.S_ISDIR(os.lstat(path).st_mode)):
        _clear(path)
        Path(os.fsdecode(path)).mkdir()


def _clear(path: bytes) -> None:
    if os.path.lexists(path):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            Path(os.fsdecode(path)).unlink()


@given(STEPS, STEPS, st.booleans())
@settings(max_examples=25, phases=[Phase.generate])
def test_in_place_undoes_every_change(steps: list, changes: list, verify: bool):  # type: ignore[type-arg]
    with TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        _apply(root, steps)
        repository = make_repository()
        back_up(repository, root)
        reader = reopen(repository)
        snapshot = reader.find_snapshot("latest")
        restored(reader, snapshot, Path(folder) / "first")
        assert compare_trees(root, below(Path(folder) / "first", root)) == []
        _apply(root, changes)
        restored(reader, snapshot, Path("/"), in_place=True, delete=True, verify=verify)
        assert compare_trees(below(Path(folder) / "first", root), root) == []
