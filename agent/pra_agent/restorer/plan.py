"""The plan of a restore: a printable value that says what is created, replaced, changed, deleted and left alone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pra_agent.model.nodes import Node
from pra_agent.model.printable import printable


class Action(StrEnum):
    """What happens to one place of the target."""

    CREATE = "create"
    REPLACE = "replace"
    #: The file looks the same; its content is read and compared, and replaced where it differs.
    VERIFY = "verify"
    #: Only owner, attributes, times or mode are set.
    UPDATE = "update"
    KEEP = "keep"
    DELETE = "delete"
    #: Cannot or may not be done; counts as a failure when the plan is executed.
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What is to be restored, and where.

    `target` stands for the root of the snapshot's paths; "/" is in place. `in_place` says that directories above the
    snapshot's own paths belong to somebody else: they are created when missing, and otherwise left as they are.
    `paths` are raw absolute paths of the snapshot (none: all); `include` and `exclude` are gitignore-style patterns
    that are anchored at the snapshot's root. `delete` removes what the snapshot does not have, inside restored
    directories only. `verify` reads files that look the same. `sparse` leaves holes where there are long runs of zeros.
    """

    target: Path
    in_place: bool = False
    paths: Sequence[bytes] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    delete: bool = False
    verify: bool = False
    sparse: bool = True


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory of the plan. `parent` is an index into the plan's directories; the first one is the target itself.

    `node` is None where the metadata is left alone (the target itself, and what is above an in-place restore).
    `path` is the logical path (b"" for the target itself).
    """

    parent: int
    name: bytes
    path: bytes
    action: Action
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """Anything but a directory. `link` is the (directory, name) that it becomes another name of."""

    directory: int
    node: Node
    action: Action
    link: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A name that is to go from a directory, with everything below it."""

    directory: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Conflict:
    """A place that cannot be restored, and why. The path is raw and logical."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a restore is going to do. Directories come after their parents.

    `kept` and `kept_bytes` are files that are as they should be already.
    `room` maps a directory's index to the bytes that its file system must have free.
    """

    request: RestoreRequest
    directories: Sequence[Directory]
    items: Sequence[Item]
    deletions: Sequence[Deletion] = ()
    conflicts: Sequence[Conflict] = ()
    kept: int = 0
    kept_bytes: int = 0
    room: Mapping[int, int] = field(default_factory=lambda: dict[int, int]())

    @property
    def files(self) -> int:
        """How many files (of any type but directories) are created, replaced, verified or changed."""
        return len(self.items)

    @property
    def size(self) -> int:
        """How many bytes are written at most; less where content is found in place."""
        return sum(
            item.node.size
            for item in self.items
            if item.link is None and item.action in {Action.CREATE, Action.REPLACE, Action.VERIFY}
        )

    def path(self, item: Item | Deletion) -> bytes:
        """The logical path of an item, raw."""
        name = item.name if isinstance(item, Deletion) else item.node.name
        return self.directories[item.directory].path + b"/" + name

    def counts(self) -> Mapping[str, int]:
        """How often each action occurs, directories included."""
        counts = Counter(str(item.action) for item in self.items)
        counts.update(str(each.action) for each in self.directories[1:])
        counts[Action.DELETE] += len(self.deletions)
        counts[Action.CONFLICT] += len(self.conflicts)
        counts[Action.KEEP] += self.kept
        return {action.value: counts[action.value] for action in Action}

    def lines(self) -> Iterator[tuple[Action, str, int]]:
        """Everything that changes, by path: what happens, the printable path, bytes to write."""
        for _path, action, text, size in sorted(self._rows()):
            yield action, text, size

    def _rows(self) -> Iterator[tuple[bytes, Action, str, int]]:
        for directory in self.directories[1:]:
            if directory.action is not Action.KEEP:
                yield directory.path, directory.action, printable(directory.path) + "/", 0
        for item in self.items:
            path = self.path(item)
            text = printable(path)
            if item.link is not None:
                first = printable(self.directories[item.link[0]].path + b"/" + item.link[1])
                yield path, item.action, f"{text} = {first}", 0
            else:
                yield path, item.action, text, 0 if item.action is Action.UPDATE else item.node.size
        for deletion in self.deletions:
            path = self.path(deletion)
            yield path, Action.DELETE, printable(path), 0
        for conflict in self.conflicts:
            yield conflict.path, Action.CONFLICT, f"{printable(conflict.path)}: {conflict.reason}", 0
