"""What was written over in a versioned bucket is found, whatever page it is on, and brought back."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.process import wait_until
from tests.support.s3 import S3Server

from pra_agent.clock import SystemClock
from pra_agent.errors import NotFound
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.opening import open_originals
from pra_agent.storage.s3.backend import S3Backend
from pra_agent.storage.s3.originals import S3OriginalsBackend
from pra_agent.storage.settings import StorageSettings

CLOCK = SystemClock()


@dataclass
class Versioned:
    """A versioned bucket with a few objects."""

    server: S3Server
    bucket: str
    backend: S3Backend
    originals: S3OriginalsBackend
    stored: dict[Handle, bytes]

    def cover(self, handle: Handle, data: bytes = b"ransom") -> None:
        self.server.client().put_object(Bucket=self.bucket, Key=f"backups/web-1/{handle.path}", Body=data)

    def delete(self, handle: Handle) -> None:
        self.server.client().delete_object(Bucket=self.bucket, Key=f"backups/web-1/{handle.path}")

    def found(self) -> list[Handle]:
        return [info.handle for info in self.originals.list(Kind.DATA)]


@pytest.fixture(params=[1000, 2])
def versioned(moto: S3Server, request: Any) -> Iterator[Versioned]:
    bucket = moto.new_bucket(versioned=True)
    settings = moto.settings(bucket)
    backend = S3Backend(settings, CLOCK)
    originals = S3OriginalsBackend(settings, CLOCK)
    originals.page = request.param
    stored = {}
    for number in range(5):
        data = b"%d" % number
        stored[Handle(Kind.DATA, hashlib.sha256(data).hexdigest())] = data
    for handle, data in stored.items():
        backend.put(handle, data)
    yield Versioned(moto, bucket, backend, originals, stored)
    backend.close()
    originals.close()


def test_nothing_is_found_where_nothing_was_written_over(versioned):
    assert versioned.found() == []
    with pytest.raises(NotFound):
        versioned.originals.get(next(iter(versioned.stored)))


def test_what_was_written_over_comes_back(versioned):
    covered = sorted(versioned.stored, key=lambda handle: handle.name)[1:4]
    for handle in covered:
        for _ in range(3):
            versioned.cover(handle)
    assert versioned.found() == covered
    for handle in covered:
        data = versioned.stored[handle]
        assert versioned.originals.get(handle) == data
        assert versioned.originals.get(handle, 0, 1) == data[:1]
        assert versioned.backend.get(handle) == b"ransom"
        versioned.originals.put(handle, data)
        assert versioned.backend.get(handle) == data


def test_what_was_deleted_in_between_was_not_written_over(versioned):
    first, second, *_ = versioned.stored
    versioned.delete(first)
    deleted = int(CLOCK.timestamp())
    wait_until(lambda: CLOCK.timestamp() > deleted + 1, "the next second, which is all that the store counts")
    versioned.backend.put(first, versioned.stored[first])
    versioned.cover(second)
    versioned.delete(second)
    assert versioned.found() == []
    versioned.cover(first)
    assert versioned.found() == [first]
    assert versioned.originals.get(first) == versioned.stored[first]


def test_a_directory_has_no_versions(tmp_path):
    assert open_originals(StorageSettings(url=str(tmp_path)), CLOCK) is None
