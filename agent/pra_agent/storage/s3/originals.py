"""What was written over in a versioned bucket, and how it was before.

Every object but a lock is written once, so a second version without a deletion in between is somebody's attempt to
hide the first. A bucket policy that demands `If-None-Match` prevents it; a store that knows no such condition cannot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pra_agent.clock import Clock
from pra_agent.errors import NotFound
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from pra_agent.storage.s3.backend import S3Backend
from pra_agent.storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class _Entry:
    """A version or a delete marker; `id` "" stands for a marker."""

    modified: datetime
    id: str
    size: int
    tag: str
    latest: bool


class S3OriginalsBackend(S3Backend):
    """Lists the objects whose present version is not their first since they were last deleted.

    `list` gives size and time of the first version, and must come before `get`, `stat` and `extend_retention`, which
    are about it. `put` writes over what is there: to bring the first version back.
    """

    #: Entries in one answer; the store gives a thousand at most.
    page = 1000

    def __init__(self, settings: StorageSettings, clock: Clock) -> None:
        super().__init__(settings, clock)
        self._first: dict[Handle, _Entry] = {}

    @property
    def location(self) -> str:
        return f"{super().location} as first written"

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        for key, entries in self._grouped(kind):
            handle = self.handle_of(kind, key)
            first = _first_of(entries)
            if handle is not None and first is not None:
                self._first[handle] = first
                yield ObjectInfo(handle, first.size, first.modified)

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        body = bytes(data)
        parameters = self._put_parameters(handle, body)
        parameters.pop("IfNoneMatch", None)
        self.ask("put", handle.path, lambda s3: s3.put_object(Body=body, **parameters))

    def _address(self, handle: Handle) -> dict[str, Any]:
        first = self._first.get(handle)
        if first is None:
            raise NotFound(f"{handle.path} in {self.location} was not written over")
        return {**super()._address(handle), "VersionId": first.id}

    def _is_missing(self, handle: Handle) -> bool:  # noqa: ARG002 - the present tells nothing of the first version
        return False

    def _grouped(self, kind: Kind) -> Iterator[tuple[str, Sequence[_Entry]]]:
        """All entries of each key, the oldest first. Keys come in order, so one page is held at a time."""
        parameters: dict[str, Any] = {
            "Bucket": self._bucket,
            "Prefix": self._prefix_of(kind),
            "MaxKeys": self.page,
        }
        groups: dict[str, list[_Entry]] = {}
        while True:
            page: Any = self.ask("list", kind.value, lambda s3: s3.list_object_versions(**parameters))
            for item in page.get("Versions", ()):
                entry = _Entry(
                    item["LastModified"], item["VersionId"], item.get("Size", 0), item.get("ETag", ""), item["IsLatest"]
                )
                groups.setdefault(item["Key"], []).append(entry)
            for item in page.get("DeleteMarkers", ()):
                groups.setdefault(item["Key"], []).append(_Entry(item["LastModified"], "", 0, "", item["IsLatest"]))
            more = bool(page.get("IsTruncated"))
            unfinished = max(groups, default="") if more else None
            for key in [key for key in groups if key != unfinished]:
                entries = groups.pop(key)
                # Versions came newest first, and times have whole seconds: that order is kept, a deletion follows.
                entries.reverse()
                entries.sort(key=lambda entry: (entry.modified, entry.latest, not entry.id))
                yield key, entries
            if not more:
                return
            parameters["KeyMarker"] = page["NextKeyMarker"]
            parameters["VersionIdMarker"] = page["NextVersionIdMarker"]


def _first_of(entries: Sequence[_Entry]) -> _Entry | None:
    """The first version since the last deletion, if another one covers it."""
    deletions = [number for number, entry in enumerate(entries) if not entry.id]
    alive = entries[deletions[-1] + 1 :] if deletions else entries
    return alive[0] if len(alive) > 1 else None
