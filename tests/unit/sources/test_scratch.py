"""Room for a while: what may be used of it, and what a crash leaves there."""

import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from pra_agent.config.models import LimitsSettings
from pra_agent.errors import StorageFull
from pra_agent.sources.scratch import Room, demand_free
from pra_agent.sources.sqlite import copied
from tests.support.captures import room


def test_more_than_the_quota_is_refused_in_one_line(tmp_path):
    scratch = room(tmp_path / "scratch", quota=1 << 20)
    scratch.claim(1 << 20)
    with scratch.held("a.copy") as path:
        path.write_bytes(os.urandom(600_000))
        with pytest.raises(StorageFull, match=r"limits\.scratch\.quota \(1") as caught:
            scratch.claim(500_000)
        assert "\n" not in caught.value.message
        scratch.claim(100_000)
    scratch.claim(1 << 20)


def test_the_disk_keeps_what_is_to_stay_free(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    scratch = room(tmp_path / "not" / "yet", min_free=free // 2)
    scratch.claim(free // 4)
    with pytest.raises(StorageFull, match=r"less than limits\.min_free"):
        scratch.claim(free * 3 // 4)
    with pytest.raises(StorageFull, match=r"less than limits\.min_free"):
        demand_free(tmp_path / "state", lambda total: total + 1)


@pytest.mark.parametrize(
    ("said", "total", "kept"),
    [
        ("5% up to 10GiB", 10**11, 5 * 10**9),
        ("5% up to 10GiB", 10**13, 10 << 30),
        ("20%", 10**13, 2 * 10**12),
        ("1GiB", 10**13, 1 << 30),
        ("0%", 10**13, 0),
    ],
)
def test_what_is_to_stay_free(said, total, kept):
    assert LimitsSettings(min_free=said).free_bytes(total) == kept


@pytest.mark.parametrize("said", ["5% up to", "1GiB up to 2GiB", "up to 1GiB", "101% up to 1GiB"])
def test_what_is_no_room_is_refused(said):
    with pytest.raises(ValueError, match=r"share|size|up to"):
        LimitsSettings(min_free=said)


def test_what_a_crash_left_is_swept_and_what_is_in_use_is_not(tmp_path):
    scratch = room(tmp_path)
    (tmp_path / "job-r1.copy").write_bytes(b"left")
    (tmp_path / "reinstate-r1.restored").mkdir()
    (tmp_path / "reinstate-r1.restored" / "f").write_bytes(b"left")
    (tmp_path / "notes").write_bytes(b"somebody's")
    with scratch.held("job-r2.copy") as mine, room(tmp_path).held("reinstate-r3.restored", directory=True) as other:
        scratch.sweep()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, other.name, "notes"])
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_database_that_has_no_room_leaves_nothing(tmp_path):
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a BLOB)")
        db.execute("INSERT INTO t VALUES (zeroblob(3000000))")
        db.commit()
    scratch = Room(tmp_path / "scratch", 1 << 20, lambda _total: 0)
    with pytest.raises(StorageFull, match="quota"), copied(path, scratch, "live"):
        pass
    assert not list(tmp_path.glob("scratch/*"))
    with copied(path, room(tmp_path / "scratch"), "live") as copy:
        assert copy.read(15) == b"SQLite format 3"
    assert not list(tmp_path.glob("scratch/*"))
