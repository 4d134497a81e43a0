"""What a host that was taken over can do to its backups: nothing that lasts. Ceph's users, policies and object lock."""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pra_agent.clock import SystemClock
from pra_agent.errors import AccessDenied, AlreadyExists, NotFound, StorageError
from pra_agent.storage.backend import Backend, Handle, Kind
from pra_agent.storage.opening import open_backend
from pra_agent.storage.settings import StorageSettings
from tests.support.radosgw import KMS_KEY, Radosgw, agent_statements, observer_statements, pruner_statements

pytestmark = [pytest.mark.s3, pytest.mark.xdist_group("radosgw")]

PREFIX = "backups/web-1"
KEPT = [kind for kind in Kind if kind is not Kind.LOCK]


@dataclass(frozen=True)
class Person:
    """Somebody with keys of their own."""

    backend: Backend
    settings: StorageSettings
    client: Any


@dataclass
class Site:
    """A bucket under object lock, and who may do what in it."""

    radosgw: Radosgw
    bucket: str
    agent: Person
    pruner: Person
    observer: Person
    opened: list[Backend] = field(default_factory=list)

    def as_of(self, person: Person, instant: datetime) -> Backend:
        backend = open_backend(person.settings, SystemClock(), as_of=instant)
        self.opened.append(backend)
        return backend

    def retention(self, handle: Handle) -> tuple[Any, Any]:
        """What holds the object, as the owner of the bucket sees it."""
        head = self.radosgw.server.client().head_object(Bucket=self.bucket, Key=f"{PREFIX}/{handle.path}")
        return head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate")

    def now(self) -> datetime:
        """An instant after all that was written so far, by the store's own clock."""
        client = self.radosgw.server.client()
        pages = client.get_paginator("list_object_versions").paginate(Bucket=self.bucket)
        times: list[datetime] = [
            item["LastModified"]
            for page in pages
            for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
        ]
        return max(times)


@pytest.fixture(scope="module")
def users(radosgw: Radosgw) -> dict[str, tuple[str, str]]:
    return {name: radosgw.new_user(name) for name in ("agent", "pruner", "observer")}


@pytest.fixture
def site(radosgw: Radosgw, users: dict[str, tuple[str, str]]) -> Iterator[Site]:
    yield from make_site(radosgw, users, {"mode": "GOVERNANCE", "retain": "1h"})


def make_site(radosgw: Radosgw, users: dict[str, tuple[str, str]], lock: dict[str, str], **more: Any) -> Iterator[Site]:
    bucket = radosgw.server.new_bucket(object_lock=True)
    radosgw.allow(
        bucket,
        *agent_statements("agent", bucket, PREFIX),
        *pruner_statements("pruner", bucket),
        *observer_statements("observer", bucket),
    )

    def person(name: str) -> Person:
        settings = radosgw.server.settings(
            bucket,
            PREFIX,
            credentials={"file": radosgw.server.credentials_file(*users[name])},
            checksums="md5",
            conditional=False,
            object_lock=lock,
            **more,
        )
        return Person(open_backend(settings, SystemClock()), settings, radosgw.server.client(*users[name]))

    site = Site(radosgw, bucket, person("agent"), person("pruner"), person("observer"))
    yield site
    for backend in (*site.opened, site.agent.backend, site.pruner.backend, site.observer.backend):
        backend.close()


def store_one_of_each(backend: Backend, kinds: Iterable[Kind]) -> dict[Handle, bytes]:
    stored = {}
    for kind in kinds:
        data = secrets.token_bytes(1000)
        handle = Handle(kind) if kind is Kind.CONFIG else Handle(kind, hashlib.sha256(data).hexdigest())
        backend.put(handle, data)
        stored[handle] = data
    return stored


def key_of(handle: Handle) -> str:
    return f"{PREFIX}/{handle.path}"


def refused(request: Callable[..., object], **parameters: Any) -> None:
    with pytest.raises(ClientError) as caught:
        request(**parameters)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in {400, 403}, caught.value


def test_the_agent_does_its_work(site):
    backend = site.agent.backend
    backend.create()
    stored = store_one_of_each(backend, list(Kind))
    for handle, data in stored.items():
        assert backend.get(handle) == data
        assert backend.get(handle, 10, 20) == data[10:30]
        assert backend.stat(handle).size == len(data)
        assert [info.handle for info in backend.list(handle.kind)] == [handle]
        backend.put(handle, data)
    assert backend.store_time() is not None
    assert abs(backend.store_time() - datetime.now(UTC)) < timedelta(minutes=1)


def test_everything_is_held_but_locks(site):
    stored = store_one_of_each(site.agent.backend, list(Kind))
    for handle in stored:
        mode, until = site.retention(handle)
        if handle.kind is Kind.LOCK:
            assert (mode, until) == (None, None)
        else:
            assert mode == "GOVERNANCE"
            assert timedelta(minutes=59) < until - site.now() < timedelta(minutes=61)


