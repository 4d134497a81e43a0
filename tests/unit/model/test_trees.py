"""A tree's JSON: key order, what is left out, and what survives."""

from dataclasses import replace

import orjson
import pytest

from pra_agent.errors import DamagedError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.trees import decode_tree, encode_tree, is_component

BLOB = bytes(range(32))
BARE = Node(b"a", NodeType.FILE, content=[])
FULL = Node(
    name=b"caf\xe9<\x01>",
    type=NodeType.FILE,
    mode=0o4755,
    mtime=1_700_000_000_123_000_000,
    atime=1,
    ctime=-1,
    uid=1,
    gid=2,
    user="ann",
    group="wheel & co",
    inode=3,
    device_id=4,
    size=5,
    links=2,
    linktarget=b"x\xff",
    xattrs={b"user.b": b"", b"user.a": b"\0\xff"},
    device=6,
    content=[BLOB, BLOB],
    error="no\u2028way",
)


def test_every_key_in_its_order():
    hexed = BLOB.hex().encode()
    assert encode_tree([FULL]) == (
        b'{"nodes":[{"name":"caf\\\\xe9\\u003c\\\\x01\\u003e","type":"file","mode":8389101,'
        b'"mtime":"2023-11-14T22:13:20.123Z","atime":"1970-01-01T00:00:00.000000001Z",'
        b'"ctime":"1969-12-31T23:59:59.999999999Z","uid":1,"gid":2,"user":"ann","group":"wheel \\u0026 co","inode":3,'
        b'"device_id":4,"size":5,"links":2,"linktarget":"x\\ufffd","linktarget_raw":"eP8=",'
        b'"extended_attributes":[{"name":"user.b","value":""},{"name":"user.a","value":"AP8="}],"device":6,'
        b'"content":["' + hexed + b'","' + hexed + b'"],"error":"no\\u2028way"}]}\n'
    )


def test_what_is_empty_is_left_out():
    times = b'"mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z"'
    assert encode_tree([]) == b'{"nodes":[]}\n'
    assert (
        encode_tree([BARE]) == b'{"nodes":[{"name":"a","type":"file",' + times + b',"uid":0,"gid":0,"content":[]}]}\n'
    )
    directory = Node(b"d", NodeType.DIR, 0o755, subtree=BLOB)
    assert encode_tree([directory]) == (
        b'{"nodes":[{"name":"d","type":"dir","mode":2147484141,'
        + times
        + b',"uid":0,"gid":0,"content":null,"subtree":"'
        + BLOB.hex().encode()
        + b'"}]}\n'
    )


@pytest.mark.parametrize("node", [BARE, FULL, replace(FULL, linktarget=b"plain"), replace(BARE, content=None)])
def test_round_trip(node: Node):
    assert decode_tree(encode_tree([node])) == [node]


@pytest.mark.parametrize(
    "names", [(b"b", b"a"), (b"a", b"a"), (b"\xff", b"a"), (b"",), (b".",), (b"..",), (b"a/b",), (b"a\0",)]
)
def test_names_that_may_not_be_written(names: tuple[bytes, ...]):
    with pytest.raises(ValueError, match="not"):
        encode_tree([replace(BARE, name=name) for name in names])
    assert names != (b"a",)


def test_raw_bytes_decide_the_order():
    nodes = [replace(BARE, name=name) for name in (b"A", b"a", b"a!", b"a-", b"a.b", b"a0", b"b", b"\xc3\xa9", b"\xff")]
    assert decode_tree(encode_tree(nodes)) == nodes
    assert all(is_component(node.name) for node in nodes)


def _edited(**keys: object) -> bytes:
    """A tree of one file whose JSON has these keys instead, or in addition."""
    node = orjson.loads(encode_tree([FULL]))["nodes"][0]
    node.update(keys)
    return orjson.dumps({"nodes": [{key: value for key, value in node.items() if value is not ...}]}) + b"\n"


def _again(data: bytes) -> object:
    return orjson.loads(encode_tree(decode_tree(data)))


@pytest.mark.parametrize(
    "keys",
    [
        {"mtime": "2023-11-14T22:13:20.123+05:30"},
        {"atime": "2023-11-14T22:13:20-00:30", "ctime": "2023-11-14T22:13:20+01:00"},
        {"mode": 0o644 | 1 << 31},
        {"extended_attributes": [{"name": "user.null", "value": None}]},
        {"generic_attributes": {"windows.creation_time": "AA=="}},
        {"of_tomorrow": {"deep": [1, None, "<"]}},
    ],
)
def test_what_we_cannot_hold_survives(keys: dict[str, object]):
    data = _edited(**keys)
    assert _again(data) == orjson.loads(data)


def test_a_kept_spelling_goes_with_its_value():
    node = decode_tree(_edited(mtime="2023-11-14T22:13:20+05:30", mode=0o644 | 1 << 31))[0]
    changed = replace(node, mtime=0, mode=0o600)
    again = decode_tree(encode_tree([changed]))[0]
    assert (again.mtime, again.mode) == (0, 0o600)
    assert b"+05:30" not in encode_tree([changed])


def test_generic_attributes_have_their_place():
    encoded = encode_tree(decode_tree(_edited(generic_attributes={"a": 1})))
    assert encoded.index(b"extended_attributes") < encoded.index(b"generic_attributes") < encoded.index(b'"device":')


def test_an_unknown_type_is_irregular():
    assert decode_tree(_edited(type="door"))[0].type is NodeType.IRREGULAR


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"nodes":[1]}',
        b'{"nodes":[{}]}',
        _edited(name=5),
        _edited(name='"'),
        _edited(name="\\q"),
        _edited(mtime="yesterday"),
        _edited(mtime=5),
        _edited(uid="0"),
        _edited(uid=1.5),
        _edited(size=-1),
        _edited(user=7),
        _edited(content=["00"]),
        _edited(content=[5]),
        _edited(subtree="zz"),
        _edited(mode="755"),
        _edited(extended_attributes=[{"name": "a"}]),
        _edited(extended_attributes=5),
        _edited(linktarget_raw="*"),
        _edited(linktarget=5, linktarget_raw=...),
    ],
)
def test_what_is_no_tree(data: bytes):
    with pytest.raises(DamagedError, match="not a tree"):
        decode_tree(data)


def test_a_tree_without_nodes():
    assert decode_tree(b'{"nodes":null}\n') == []
