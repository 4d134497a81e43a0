import os
from pathlib import Path

import pytest

from pra_agent.repository.pending import PendingPack, PendingSession, abandoned, open_session

ONE, TWO, THREE = (PendingPack(f"{number:064x}", 100 + number) for number in (1, 2, 3))


def left_behind(directory: Path) -> list[list[PendingPack]]:
    found: list[list[PendingPack]] = []
    for one in abandoned(directory):
        found.append(one.packs)
        one.release()
    return found


def in_child(work: object) -> None:
    """Run in a process of its own that ends without any clean-up, as SIGKILL does."""
    child = os.fork()
    if child == 0:
        assert callable(work)
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_dead_writer_leaves_what_no_index_lists(tmp_path: Path) -> None:
    def work() -> None:
        session = PendingSession(tmp_path)
        for pack in (ONE, TWO, THREE):
            session.stored(pack)
        session.indexed([TWO.id])

    in_child(work)
    assert left_behind(tmp_path) == [[ONE, THREE]]
    for one in abandoned(tmp_path):
        one.done()
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_living_writer_keeps_its_file(tmp_path: Path) -> None:
    session = PendingSession(tmp_path)
    session.stored(ONE)
    assert left_behind(tmp_path) == []  # in the same process

    def look() -> None:
        from pra_agent.repository import pending

        pending._own.clear()
        os._exit(len(left_behind(tmp_path)))

    in_child(look)
    session.close()
    assert left_behind(tmp_path) == [[ONE]]


def test_a_finished_session_leaves_nothing(tmp_path: Path) -> None:
    session = PendingSession(tmp_path / "new")
    session.stored(ONE)
    session.indexed([ONE.id])
    session.close()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_cut_or_strange_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.packs").write_bytes(b'["' + b"a" * 64 + b'",5]\nnull\n{}\n[1]\n["' + b"b" * 20)
    assert left_behind(tmp_path) == [[PendingPack("a" * 64, 5)]]


def test_no_directory_no_session(tmp_path: Path) -> None:
    assert left_behind(tmp_path / "none") == []
    (tmp_path / "file").touch()
    assert open_session(tmp_path / "file") is None


def test_a_full_disk_does_not_fail_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tmp_path)
    assert session is not None
    session._file.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(session, "_file", full)
        session.stored(ONE)
        session.indexed([ONE.id])
        session.close()
