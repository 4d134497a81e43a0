"""Real S3 servers for tests: versitygw (a process) and moto (in this process), and buckets in them.

Fixtures: `versitygw` and `moto` (one server per session and worker), `s3_store` (a new bucket in versitygw: settings
for the agent, URL and environment for stock restic). Tests that use versitygw carry `@pytest.mark.s3` and
`@pytest.mark.xdist_group("s3")`.
"""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import Session

from pra_agent.storage.settings import StorageSettings
from tests.support.process import ServerProcess, answers, free_port, testbed_binary

REGION = "us-east-1"
_SESSION = Session()  # reads its models once, which takes longer than most tests


@dataclass
class S3Server:
    """An S3 endpoint and the keys of its owner."""

    endpoint: str
    access_key: str
    secret_key: str
    home: Path
    region: str = REGION
    process: ServerProcess | None = None
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, access_key: str | None = None, secret_key: str | None = None) -> Any:
        """A plain botocore client, of the owner unless other keys are given."""
        keys = (access_key or self.access_key, secret_key or self.secret_key)
        if keys in self._clients:
            return self._clients[keys]
        made = _SESSION.create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}),
        )
        self._clients[keys] = made
        return made

    def new_bucket(self, *, versioned: bool = False, object_lock: bool = False) -> str:
        """A bucket with a name that was never used."""
        name = f"pra-{secrets.token_hex(6)}"
        client = self.client()
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)
        if versioned and not object_lock:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def credentials_file(self, access_key: str | None = None, secret_key: str | None = None) -> Path:
        """An ini file as `credentials: {file: ...}` wants it."""
        path = self.home / f"{access_key or 'owner'}.ini"
        path.touch(mode=0o600)
        path.write_text(
            f"[default]\naws_access_key_id = {access_key or self.access_key}\n"
            f"aws_secret_access_key = {secret_key or self.secret_key}\n"
        )
        return path

    def settings(self, bucket: str, prefix: str = "backups/web-1", **more: Any) -> StorageSettings:
        """The agent's settings for a prefix of a bucket; `more` adds or replaces keys."""
        values: dict[str, Any] = {
            "url": f"s3://{bucket}/{prefix}",
            "endpoint": self.endpoint,
            "region": self.region,
            "credentials": {"file": self.credentials_file()},
        }
        return StorageSettings.model_validate({**values, **more})

    def restic_repository(self, bucket: str, prefix: str = "backups/web-1") -> str:
        """What stock restic calls that prefix."""
        return f"s3:{self.endpoint}/{bucket}/{prefix}"

    def restic_environment(self) -> dict[str, str]:
        """What stock restic needs beside its password."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        if self.process is not None:
            self.process.stop()


@dataclass(frozen=True)
class S3Store:
    """A new bucket, ready for a repository."""

    server: S3Server
    bucket: str
    settings: StorageSettings
    restic_repository: str
    restic_environment: dict[str, str]


def start_versitygw(home: Path, *, tls: tuple[Path, Path] | None = None) -> S3Server:
    """Start versitygw over a directory whose file system must have user xattrs; `tls` is certificate and key."""
    binary = testbed_binary("versitygw")
    for name in ("data", "versions", "iam"):
        (home / name).mkdir(parents=True, exist_ok=True)
    try:
        os.setxattr(home / "data", "user.pra", b"1")
    except OSError:
        pytest.skip(f"no user xattrs on {home}: versitygw needs them")
    port = free_port()
    access, secret = "owner", secrets.token_hex(16)
    keys = {"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
    argv: list[str | Path] = [binary, "--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet", "--keep-alive"]
    argv += ["--iam-dir", home / "iam"]
    if tls is not None:
        argv += ["--cert", tls[0], "--key", tls[1]]
    argv += ["posix", "--versioning-dir", home / "versions", home / "data"]
    process = ServerProcess(argv, home / "log", keys)
    server = S3Server(
        f"http{'s' if tls else ''}://127.0.0.1:{port}",
        access,
        secret,
        home,
        process=process,
    )
    try:
        process.wait_for(lambda: answers(port))
    except BaseException:
        server.close()
        raise
    return server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = start_versitygw(tmp_path_factory.mktemp("versitygw"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    thread = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    host, port = thread.get_host_and_port()
    server = S3Server(f"http://{host}:{port}", "testing", "testing", tmp_path_factory.mktemp("moto"))
    yield server
    server.close()
    thread.stop()


@pytest.fixture
def s3_store(versitygw: S3Server) -> S3Store:
    bucket = versitygw.new_bucket()
    return S3Store(
        versitygw,
        bucket,
        versitygw.settings(bucket),
        versitygw.restic_repository(bucket),
        versitygw.restic_environment(),
    )
