"""How much room is asked for."""

import os
from pathlib import Path

from pra_agent.model.nodes import Node, NodeType
from pra_agent.restorer.room import Room

BLOBS = [bytes([number]) * 32 for number in range(4)]


def test_new_files_replaced_files_and_zeros(tmp_path: Path):
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        room = Room(root)
    finally:
        os.close(root)
    room.directory(1, 0, None)
    room.file(1, Node(b"a", NodeType.FILE, size=1000, content=BLOBS[:1]), None)
    assert room.needed() == {1: 1000}
    room.file(1, Node(b"zeros", NodeType.FILE, size=8000, content=BLOBS[:1] * 8), None)
    assert room.needed() == {1: 2000}
    (tmp_path / "there").write_bytes(b"x" * 100_000)
    there = (tmp_path / "there").stat()
    room.file(1, Node(b"there", NodeType.FILE, size=50_000, content=BLOBS), there)
    assert room.needed() == {1: 52_000}
    room.file(1, Node(b"too", NodeType.FILE, size=40_000, content=BLOBS), there)
    assert room.needed() == {1: 52_000}


def test_nothing_to_write_needs_nothing():
    assert Room(None).needed() == {}
