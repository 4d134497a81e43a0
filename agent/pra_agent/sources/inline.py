"""Entries whose content the agent itself wrote: facts about what was captured."""

import io
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, cast

from pra_agent.model.nodes import Node, NodeType
from pra_agent.sources.source import Entry


def inline(path: bytes, data: bytes, when: int) -> Entry:
    """A file of the agent's own making, at a logical path; `when` in nanoseconds since the epoch."""
    name = path.rpartition(b"/")[2]
    node = Node(name=name, type=NodeType.FILE, mode=0o600, links=1, mtime=when, atime=when, ctime=when, size=len(data))
    return Entry(path, node, stream=partial(_opened, data))


def _opened(data: bytes) -> AbstractContextManager[BinaryIO]:
    return cast("AbstractContextManager[BinaryIO]", io.BytesIO(data))
