"""What is in the target already, and whether it is what the snapshot has."""

import os
import stat

from pra_agent.model.modes import node_type
from pra_agent.model.nodes import Node, NodeType
from pra_agent.restorer.plan import Action

#: Attributes that a restore sets, and also takes away where the snapshot has none. Others may belong to the system
#: (labels of security modules, layers of an overlay): they are only set.
_OURS = (b"user.", b"system.posix_acl_", b"security.capability")


def is_ours(name: bytes) -> bool:
    """Whether an extended attribute that the snapshot does not have is taken away."""
    return name.startswith(_OURS)


def scan(directory: int) -> dict[bytes, os.stat_result]:
    """Names in a directory with their own (not their targets') status."""
    found: dict[bytes, os.stat_result] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found[os.fsencode(entry.name)] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
    return found


def read_xattrs(path: int | str) -> dict[bytes, bytes]:
    """Extended attributes of a descriptor or of a path that is not followed; none where they cannot be read."""
    found: dict[bytes, bytes] = {}
    follow = isinstance(path, int)
    try:
        for name in os.listxattr(path, follow_symlinks=follow):
            found[os.fsencode(name)] = os.getxattr(path, name, follow_symlinks=follow)
    except OSError:
        return found
    return found


class Comparison:
    """How nodes are compared with what is there. Owners count only for root: nobody else can set them."""

    def __init__(self, *, verify: bool, owners: bool) -> None:
        self._verify = verify
        self._owners = owners

    def compare(self, node: Node, there: os.stat_result, directory: int, name: bytes) -> Action:
        """Say what a node that is no directory needs, given what has its name: KEEP, UPDATE, VERIFY or REPLACE."""
        # A name among others, unlike in the snapshot, may be a trap: metadata would be set on those as well.
        if there.st_nlink > 1 and node.links <= 1:
            return Action.REPLACE
        if node_type(there.st_mode) is not node.type or not _same_content(node, there, directory, name):
            return Action.REPLACE
        if self._verify and node.type is NodeType.FILE and node.size:
            return Action.VERIFY
        return Action.KEEP if self.same_metadata(node, there, f"/proc/self/fd/{directory}/", name) else Action.UPDATE

    def same_metadata(self, node: Node, there: os.stat_result, parent: str, name: bytes) -> bool:
        """Whether owner, mode, modification time and attributes are those of the node."""
        if node.mtime != there.st_mtime_ns:
            return False
        if node.type is not NodeType.SYMLINK and node.mode != stat.S_IMODE(there.st_mode):
            return False
        if self._owners and (node.uid != there.st_uid or node.gid != there.st_gid):
            return False
        found = read_xattrs(parent + os.fsdecode(name))
        return found == node.xattrs or (
            all(found.get(key) == value for key, value in node.xattrs.items())
            and not any(is_ours(key) for key in found.keys() - node.xattrs.keys())
        )


def _same_content(node: Node, there: os.stat_result, directory: int, name: bytes) -> bool:
    """Whether the content is the same, as far as that can be told without reading it."""
    match node.type:
        case NodeType.FILE:
            return node.size == there.st_size and node.mtime == there.st_mtime_ns
        case NodeType.SYMLINK:
            try:
                return os.readlink(name, dir_fd=directory) == node.linktarget
            except OSError:
                return False
        case NodeType.DEV | NodeType.CHARDEV:
            return node.device == there.st_rdev
        case _:
            return True
