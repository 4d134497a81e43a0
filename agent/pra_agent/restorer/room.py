"""How much room a plan needs, on each file system that it writes to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pra_agent.model.nodes import Node


@dataclass(slots=True)
class _Need:
    """What one file system needs: `directory` is an index of a directory on it."""

    directory: int
    grows: int = 0
    beside: int = 0


class Room:
    """Sums up bytes per file system. A file that is replaced is there twice until it has taken its place."""

    def __init__(self, root: int | None) -> None:
        device = os.fstat(root).st_dev if root is not None else 0
        self._devices: dict[int, int] = {0: device}
        self._needs: dict[int, _Need] = {device: _Need(0)}

    def directory(self, index: int, parent: int, there: os.stat_result | None) -> None:
        """Tell where a directory lies: on its own file system, or on its parent's when it is new."""
        device = self._devices[parent] if there is None else there.st_dev
        self._devices[index] = device
        self._needs.setdefault(device, _Need(index))

    def file(self, directory: int, node: Node, there: os.stat_result | None) -> None:
        """Count a file. Blobs that occur again in it are likely zeros, which take no room."""
        content = node.content or ()
        size = node.size if len(content) < 2 else node.size * len(set(content)) // len(content)
        need = self._needs[self._devices[directory]]
        need.directory = directory
        if there is None:
            need.grows += size
        else:
            need.grows += max(0, size - there.st_blocks * 512)
            need.beside = max(need.beside, size)

    def needed(self) -> Mapping[int, int]:
        """Directory index to bytes, one directory for each file system that needs any."""
        needs = {need.directory: need.grows + need.beside for need in self._needs.values()}
        return {directory: size for directory, size in needs.items() if size}
