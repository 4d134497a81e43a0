"""A snapshot's JSON."""

from datetime import UTC, datetime

import orjson
import pytest

from pra_agent.errors import DamagedError
from pra_agent.model.snapshot_json import decode_snapshot, encode_snapshot
from pra_agent.model.snapshots import Snapshot

TREE = bytes(range(32))
FULL = Snapshot(
    time=datetime(2026, 11, 30, 9, 0, 0, 123_456, UTC),
    nanoseconds=789,
    tree=TREE,
    paths=("/srv/a&b", "/etc"),
    hostname="web-1",
    username="pra-agent",
    uid=7,
    gid=8,
    excludes=("*.tmp",),
    tags=("pra-agent", "job=app", "run=r1", "partial"),
    parent="ab" * 32,
    original="cd" * 32,
    program_version="pra-agent 1",
    summary={"files_new": 3, "backup_start": "2026-11-30T09:00:00Z"},
    extra={"label": "rustic's"},
)


def test_every_key_in_its_order():
    assert encode_snapshot(FULL) == (
        b'{"time":"2026-11-30T09:00:00.123456789Z","parent":"'
        + b"ab" * 32
        + b'","tree":"'
        + TREE.hex().encode()
        + b'",'
        b'"paths":["/srv/a\\u0026b","/etc"],"hostname":"web-1","username":"pra-agent","uid":7,"gid":8,'
        b'"excludes":["*.tmp"],"tags":["pra-agent","job=app","run=r1","partial"],"original":"' + b"cd" * 32 + b'",'
        b'"program_version":"pra-agent 1","summary":{"files_new":3,"backup_start":"2026-11-30T09:00:00Z"},'
        b'"label":"rustic\'s"}'
    )


def test_empties_are_left_out():
    bare = Snapshot(time=datetime(2026, 1, 1, tzinfo=UTC), tree=TREE, paths=(), hostname="")
    assert encode_snapshot(bare) == b'{"time":"2026-01-01T00:00:00Z","tree":"' + TREE.hex().encode() + b'","paths":[]}'
    assert decode_snapshot("", encode_snapshot(bare)) == bare


def test_round_trip_and_what_the_tags_say():
    again = decode_snapshot("ef" * 32, encode_snapshot(FULL))
    assert (again.id, again.job, again.run, again.partial, again.pinned) == ("ef" * 32, "app", "r1", True, False)
    assert encode_snapshot(again) == encode_snapshot(FULL)


def test_a_path_that_is_not_utf8_is_written_as_go_does():
    odd = Snapshot(time=datetime(2026, 1, 1, tzinfo=UTC), tree=TREE, paths=("/\udcff",), hostname="")
    assert b'"paths":["/\\ufffd"]' in encode_snapshot(odd)


@pytest.mark.parametrize(
    "keys",
    [
        {"time": "now"},
        {"time": 5},
        {"tree": "00"},
        {"tree": None},
        {"paths": "/srv"},
        {"paths": [5]},
        {"hostname": 5},
        {"uid": "0"},
        {"tags": [None]},
        {"summary": []},
        {"summary": 5},
    ],
)
def test_what_is_no_snapshot(keys: dict[str, object]):
    json = orjson.loads(encode_snapshot(FULL))
    json.update(keys)
    if keys == {"summary": []}:  # an empty value is no value
        assert decode_snapshot("ab", orjson.dumps(json)).summary == {}
        return
    with pytest.raises(DamagedError, match="snapshot abababab"):
        decode_snapshot("ab" * 32, orjson.dumps(json))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\x02"])
def test_what_is_not_even_an_object(data: bytes):
    with pytest.raises(DamagedError):
        decode_snapshot("ab", data)
