"""What is sent to S3, seen by a server that believes everything (moto)."""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.s3 import S3Server

from pra_agent.clock import SystemClock
from pra_agent.errors import AlreadyExists, DamagedError, NotFound, StorageError, UsageError
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.s3.backend import S3Backend
from pra_agent.storage.s3.versions import S3PastBackend
from pra_agent.storage.settings import StorageSettings

NOW = datetime(2031, 5, 1, tzinfo=UTC)


@dataclass
class Bucket:
    """A bucket of moto; `sent` has the headers of each PUT."""

    server: S3Server
    name: str
    backend: S3Backend
    sent: list[dict[str, str]]

    def head(self, handle: Handle) -> Any:
        return self.server.client().head_object(Bucket=self.name, Key=f"backups/web-1/{handle.path}")


def new(kind: Kind = Kind.DATA) -> tuple[Handle, bytes]:
    data = secrets.token_bytes(100)
    return (Handle(kind) if kind is Kind.CONFIG else Handle(kind, hashlib.sha256(data).hexdigest())), data


@pytest.fixture
def make(moto: S3Server) -> Iterator[Any]:
    made: list[S3Backend] = []

    def bucket(*, object_lock: bool = False, versioned: bool = False, **more: Any) -> Bucket:
        name = moto.new_bucket(object_lock=object_lock, versioned=versioned)
        backend = S3Backend(moto.settings(name, **more), FakeClock(NOW))
        made.append(backend)
        sent: list[dict[str, str]] = []

        def note(request: Any, **_: Any) -> None:
            sent.append({k.lower(): v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()})

        backend._clients.get().meta.events.register("before-send.s3.PutObject", note)
        return Bucket(moto, name, backend, sent)

    yield bucket
    for backend in made:
        backend.close()


