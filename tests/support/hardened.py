"""A host whose agent may not delete, and the pruning host that may: real users and policies of Ceph, real programs."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pra_agent.cli.app import run
from pra_agent.clock import SystemClock
from pra_agent.config import load
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.storage.opening import open_backend
from tests.support.agent import NODE, Agent
from tests.support.process import wait_until
from tests.support.radosgw import Radosgw, agent_statements, pruner_statements
from tests.support.repositories import PASSWORD

CLOCK = SystemClock()
NEVER = datetime.max.replace(tzinfo=UTC)


class Cli:
    """Calls the command line in this process, and keeps what it printed."""

    def __init__(self, config: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self.capture = capture
        self.err = ""

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        self.capture.readouterr()
        got = run(["--config", str(self.config), *map(str, words)])
        captured = self.capture.readouterr()
        self.err = captured.err
        assert got == code, captured.err + captured.out
        assert "Traceback" not in captured.err
        return captured.out

    def json(self, *words: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """Call it with --json; the documents that it printed."""
        return [json.loads(line) for line in self(*words, "--json", code=code).splitlines()]

    def visits(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """What a pruning host tells of each repository, without the events on the way."""
        return [one for one in self.json("--direct", *words, code=code) if "node" in one]


@dataclass
class Hardened:
    """A bucket under object lock, the host that writes into it, and the configuration of the machine that prunes."""

    root: Path
    radosgw: Radosgw
    users: dict[str, tuple[str, str]]
    retain: str = "1h"
    prefix: str = f"backups/{NODE}"
    bucket: str = field(init=False)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = self.radosgw.server.new_bucket(object_lock=True)
        self.radosgw.allow(
            self.bucket,
            *agent_statements("agent", self.bucket, self.prefix),
            *pruner_statements("pruner", self.bucket),
        )
        self.agent = Agent(self.root / "host")
        password = self.agent.root / "password"
        self.agent.configure(
            repository={
                "url": f"s3://{self.bucket}/{self.prefix}",
                "endpoint": self.radosgw.server.endpoint,
                "region": self.radosgw.server.region,
                "credentials": {"file": str(self.credentials("agent"))},
                "checksums": "md5",
                "conditional": False,
                "object_lock": {"mode": "GOVERNANCE", "retain": self.retain},
                "password": {"file": str(password)},
                "tuning": {"scrypt": {"n": 1024, "p": 1}},
            },
            maintenance={"forget": None, "prune": None, "check": {"schedule": None}},
        )

    def credentials(self, user: str) -> Path:
        """The ini file of a user."""
        return self.radosgw.server.credentials_file(*self.users[user])

    def client(self, user: str) -> Any:
        """A plain client with a user's keys."""
        return self.radosgw.server.client(*self.users[user])

    def pruner(self, **pruner: object) -> Path:
        """The configuration of the pruning host, with these keys in its `pruner`."""
        values = {**self.agent.settings, "pruner": {"credentials": {"file": str(self.credentials("pruner"))}, **pruner}}
        path = self.root / "pruner.yaml"
        path.write_text(json.dumps(values))
        path.chmod(0o600)
        return path

    @contextmanager
    def repository(self, config: Path | None = None) -> Iterator[Repository]:
        """The repository, opened with the host's own credentials and key."""
        settings = load(config or self.agent.config).repository
        with closing(open_backend(settings, CLOCK)) as backend:
            yield Repository.open(backend, PASSWORD, clock=CLOCK, host=this_host(NODE))

    def versions(self, under: str = "") -> Sequence[dict[str, Any]]:
        """All versions and delete markers, as the owner sees them."""
        pages = self.radosgw.server.client().get_paginator("list_object_versions")
        found: list[dict[str, Any]] = []
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/{under}"):
            found += [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        return found

    def objects(self, under: str = "") -> list[str]:
        """The present objects' keys."""
        return sorted(one["Key"] for one in self.versions(under) if one["IsLatest"] and "Size" in one)

    def until(self) -> list[tuple[str, datetime]]:
        """How long each version is locked; `NEVER` when it is not."""
        owner = self.radosgw.server.client()
        held: list[tuple[str, datetime]] = []
        for one in self.versions():
            if "Size" in one:
                head = owner.head_object(Bucket=self.bucket, Key=one["Key"], VersionId=one["VersionId"])
                held.append((one["Key"], head.get("ObjectLockRetainUntilDate", NEVER)))
        return held

    def quiet_moment(self) -> datetime:
        """An instant after all that was written so far and before all that will be; the store counts whole seconds."""
        moment: datetime = max(one["LastModified"] for one in self.versions()) + timedelta(seconds=1)
        wait_until(lambda: datetime.now(UTC) > moment + timedelta(seconds=1), "the next second")
        return moment
