"""Which snapshot an operator means."""

from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.errors import UsageError
from pra_agent.model.snapshots import Snapshot
from pra_agent.operations.restore import choose_snapshot

START = datetime(2026, 11, 1, tzinfo=UTC)


def _snapshot(number: int, job: str = "app", *, node: str = "web-1", tags: tuple[str, ...] = ()) -> Snapshot:
    return Snapshot(
        time=START + timedelta(hours=number),
        tree=bytes(32),
        paths=("/srv",),
        hostname=node,
        tags=(f"job={job}", *tags) if job else tags,
        id=f"{number:02x}" * 32,
    )


SNAPSHOTS = [
    _snapshot(1),
    _snapshot(2),
    _snapshot(3, tags=("suspect",)),
    _snapshot(4, "db"),
    _snapshot(5, node="web-2"),
    _snapshot(0x1A, ""),
    _snapshot(0x1B, "only", tags=("suspect",)),
]


@pytest.mark.parametrize(
    ("name", "node", "hours", "expected"),
    [
        ("app", "web-1", None, 2),
        ("app", "", None, 5),
        ("app", "web-1", 1.5, 1),
        ("app", "web-1", 1, 1),
        ("db", "web-1", None, 4),
        ("latest", "web-1", 4, 4),
        ("latest", "web-1", None, 0x1A),
        ("latest", "web-2", None, 5),
        ("only", "web-1", None, 0x1B),
        ("1a", "web-1", None, 0x1A),
        ("03" * 32, "web-1", None, 3),
    ],
)
def test_the_one_that_is_meant(name: str, node: str, hours: float | None, expected: int):
    at = None if hours is None else START + timedelta(hours=hours)
    assert choose_snapshot(SNAPSHOTS, name, node=node, at=at).id == f"{expected:02x}" * 32


@pytest.mark.parametrize(
    ("name", "hours", "message"),
    [
        ("app", 0, "no snapshot of app at or before 2026-11-01T00:00:00"),
        ("nothing", None, "there is no job and no snapshot nothing"),
        ("1", None, "2 snapshots start with 1"),
        ("ff", None, "no snapshot ff"),
        ("", None, "there is no job and no snapshot"),
        ("latest", -1, "no snapshot of latest"),
    ],
)
def test_none_or_several(name: str, hours: float | None, message: str):
    at = None if hours is None else START + timedelta(hours=hours)
    with pytest.raises(UsageError, match=message):
        choose_snapshot(SNAPSHOTS, name, node="web-1", at=at)