@pytest.mark.parametrize("kind", Kind)
def test_an_upload_says_its_checksum_and_never_overwrites(make, kind):
    bucket = make()
    handle, data = new(kind)
    bucket.backend.put(handle, data)
    (headers,) = bucket.sent
    assert headers["x-amz-checksum-sha256"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert headers.get("if-none-match") == (None if kind is Kind.LOCK else "*")
    assert not [name for name in headers if "object-lock" in name]


def test_md5_instead(make):
    bucket = make(checksums="md5")
    handle, data = new()
    bucket.backend.put(handle, data)
    (headers,) = bucket.sent
    assert headers["content-md5"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert not [name for name in headers if "checksum" in name]


def test_nothing_that_an_old_store_refuses(make):
    bucket = make(checksums="off", conditional=False)
    bucket.backend.put(*new())
    (headers,) = bucket.sent
    assert not [name for name in headers if "checksum" in name or "md5" in name or name == "if-none-match"]


@pytest.mark.parametrize("kind", Kind)
def test_everything_but_locks_is_held_for_its_time(make, kind):
    bucket = make_locked(make)
    handle, data = new(kind)
    bucket.backend.put(handle, data)
    head = bucket.head(handle)
    if kind is Kind.LOCK:
        assert "ObjectLockMode" not in head
    else:
        assert head["ObjectLockMode"] == "GOVERNANCE"
        assert head["ObjectLockRetainUntilDate"] == NOW + timedelta(days=30)


def test_a_clock_that_is_behind_does_not_shorten_the_hold(moto):
    name = moto.new_bucket(object_lock=True)
    backend = S3Backend(moto.settings(name, object_lock={"retain": "1h"}), FakeClock(datetime(2001, 1, 1, tzinfo=UTC)))
    backend.create()
    handle, data = new()
    backend.put(handle, data)
    head = moto.client().head_object(Bucket=name, Key=f"backups/web-1/{handle.path}")
    assert head["ObjectLockRetainUntilDate"] > SystemClock().now() + timedelta(minutes=50)
    backend.close()


def test_a_hold_is_extended_and_never_shortened(make):
    bucket = make_locked(make)
    handle, data = new()
    bucket.backend.put(handle, data)
    bucket.backend.extend_retention(handle, NOW + timedelta(days=1))
    assert bucket.head(handle)["ObjectLockRetainUntilDate"] == NOW + timedelta(days=30)
    bucket.backend.extend_retention(handle, NOW + timedelta(days=60))
    assert bucket.head(handle)["ObjectLockRetainUntilDate"] == NOW + timedelta(days=60)
    assert bucket.head(handle)["ObjectLockMode"] == "GOVERNANCE"
    lock, data = new(Kind.LOCK)
    bucket.backend.put(lock, data)
    bucket.backend.extend_retention(lock, NOW + timedelta(days=60))
    assert "ObjectLockMode" not in bucket.head(lock)
    with pytest.raises(NotFound):
        bucket.backend.extend_retention(new()[0], NOW)


def test_without_object_lock_extending_asks_nothing(make):
    bucket = make()
    bucket.backend.extend_retention(new()[0], NOW)


def make_locked(make: Any) -> Bucket:
    bucket: Bucket = make(object_lock=True)
    settings = bucket.server.settings(bucket.name, object_lock={"mode": "GOVERNANCE", "retain": "30d"})
    bucket.backend.close()
    bucket.backend = S3Backend(settings, FakeClock(NOW))
    return bucket


def test_sealing_by_the_store(make):
    bucket = make(sse={"mode": "aws:kms", "key_id": "alias/pra"})
    for kind in Kind:
        handle, data = new(kind)
        bucket.backend.put(handle, data)
    assert {headers["x-amz-server-side-encryption"] for headers in bucket.sent} == {"aws:kms"}
    assert {headers["x-amz-server-side-encryption-aws-kms-key-id"] for headers in bucket.sent} == {"alias/pra"}
    bucket = make(sse={})
    bucket.backend.put(*new())
    assert bucket.sent[0]["x-amz-server-side-encryption"] == "AES256"


def test_only_packs_go_to_another_class(make):
    bucket = make(storage_class="STANDARD_IA")
    for kind in Kind:
        handle, data = new(kind)
        bucket.backend.put(handle, data)
        assert bucket.head(handle).get("StorageClass") == ("STANDARD_IA" if kind is Kind.DATA else None)


def test_a_bucket_without_a_prefix(moto):
    backend = S3Backend(moto.settings(moto.new_bucket(), ""), SystemClock())
    handle, data = new()
    backend.put(handle, data)
    backend.put(Handle(Kind.CONFIG), b"config")
    assert backend.get(handle) == data
    assert [info.handle for info in backend.list(Kind.DATA)] == [handle]
    assert [info.handle for info in backend.list(Kind.CONFIG)] == [Handle(Kind.CONFIG)]
    backend.close()


def test_prefixes_that_begin_alike_do_not_mix(moto):
    name = moto.new_bucket()
    backends = [S3Backend(moto.settings(name, prefix), SystemClock()) for prefix in ("web", "web-1")]
    for backend in backends:
        backend.put(*new(Kind.SNAPSHOT))
        assert len(list(backend.list(Kind.SNAPSHOT))) == 1
        backend.close()


def test_the_stores_clock_is_told(make):
    bucket = make()
    assert bucket.backend.store_time() is None
    with pytest.raises(NotFound):
        bucket.backend.get(new()[0])
    told = bucket.backend.store_time()
    assert told is not None
    assert abs(told - SystemClock().now()) < timedelta(minutes=1)


def test_an_object_in_its_place_is_compared_by_what_the_store_tells(make):
    bucket = make()
    handle, data = new(Kind.KEY)
    client = bucket.server.client()
    place = {"Bucket": bucket.name, "Key": f"backups/web-1/{handle.path}"}
    client.put_object(**place, Body=data)
    bucket.backend.put(handle, data)
    client.put_object(**place, Body=data[:-1])
    with pytest.raises(AlreadyExists):
        bucket.backend.put(handle, data)
    client.put_object(**place, Body=bytes(100))
    with pytest.raises(AlreadyExists):
        bucket.backend.put(handle, data)


def test_an_object_that_became_shorter_is_damage(make):
    bucket = make()
    handle, data = new()
    bucket.backend.put(handle, data)
    bucket.server.client().put_object(Bucket=bucket.name, Key=f"backups/web-1/{handle.path}", Body=data[:50])
    for offset, length in ((0, 100), (40, 20), (50, 1), (60, 10)):
        with pytest.raises(DamagedError):
            bucket.backend.get(handle, offset, length)


def test_a_directory_is_no_bucket():
    with pytest.raises(UsageError):
        S3Backend(StorageSettings(url="/srv"), SystemClock())


def test_a_missing_bucket_is_said(moto):
    backend = S3Backend(moto.settings("not-here-at-all"), SystemClock())
    with pytest.raises(StorageError, match="NoSuchBucket"):
        backend.create()
    backend.close()


def test_the_past(moto, make):
    bucket = make(versioned=True)
    client = bucket.server.client()
    kept, hidden, removed, late = (new(Kind.SNAPSHOT) for _ in range(4))
    for handle, data in (kept, hidden, removed):
        bucket.backend.put(handle, data)
    gone = new(Kind.SNAPSHOT)
    bucket.backend.put(*gone)
    bucket.backend.delete(gone[0])
    versions = client.list_object_versions(Bucket=bucket.name)
    instant = max(item["LastModified"] for item in (*versions["Versions"], *versions["DeleteMarkers"]))
    later = instant + timedelta(seconds=2)
    while SystemClock().now() < later:  # the store's times have whole seconds
        SystemClock().sleep(0.1)
    client.put_object(Bucket=bucket.name, Key=f"backups/web-1/{hidden[0].path}", Body=b"ransom")
    bucket.backend.delete(removed[0])
    bucket.backend.put(*late)
    past = S3PastBackend(moto.settings(bucket.name), SystemClock(), instant)
    assert {info.handle for info in past.list(Kind.SNAPSHOT)} == {kept[0], hidden[0], removed[0]}
    for handle, data in (kept, hidden, removed):
        assert past.get(handle) == data
        assert past.get(handle, 5, 10) == data[5:15]
        assert past.stat(handle).size == 100
    for handle in (late[0], gone[0]):
        with pytest.raises(NotFound):
            past.get(handle)
    past.close()
    before_all = S3PastBackend(moto.settings(bucket.name), SystemClock(), instant - timedelta(days=1))
    assert list(before_all.list(Kind.SNAPSHOT)) == []
    before_all.close()
