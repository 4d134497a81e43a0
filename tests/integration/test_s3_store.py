"""versitygw, a real S3 server: long listings, races, object lock, and a server that is killed.

Its versions carry the time at which they were superseded, so reading the past is tested on Ceph (test_object_lock.py).
"""

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pra_agent.clock import SystemClock
from pra_agent.errors import AlreadyExists, DamagedError, NotFound, StorageError
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.opening import open_backend
from pra_agent.storage.s3.backend import S3Backend
from tests.support.process import wait_until
from tests.support.s3 import S3Server, start_versitygw

pytestmark = [pytest.mark.s3, pytest.mark.xdist_group("s3")]


def new(kind: Kind = Kind.DATA, size: int = 500) -> tuple[Handle, bytes]:
    data = secrets.token_bytes(size)
    return Handle(kind, hashlib.sha256(data).hexdigest()), data


def test_a_listing_of_many_pages_is_whole(versitygw):
    bucket = versitygw.new_bucket()
    handles = {Handle(Kind.DATA, secrets.token_hex(32)) for _ in range(2500)}
    for handle in handles:
        path = versitygw.home / "data" / bucket / "backups/web-1" / handle.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    backend = open_backend(versitygw.settings(bucket), SystemClock())
    listed = [info.handle for info in backend.list(Kind.DATA)]
    assert len(listed) == 2500
    assert set(listed) == handles
    backend.close()


def test_sixteen_writers_of_one_config(versitygw):
    settings = versitygw.settings(versitygw.new_bucket())
    backends = [S3Backend(settings, SystemClock()) for _ in range(16)]

    def attempt(backend: S3Backend) -> bool:
        try:
            backend.put(Handle(Kind.CONFIG), backend_bytes[id(backend)])
        except AlreadyExists:
            return False
        return True

    backend_bytes = {id(backend): secrets.token_bytes(100) for backend in backends}
    with ThreadPoolExecutor(16) as pool:
        won = [backend for backend, ok in zip(backends, pool.map(attempt, backends), strict=True) if ok]
    assert [backend_bytes[id(backend)] for backend in won] == [backends[0].get(Handle(Kind.CONFIG))]
    for backend in backends:
        backend.close()


def test_held_objects_stay(versitygw):
    bucket = versitygw.new_bucket(object_lock=True)
    settings = versitygw.settings(bucket, object_lock={"mode": "COMPLIANCE", "retain": "1h"})
    backend = S3Backend(settings, SystemClock())
    client = versitygw.client()
    for kind in (Kind.DATA, Kind.INDEX, Kind.SNAPSHOT, Kind.KEY):
        handle, data = new(kind)
        backend.put(handle, data)
        place = {"Bucket": bucket, "Key": f"backups/web-1/{handle.path}"}
        head = client.head_object(**place)
        assert head["ObjectLockMode"] == "COMPLIANCE"
        with pytest.raises(client.exceptions.ClientError):
            client.delete_object(**place, VersionId=head["VersionId"])
        until = head["ObjectLockRetainUntilDate"] + timedelta(hours=1)
        backend.extend_retention(handle, until)
        assert abs(client.head_object(**place)["ObjectLockRetainUntilDate"] - until) < timedelta(seconds=1)
    lock, data = new(Kind.LOCK)
    backend.put(lock, data)
    backend.delete(lock)
    with pytest.raises(NotFound):
        backend.get(lock)
    backend.close()


def test_what_was_acknowledged_survives_the_servers_death(tmp_path):
    server = start_versitygw(tmp_path / "one")
    try:
        bucket = server.new_bucket()
        backend = S3Backend(server.settings(bucket), SystemClock())
        stored: dict[Handle, bytes] = {}

        def store(_: int) -> None:
            handle, data = new(size=300_000)
            backend.put(handle, data)
            stored[handle] = data

        with ThreadPoolExecutor(4) as pool:
            writes = [pool.submit(store, number) for number in range(400)]
            wait_until(lambda: len(stored) >= 20, "twenty objects")
            assert server.process is not None
            server.process.kill()
            failed = [write for write in writes if write.exception() is not None]
        assert failed
        assert all(isinstance(write.exception(), StorageError) for write in failed)
        backend.close()
        again = _restarted(server)
        try:
            truth = S3Backend(again.settings(bucket), SystemClock())
            for handle, data in stored.items():
                assert truth.get(handle) == data
            for info in truth.list(Kind.DATA):
                assert hashlib.sha256(truth.get(info.handle)).hexdigest() == info.handle.name
            truth.close()
        finally:
            again.close()
    finally:
        server.close()


def _restarted(server: S3Server) -> S3Server:
    """The same directory, served by a new process (and with new keys of the owner)."""
    return start_versitygw(server.home)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only proves itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = SystemClock().now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_tls_and_a_certificate_of_ones_own(tmp_path, certificate):
    server = start_versitygw(tmp_path / "tls", tls=certificate)
    try:
        bucket = "over-tls"
        (server.home / "data" / bucket).mkdir()
        trusting = S3Backend(server.settings(bucket, ca=certificate[0]), SystemClock())
        handle, data = new(size=3_000_000)
        trusting.put(handle, data)
        trusting.put(handle, data)
        assert trusting.get(handle) == data
        assert [info.handle for info in trusting.list(Kind.DATA)] == [handle]
        other, data = new()
        with pytest.raises(DamagedError):
            trusting.put(other, data[:-1] + b"?")
        trusting.close()
        strict = open_backend(server.settings(bucket), SystemClock())
        with pytest.raises(StorageError, match="certificate"):
            strict.get(handle)
        strict.close()
    finally:
        server.close()
