"""Any tree of any nodes comes back, to the same bytes."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pra_agent.errors import DamagedError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.times import SECOND
from pra_agent.model.trees import decode_tree, encode_tree, is_component

IDS = st.binary(min_size=32, max_size=32)
NUMBERS = st.integers(0, 2**64 - 1)
TIMES = st.integers(-62_167_219_200 * SECOND, 253_402_300_800 * SECOND - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NODES = st.builds(
    Node,
    name=st.binary(min_size=1, max_size=12).filter(is_component),
    type=st.sampled_from(NodeType),
    mode=st.integers(0, 0o7777),
    mtime=TIMES,
    atime=TIMES,
    ctime=TIMES,
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    user=TEXT,
    group=TEXT,
    inode=NUMBERS,
    device_id=NUMBERS,
    size=NUMBERS,
    links=NUMBERS,
    linktarget=st.binary(max_size=12),
    xattrs=st.dictionaries(TEXT.map(str.encode), st.binary(max_size=8), max_size=3),
    device=NUMBERS,
    content=st.none() | st.lists(IDS, max_size=3),
    subtree=st.none() | IDS,
    error=TEXT,
)
TREES = st.lists(NODES, max_size=5, unique_by=lambda node: node.name).map(
    lambda nodes: sorted(nodes, key=lambda node: node.name)
)


@given(TREES)
def test_trees_round_trip(nodes: list[Node]):
    data = encode_tree(nodes)
    assert decode_tree(data) == nodes
    assert encode_tree(decode_tree(data)) == data
    assert len(json.loads(data)["nodes"]) == len(nodes)
    assert data.count(b"\n") == 1


@given(TREES, st.data())
def test_damage_is_damage(nodes: list[Node], data: st.DataObject):
    raw = bytearray(encode_tree(nodes))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode_tree(bytes(raw))
    except DamagedError:
        return
    assert isinstance(again, list)


@given(st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_any_json_is_a_tree_or_damage(value: object):
    try:
        decode_tree(json.dumps({"nodes": value}).encode())
    except DamagedError:
        return
