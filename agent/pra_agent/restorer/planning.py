"""Making the plan: the snapshot's trees against what is in the target."""

import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pra_agent.errors import DamagedError, UsageError
from pra_agent.model.nodes import Node, NodeType
from pra_agent.model.printable import printable
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.model.trees import is_component
from pra_agent.restorer.comparing import Comparison, scan
from pra_agent.restorer.plan import Action, Conflict, Deletion, Directory, Item, Plan, RestoreRequest
from pra_agent.restorer.room import Room
from pra_agent.restorer.selection import Selection, Verdict, above, split
from pra_agent.restorer.target import Target, is_temporary, open_root
from pra_agent.restorer.walking import read_trees


def plan(reader: SnapshotReader, snapshot: Snapshot, request: RestoreRequest) -> Plan:
    """Compare a snapshot with the target and say what is to be done; nothing is changed.

    Raises UsageError when a chosen path is not in the snapshot or a pattern is none, DamagedError when the snapshot's
    root cannot be read. Other trees that cannot be read become conflicts.
    """
    root = open_root(os.fsencode(request.target), create=False)
    thresholds = gc.get_threshold()
    # A plan is many objects and no cycles: looking for garbage would look at all of them, again and again.
    gc.set_threshold(100_000, 50, 1000)
    try:
        planner = _Planner(reader, snapshot, request, root)
        planner.walk(snapshot.tree)
        return planner.finish()
    finally:
        gc.set_threshold(*thresholds)
        if root is not None:
            os.close(root)


@dataclass(slots=True)
class _Place:
    """A directory while the plan is made. `there` says that it exists; `whole` that it is restored, not just above."""

    index: int
    within: bool
    there: bool
    whole: bool
    wanted: bool
    subtree: bytes


@dataclass(slots=True)
class _Links:
    """The first name of each hard-linked file, and the inode that it has in the target."""

    first: dict[tuple[int, int, NodeType], tuple[int, bytes, tuple[int, int] | None]] = field(
        default_factory=lambda: dict[tuple[int, int, NodeType], tuple[int, bytes, tuple[int, int] | None]]()
    )