def test_the_agent_refreshes_and_removes_its_locks(site):
    first, second = b"first", b"second"
    for data in (first, second):
        handle = Handle(Kind.LOCK, hashlib.sha256(data).hexdigest())
        site.agent.backend.put(handle, data)
        site.agent.backend.delete(handle)
        with pytest.raises(NotFound):
            site.agent.backend.get(handle)
    assert list(site.agent.backend.list(Kind.LOCK)) == []


def test_the_agent_cannot_delete(site):
    stored = store_one_of_each(site.agent.backend, KEPT)
    for handle, data in stored.items():
        with pytest.raises(AccessDenied):
            site.agent.backend.delete(handle)
        assert site.agent.backend.get(handle) == data


def test_the_agents_keys_cannot_delete_by_any_request(site):
    stored = store_one_of_each(site.agent.backend, KEPT)
    agent = site.agent.client
    for handle, data in stored.items():
        place = {"Bucket": site.bucket, "Key": key_of(handle)}
        version = agent.head_object(**place)["VersionId"]
        refused(agent.delete_object, **place)
        refused(agent.delete_object, **place, VersionId=version)
        refused(agent.delete_object, **place, VersionId=version, BypassGovernanceRetention=True)
        both = [{"Key": place["Key"]}, {"Key": place["Key"], "VersionId": version}]
        refused(agent.delete_objects, Bucket=site.bucket, Delete={"Objects": both})
        assert site.agent.backend.get(handle) == data


def test_the_agents_keys_cannot_shorten_what_is_held(site):
    (handle,) = store_one_of_each(site.agent.backend, [Kind.DATA])
    _, before = site.retention(handle)
    place = {"Bucket": site.bucket, "Key": key_of(handle)}
    sooner = {"Mode": "GOVERNANCE", "RetainUntilDate": before - timedelta(minutes=30)}
    agent = site.agent.client
    refused(agent.put_object_retention, **place, Retention=sooner)
    refused(agent.put_object_retention, **place, Retention=sooner, BypassGovernanceRetention=True)
    refused(agent.put_object_retention, **place, Retention={})
    assert site.retention(handle) == ("GOVERNANCE", before)


