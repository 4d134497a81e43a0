"""Unix modes and Go's."""

import os
import stat

import pytest

from pra_agent.model.modes import go_mode, node_type, st_mode, unix_mode
from pra_agent.model.nodes import NodeType


@pytest.mark.parametrize(
    ("kind", "mode", "go"),
    [
        (NodeType.FILE, 0o644, 0o644),
        (NodeType.FILE, 0o6755, 1 << 23 | 1 << 22 | 0o755),
        (NodeType.DIR, 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (NodeType.SYMLINK, 0o777, 1 << 27 | 0o777),
        (NodeType.DEV, 0o660, 1 << 26 | 0o660),
        (NodeType.CHARDEV, 0o666, 1 << 26 | 1 << 21 | 0o666),
        (NodeType.FIFO, 0o600, 1 << 25 | 0o600),
        (NodeType.SOCKET, 0o755, 1 << 24 | 0o755),
        (NodeType.IRREGULAR, 0, 1 << 19),
    ],
)
def test_bits(kind: NodeType, mode: int, go: int):
    assert go_mode(kind, mode) == go
    assert unix_mode(go) == mode


def test_types_of_this_system():
    assert node_type(os.stat("/").st_mode) is NodeType.DIR  # noqa: PTH116 - the raw status
    assert node_type(os.stat("/dev/null").st_mode) is NodeType.CHARDEV  # noqa: PTH116
    assert node_type(0) is NodeType.IRREGULAR
    for kind in NodeType:
        assert node_type(st_mode(kind, 0o640)) is kind
    assert st_mode(NodeType.FIFO, 0o600) == stat.S_IFIFO | 0o600
