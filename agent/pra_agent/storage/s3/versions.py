"""A versioned bucket as it was at an instant: what was written, overwritten or deleted later does not count.

This is how everything comes back after a host was taken over: whatever its credentials could do came after some
instant, and the versions of before are under object lock. Needs the rights to list and read versions.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pra_agent.clock import Clock
from pra_agent.errors import NotFound
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from pra_agent.storage.s3.backend import S3Backend
from pra_agent.storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class _Version:
    modified: datetime
    id: str
    size: int
    deleted: bool
    latest: bool


def _is_newer(one: _Version, other: _Version) -> bool:
    """Whether one follows the other; the store's times have whole seconds, and then the latest of all is the newer."""
    return (one.modified, one.latest) > (other.modified, other.latest)


class S3PastBackend(S3Backend):
    """Reads objects as they were at `as_of`; to be wrapped in `ReadOnlyBackend`."""

    def __init__(self, settings: StorageSettings, clock: Clock, as_of: datetime) -> None:
        super().__init__(settings, clock)
        self._as_of = as_of
        self._listing = threading.Lock()
        self._versions: dict[Kind, dict[str, _Version]] = {}

    @property
    def location(self) -> str:
        return f"{super().location} as of {self._as_of.isoformat()}"

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        for name, version in self._of(kind).items():
            yield ObjectInfo(Handle(kind, name), version.size, version.modified)

    def _address(self, handle: Handle) -> dict[str, Any]:
        version = self._of(handle.kind).get(handle.name)
        if version is None:
            raise NotFound(f"{handle.path} in {self.location} is not there")
        return {**super()._address(handle), "VersionId": version.id}

    def _is_missing(self, handle: Handle) -> bool:  # noqa: ARG002 - the present tells nothing of the past
        return False

    def _of(self, kind: Kind) -> dict[str, _Version]:
        """All objects of a kind at the instant; listed once, since the past does not change."""
        with self._listing:
            if kind not in self._versions:
                self._versions[kind] = self._list_versions(kind)
            return self._versions[kind]

    def _list_versions(self, kind: Kind) -> dict[str, _Version]:
        newest: dict[str, _Version] = {}
        for name, version in self._all_versions(kind):
            if version.modified <= self._as_of and (name not in newest or _is_newer(version, newest[name])):
                newest[name] = version
        return {name: version for name, version in newest.items() if not version.deleted}

    def _all_versions(self, kind: Kind) -> Iterator[tuple[str, _Version]]:
        parameters: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix_of(kind)}
        while True:
            page: Any = self.ask("list", kind.value, lambda s3: s3.list_object_versions(**parameters))
            for items, deleted in ((page.get("Versions", ()), False), (page.get("DeleteMarkers", ()), True)):
                for item in items:
                    handle = self.handle_of(kind, item["Key"])
                    if handle is not None:
                        size = item.get("Size", 0)
                        found = _Version(item["LastModified"], item["VersionId"], size, deleted, item["IsLatest"])
                        yield handle.name, found
            if not page.get("IsTruncated"):
                return
            parameters["KeyMarker"] = page["NextKeyMarker"]
            parameters["VersionIdMarker"] = page["NextVersionIdMarker"]