def test_the_agents_keys_cannot_change_the_buckets_rules(site):
    agent = site.agent.client
    bucket = {"Bucket": site.bucket}
    soon = {"ID": "x", "Status": "Enabled", "Prefix": "", "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    unlocked = {"ObjectLockEnabled": "Enabled"}
    refused(agent.put_bucket_versioning, **bucket, VersioningConfiguration={"Status": "Suspended"})
    refused(agent.put_bucket_policy, **bucket, Policy='{"Version":"2012-10-17","Statement":[]}')
    refused(agent.put_bucket_lifecycle_configuration, **bucket, LifecycleConfiguration={"Rules": [soon]})
    refused(agent.put_object_lock_configuration, **bucket, ObjectLockConfiguration=unlocked)
    refused(agent.delete_bucket_policy, **bucket)
    refused(agent.delete_bucket, **bucket)


def test_the_agents_keys_do_not_reach_another_host(site):
    owner = site.radosgw.server.client()
    owner.put_object(Bucket=site.bucket, Key="backups/web-2/config", Body=b"theirs")
    agent = site.agent.client
    place = {"Bucket": site.bucket, "Key": "backups/web-2/config"}
    refused(agent.get_object, **place)
    refused(agent.put_object, **place, Body=b"mine")
    refused(agent.delete_object, **place)
    refused(agent.list_objects_v2, Bucket=site.bucket, Prefix="backups/web-2/")
    refused(agent.list_objects_v2, Bucket=site.bucket)


def test_what_hides_objects_hides_them_only_from_the_present(site):
    """Without a policy that demands If-None-Match (which Ceph does not know) a PUT can still cover an object."""
    stored = store_one_of_each(site.agent.backend, KEPT)
    before = site.now()
    for handle in stored:
        site.agent.client.put_object(Bucket=site.bucket, Key=key_of(handle), Body=b"ransom")
        assert site.agent.backend.get(handle) == b"ransom"
    extra = store_one_of_each(site.agent.backend, [Kind.SNAPSHOT])
    past = site.as_of(site.agent, before)
    for handle, data in stored.items():
        assert past.get(handle) == data
        assert past.get(handle, 100, 50) == data[100:150]
        assert past.stat(handle).size == len(data)
        assert [info.handle for info in past.list(handle.kind)] == [handle]
    with pytest.raises(NotFound):
        past.get(next(iter(extra)))


def test_the_past_takes_no_writes_and_its_locks_stay_here(site):
    store_one_of_each(site.agent.backend, KEPT)
    intruder = Handle(Kind.LOCK, hashlib.sha256(b"forever").hexdigest())
    site.agent.backend.put(intruder, b"forever")
    past = site.as_of(site.agent, site.now())
    assert list(past.list(Kind.LOCK)) == []
    for write in (past.delete, lambda h: past.put(h, b"x"), lambda h: past.extend_retention(h, site.now())):
        with pytest.raises(AccessDenied):
            write(Handle(Kind.CONFIG))
    mine = Handle(Kind.LOCK, hashlib.sha256(b"mine").hexdigest())
    past.put(mine, b"mine")
    assert past.get(mine) == b"mine"
    assert [info.handle for info in past.list(Kind.LOCK)] == [mine]
    past.delete(mine)
    assert [info.handle for info in site.agent.backend.list(Kind.LOCK)] == [intruder]


def test_the_agent_itself_never_overwrites(site):
    handle, data = next(iter(store_one_of_each(site.agent.backend, [Kind.CONFIG]).items()))
    with pytest.raises(AlreadyExists):
        site.agent.backend.put(handle, b"another repository")
    assert site.agent.backend.get(handle) == data


def test_the_pruner_deletes_and_the_versions_stay_until_their_time(site):
    stored = store_one_of_each(site.agent.backend, [Kind.SNAPSHOT, Kind.INDEX, Kind.DATA])
    before = site.now()
    for handle in stored:
        site.pruner.backend.delete(handle)
        with pytest.raises(NotFound):
            site.agent.backend.get(handle)
        assert list(site.agent.backend.list(handle.kind)) == []
    past = site.as_of(site.agent, before)
    present = site.as_of(site.agent, site.now())
    for handle, data in stored.items():
        assert past.get(handle) == data
        assert list(present.list(handle.kind)) == []
        version = site.pruner.client.list_object_versions(Bucket=site.bucket, Prefix=key_of(handle))["Versions"][0]
        place = {"Bucket": site.bucket, "Key": key_of(handle), "VersionId": version["VersionId"]}
        refused(site.pruner.client.delete_object, **place)
        site.agent.backend.put(handle, data)
        assert site.agent.backend.get(handle) == data


def test_the_pruner_extends_and_never_shortens(site):
    (handle,) = store_one_of_each(site.agent.backend, [Kind.DATA])
    _, first = site.retention(handle)
    site.pruner.backend.extend_retention(handle, first - timedelta(minutes=10))
    assert site.retention(handle) == ("GOVERNANCE", first)
    later = (first + timedelta(days=30)).replace(microsecond=0)
    site.pruner.backend.extend_retention(handle, later)
    assert site.retention(handle) == ("GOVERNANCE", later)


def test_locks_are_never_held_not_even_on_request(site):
    handle = next(iter(store_one_of_each(site.agent.backend, [Kind.LOCK])))
    site.pruner.backend.extend_retention(handle, site.now() + timedelta(days=1))
    assert site.retention(handle) == (None, None)


def test_the_observer_sees_when_and_not_what(site):
    (handle,) = store_one_of_each(site.agent.backend, [Kind.SNAPSHOT])
    (info,) = site.observer.backend.list(Kind.SNAPSHOT)
    assert info.handle == handle
    assert info.modified is not None
    for ask in (site.observer.backend.get, site.observer.backend.delete, lambda h: site.observer.backend.put(h, b"x")):
        with pytest.raises(AccessDenied):
            ask(handle)


def test_compliance_binds_the_owner_too(radosgw, users):
    for site in make_site(radosgw, users, {"mode": "COMPLIANCE", "retain": "2m"}):
        (handle,) = store_one_of_each(site.agent.backend, [Kind.DATA])
        mode, until = site.retention(handle)
        assert mode == "COMPLIANCE"
        owner = radosgw.server.client()
        place = {"Bucket": site.bucket, "Key": key_of(handle)}
        version = owner.head_object(**place)["VersionId"]
        refused(owner.delete_object, **place, VersionId=version, BypassGovernanceRetention=True)
        sooner = {"Mode": "COMPLIANCE", "RetainUntilDate": until - timedelta(minutes=1)}
        refused(owner.put_object_retention, **place, Retention=sooner, BypassGovernanceRetention=True)
        site.pruner.backend.extend_retention(handle, until + timedelta(minutes=1))
        assert site.retention(handle)[0] == "COMPLIANCE"


def test_objects_are_sealed_by_the_stores_key_service_as_well(radosgw, users):
    sse = {"mode": "aws:kms", "key_id": KMS_KEY}
    for site in make_site(radosgw, users, {"mode": "GOVERNANCE", "retain": "1h"}, sse=sse):
        stored = store_one_of_each(site.agent.backend, list(Kind))
        for handle, data in stored.items():
            head = radosgw.server.client().head_object(Bucket=site.bucket, Key=key_of(handle))
            assert head["ServerSideEncryption"] == "aws:kms"
            assert head["SSEKMSKeyId"] == KMS_KEY
            assert site.agent.backend.get(handle) == data


def test_wrong_keys_are_denied_at_once(radosgw, site):
    settings = radosgw.server.settings(
        site.bucket, PREFIX, credentials={"file": radosgw.server.credentials_file("nobody", "wrong-secret-value")}
    )
    backend = open_backend(settings, SystemClock())
    for ask in (backend.create, lambda: backend.get(Handle(Kind.CONFIG)), lambda: list(backend.list(Kind.KEY))):
        with pytest.raises(AccessDenied) as caught:
            ask()
        assert "wrong-secret-value" not in str(caught.value)
    backend.close()


def test_a_missing_bucket_is_said(radosgw):
    backend = open_backend(radosgw.server.settings("no-such-bucket-here"), SystemClock())
    with pytest.raises(StorageError, match="NoSuchBucket"):
        backend.create()
    backend.close()