class _Planner:
    def __init__(self, reader: SnapshotReader, snapshot: Snapshot, request: RestoreRequest, root: int | None) -> None:
        self._reader = reader
        self._request = request
        self._selection = Selection(request.paths, request.include, request.exclude)
        chosen = [split(path) for path in request.paths] or [split(os.fsencode(path)) for path in snapshot.paths]
        self._above = above(chosen)
        self._seen = set[bytes]()
        self._compare = Comparison(verify=request.verify, owners=os.geteuid() == 0)
        self._directories = [Directory(0, b"", b"", Action.KEEP if root is not None else Action.CREATE)]
        self._items: list[Item] = []
        self._deletions: list[Deletion] = []
        self._conflicts: list[Conflict] = []
        self._kept = self._kept_bytes = 0
        self._links = _Links()
        self._target = Target(root, self._directories) if root is not None else None
        self._room = Room(root)
        self._places: dict[int, _Place] = {}

    def walk(self, tree: bytes) -> None:
        """Walk the snapshot level by level."""
        verdict = self._selection.root()
        first = _Place(0, not self._selection.paths, self._target is not None, False, verdict is Verdict.YES, tree)
        self._places[0] = first
        level = [first]
        while level:
            below: list[_Place] = []
            for position, nodes in read_trees(self._reader, [place.subtree for place in level]):
                place = level[position]
                if not isinstance(nodes, DamagedError):
                    self._directory(place, nodes, below)
                elif place.index == 0:
                    raise nodes
                else:
                    self._conflict(self._directories[place.index].path, f"its listing is lost: {nodes.message}")
            level = below

    def finish(self) -> Plan:
        """Leave out directories that nothing is restored in, and close what is open."""
        if self._target is not None:
            self._target.close()
        missing = sorted(self._selection.paths - self._seen)
        if missing:
            raise UsageError(
                f"not in the snapshot: {printable(missing[0])}", advice="See pra-agent ls for what the snapshot has."
            )
        directories, numbers = self._wanted()
        return Plan(
            self._request,
            directories,
            [self._renumbered(item, numbers) for item in self._items],
            [replace(each, directory=numbers[each.directory]) for each in self._deletions],
            self._conflicts,
            self._kept,
            self._kept_bytes,
            {numbers[index]: needed for index, needed in self._room.needed().items()},
        )

    def _wanted(self) -> tuple[list[Directory], dict[int, int]]:
        wanted = {0}
        used = {place.index for place in self._places.values() if place.wanted}
        used.update(item.directory for item in self._items)
        used.update(item.link[0] for item in self._items if item.link is not None)
        used.update(each.directory for each in self._deletions)
        for used_index in used:
            index = used_index
            while index not in wanted:
                wanted.add(index)
                index = self._directories[index].parent
        numbers = {index: number for number, index in enumerate(sorted(wanted))}
        return [
            replace(self._directories[index], parent=numbers[self._directories[index].parent]) for index in numbers
        ], numbers

    @staticmethod
    def _renumbered(item: Item, numbers: dict[int, int]) -> Item:
        if numbers[item.directory] == item.directory and item.link is None:
            return item
        link = item.link and (numbers[item.link[0]], item.link[1])
        return replace(item, directory=numbers[item.directory], link=link)

    def _conflict(self, path: bytes, reason: str) -> None:
        self._conflicts.append(Conflict(path, reason))

    def _directory(self, place: _Place, nodes: Iterable[Node], below: list[_Place]) -> None:
        """Plan everything in one directory."""
        there = self._scan(place)
        if there is None:
            return
        path = self._directories[place.index].path
        names = set[bytes]()
        for node in nodes:
            if node.name in names or not is_component(node.name):
                why = "the name occurs twice" if node.name in names else "the name leads out of its directory"
                self._conflict(path + b"/" + node.name, why)
                continue
            names.add(node.name)
            verdict = self._verdict(place, path, node)
            if verdict is Verdict.NO:
                continue
            existing = there.get(node.name)
            if node.type is NodeType.DIR:
                self._subdirectory(place, node, existing, below, whole=verdict is Verdict.YES)
            elif node.type is NodeType.IRREGULAR:
                self._conflict(path + b"/" + node.name, "is of a type that no file can have here")
            else:
                self._item(place.index, node, existing)
        if place.there:
            self._extra(place, there, names)

    def _verdict(self, place: _Place, path: bytes, node: Node) -> Verdict:
        if self._selection.everything:
            return Verdict.YES
        path = path + b"/" + node.name
        verdict = self._selection.judge(path, directory=node.type is NodeType.DIR, within=place.within)
        if path in self._selection.paths:
            self._seen.add(path)
        return verdict

    def _scan(self, place: _Place) -> dict[bytes, os.stat_result] | None:
        """What is there; nothing for a directory that is to be made, None when it cannot be read."""
        if not place.there or self._target is None:
            return {}
        try:
            return scan(self._target.fd(place.index))
        except OSError as error:
            self._conflict(self._directories[place.index].path, f"cannot be read: {error.strerror}")
            return None

    def _subdirectory(
        self, place: _Place, node: Node, existing: os.stat_result | None, below: list[_Place], *, whole: bool
    ) -> None:
        path = self._directories[place.index].path + b"/" + node.name
        is_above = path in self._above
        if node.subtree is None:
            self._conflict(path, "the snapshot has no listing of it")
            return
        there = existing is not None and (existing.st_mode & 0o170000) == 0o040000
        if existing is None:
            action = Action.CREATE
        elif not there and is_above:
            self._conflict(path, "is not a directory, and lies above what is restored")
            return
        elif not there or self._target is None:
            action = Action.REPLACE
        else:
            parent = f"/proc/self/fd/{self._target.fd(place.index)}/"
            same = self._compare.same_metadata(node, existing, parent, node.name)
            action = Action.KEEP if same else Action.UPDATE
        # A directory above belongs to somebody else when it is there already and the restore is in place.
        foreign = is_above and there and self._request.in_place
        index = len(self._directories)
        self._directories.append(
            Directory(place.index, node.name, path, Action.KEEP if foreign else action, None if foreign else node)
        )
        within = self._selection.chosen(path, within=place.within)
        made = _Place(index, within, there, whole and not is_above, whole and within, node.subtree)
        self._places[index] = made
        self._room.directory(index, place.index, existing if there else None)
        below.append(made)

    def _item(self, directory: int, node: Node, existing: os.stat_result | None) -> None:
        if existing is None or self._target is None:
            action = Action.CREATE
        else:
            if (existing.st_mode & 0o170000) == 0o040000 and not self._request.delete:
                path = self._directories[directory].path + b"/" + node.name
                self._conflict(path, "a directory is in the way (--delete would remove it)")
                return
            action = self._compare.compare(node, existing, self._target.fd(directory), node.name)
        link: tuple[int, bytes] | None = None
        if node.links > 1 and node.inode:
            link, action = self._linked(directory, node, existing, action)
        if action is Action.KEEP:
            self._kept += 1
            self._kept_bytes += node.size
            return
        self._items.append(Item(directory, node, action, link))
        if link is None and node.type is NodeType.FILE and action is not Action.UPDATE:
            self._room.file(directory, node, existing)

    def _linked(
        self, directory: int, node: Node, existing: os.stat_result | None, action: Action
    ) -> tuple[tuple[int, bytes] | None, Action]:
        """Make all but the first name of a file a link to it, unless it is one already."""
        inode = None if existing is None else (existing.st_dev, existing.st_ino)
        key = (node.device_id, node.inode, node.type)
        first = self._links.first.get(key)
        if first is None:
            stays = action in {Action.KEEP, Action.UPDATE}
            self._links.first[key] = (directory, node.name, inode if stays else None)
            return None, action
        if inode is not None and inode == first[2]:
            return None, Action.KEEP
        return (first[0], first[1]), Action.CREATE if existing is None else Action.REPLACE

    def _extra(self, place: _Place, there: dict[bytes, os.stat_result], names: set[bytes]) -> None:
        """Plan the deletion of what the snapshot does not have, and of what an interrupted restore left."""
        path = self._directories[place.index].path
        for name in sorted(there.keys() - names):
            st_mode = there[name].st_mode & 0o170000
            if is_temporary(name) and st_mode != 0o040000:
                self._deletions.append(Deletion(place.index, name))
            elif self._request.delete and place.whole:
                verdict = self._selection.judge(path + b"/" + name, directory=st_mode == 0o040000, within=place.within)
                if verdict is Verdict.YES:
                    self._deletions.append(Deletion(place.index, name))
