"""A Ceph of one monitor, one disk and one gateway on 127.0.0.1: S3 with users, bucket policies, object lock and KMS.

Fixture: `radosgw`, one per session and worker; tests carry `@pytest.mark.s3` and `@pytest.mark.xdist_group("radosgw")`.
"""

import json
import os
import secrets
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ServerProcess, answers, free_port, wait_until
from tests.support.s3 import S3Server

KMS_KEY = "test-key"

_CONF = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
run dir = {home}/run
admin socket = {home}/run/$name.asok
log file = {home}/log/$name.log
pid file = {home}/run/$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
[mon.a]
mon data = {home}/mon/a
[osd]
osd objectstore = bluestore
osd data = {home}/osd/0
bluestore block size = 8589934592
bluestore block create = true
bluestore cache autotune = false
bluestore cache size = 67108864
osd memory target = 939524096
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {home}/rgw
ms mon client mode = crc
rgw enable usage log = false
rgw lc debug interval = 10
rgw gc obj min wait = 5
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = {kms}=MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
rgw thread pool size = 32
rgw dns name = localhost
"""


@dataclass
class Radosgw:
    """The running cluster. `server` speaks with the keys of the user that owns the buckets."""

    home: Path
    server: S3Server
    processes: list[ServerProcess] = field(default_factory=list)
    _users: dict[str, tuple[str, str]] = field(default_factory=dict)

    def new_user(self, name: str) -> tuple[str, str]:
        """A user with no rights of its own, made once for all modules; gives access key and secret key."""
        if name in self._users:
            return self._users[name]
        access, secret = f"{name}{secrets.token_hex(4)}", secrets.token_hex(16)
        ceph(self.home, "radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}",
             f"--access-key={access}", f"--secret-key={secret}")  # fmt: skip
        self._users[name] = (access, secret)
        return access, secret

    def allow(self, bucket: str, *statements: dict[str, Any]) -> None:
        """Set the bucket's policy; the bucket's owner may do everything, with the objects of others too."""
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        owner = {"Effect": "Allow", "Principal": principal("owner"), "Action": ["s3:*"], "Resource": resources}
        policy = {"Version": "2012-10-17", "Statement": [owner, *statements]}
        self.server.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def close(self) -> None:
        self.server.close()
        for process in reversed(self.processes):
            process.stop()


def principal(*users: str) -> dict[str, list[str]]:
    """Users as a policy names them."""
    return {"AWS": [f"arn:aws:iam:::user/{user}" for user in users]}


def agent_statements(user: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """What a host's agent may: put, get and list below its prefix, delete its locks, and nothing else."""
    objects = f"arn:aws:s3:::{bucket}/{prefix}/*"
    below = {"StringLike": {"s3:prefix": [f"{prefix}/*"]}}
    return [
        _statement("Allow", user, [*_READ, "s3:PutObject", "s3:PutObjectRetention"], objects),
        _statement("Allow", user, ["s3:DeleteObject"], f"arn:aws:s3:::{bucket}/{prefix}/locks/*"),
        _statement("Allow", user, _LIST, f"arn:aws:s3:::{bucket}") | {"Condition": below},
        _statement("Deny", user, _NEVER, f"arn:aws:s3:::{bucket}/*"),
    ]


def pruner_statements(user: str, bucket: str) -> list[dict[str, Any]]:
    """What the pruning machine may beside writing: delete (markers, on a versioned bucket) and extend a retention."""
    actions = [*_READ, "s3:PutObject", "s3:PutObjectRetention", "s3:DeleteObject"]
    return [
        _statement("Allow", user, actions, f"arn:aws:s3:::{bucket}/*"),
        _statement("Allow", user, _LIST, f"arn:aws:s3:::{bucket}"),
        _statement("Deny", user, _NEVER, f"arn:aws:s3:::{bucket}/*"),
    ]


def observer_statements(user: str, bucket: str) -> list[dict[str, Any]]:
    """Whoever only looks at the age of things."""
    return [_statement("Allow", user, ["s3:ListBucket"], f"arn:aws:s3:::{bucket}")]


_READ = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"]
_LIST = ["s3:ListBucket", "s3:ListBucketVersions"]
# A writer owns its objects in Ceph, and an owner may whatever no policy forbids.
_NEVER = ["s3:BypassGovernanceRetention", "s3:DeleteObjectVersion", "s3:PutObjectAcl", "s3:PutObjectVersionAcl"]


def _statement(effect: str, user: str, actions: list[str], resource: str) -> dict[str, Any]:
    return {"Effect": effect, "Principal": principal(user), "Action": actions, "Resource": [resource]}


def ceph(home: Path, *argv: str) -> str:
    """Run one of Ceph's tools; its output is what it prints."""
    done = subprocess.run(argv, env=_environment(home), capture_output=True, text=True, timeout=90, check=False)
    if done.returncode:
        pytest.fail(f"{argv[0]} {argv[1]}: {done.stderr[-1500:]}")
    return done.stdout


def start_radosgw(home: Path) -> Radosgw:
    """Make a cluster in a new directory and start it."""
    missing = [name for name in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: make testbed")
    for name in ("mon", "osd/0", "rgw", "run", "log"):
        (home / name).mkdir(parents=True)
    port, v1, v2 = free_port(), free_port(), free_port()
    fsid = str(uuid.uuid4())
    (home / "ceph.conf").write_text(_CONF.format(fsid=fsid, home=home, port=port, v1=v1, v2=v2, kms=KMS_KEY))
    server = S3Server(f"http://127.0.0.1:{port}", "owner", secrets.token_hex(16), home)
    cluster = Radosgw(home, server)
    try:
        _start(cluster, fsid, v1, v2)
        cluster.processes[-1].wait_for(lambda: answers(port))
    except BaseException:
        cluster.close()
        raise
    return cluster


def _start(cluster: Radosgw, fsid: str, v1: int, v2: int) -> None:
    home, server = cluster.home, cluster.server
    address = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
    ceph(home, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(home / "monmap"))
    ceph(home, "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(home / "monmap"))
    _daemon(cluster, "ceph-mon", "-i", "a", "-f").wait_for(lambda: answers(v1))
    disk = str(uuid.uuid4())
    ceph(home, "ceph", "--connect-timeout", "60", "osd", "new", disk)
    ceph(home, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
    ceph(home, "ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=test")
    _daemon(cluster, "ceph-osd", "-i", "0", "-f")
    wait_until(lambda: "1 up" in ceph(home, "ceph", "osd", "stat"), "the disk of Ceph is up")
    ceph(home, "radosgw-admin", "user", "create", "--uid=owner", "--display-name=owner",
         f"--access-key={server.access_key}", f"--secret-key={server.secret_key}")  # fmt: skip
    _daemon(cluster, "radosgw", "-n", "client.rgw.a", "-f")


def _daemon(cluster: Radosgw, *argv: str) -> ServerProcess:
    process = ServerProcess(argv, cluster.home / "log" / f"{argv[0]}.out", _environment(cluster.home))
    cluster.processes.append(process)
    return process


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CEPH_CONF": str(home / "ceph.conf")}


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radosgw]:
    cluster = start_radosgw(tmp_path_factory.mktemp("radosgw"))
    yield cluster
    cluster.close()
