"""A host is taken over, with its credentials and its repository's master key: nothing that was saved before is lost.

The whole agent against Ceph: real users, policies and object lock. Where a test gives the pruner `grace: 0s`, it is to
show that what it looks at does not depend on it.
"""

import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pra_agent.cli.samples import describe_tree, difference
from pra_agent.errors import UsageError
from pra_agent.model.ids import BlobType
from pra_agent.model.runs import Operation, Outcome
from pra_agent.model.snapshots import AGENT_TAG, Snapshot
from pra_agent.repository.index import encode_index
from pra_agent.repository.pack import OpenPack, SealedBlob
from pra_agent.repository.repository import Repository
from pra_agent.storage.backend import Kind
from tests.support.agent import NODE
from tests.support.hardened import NEVER, Cli, Hardened
from tests.support.process import wait_until
from tests.support.radosgw import Radosgw

pytestmark = [pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("radosgw")]

KEEP = 3


@pytest.fixture(scope="module")
def users(radosgw: Radosgw) -> dict[str, tuple[str, str]]:
    return {name: radosgw.new_user(name) for name in ("agent", "pruner")}


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """What `--direct` keeps stays out of the home directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def site(tmp_path, radosgw, users):
    made = Hardened(tmp_path, radosgw, users)
    keep_newest(made, KEEP)
    yield made
    made.agent.stop()


def keep_newest(site: Hardened, number: int) -> None:
    site.agent.configure(
        defaults={"schedule": None, "jitter": "0s", "full": "never", "keep": {"last": number, "min_count": 1}}
    )


@pytest.fixture
def cli(site, capsys):
    return Cli(site.agent.config, capsys)


class Saved:
    """What the host had when it was saved: a copy of its files for each snapshot."""

    def __init__(self, site: Hardened, cli: Cli, rounds: int = KEEP) -> None:
        self.site = site
        self.trees: dict[str, Path] = {}
        cli.config = site.agent.config
        cli("init", "--kit", site.root / "kit")
        for number in range(rounds):
            site.agent.fill(3, 60_000, name=f"round{number}")
            record = cli.json("--direct", "backup")[-1]["run"]
            assert record["outcome"] == "success"
            kept = site.root / f"as-saved-{number}"
            shutil.copytree(site.agent.data, kept)
            self.trees[record["snapshot"]] = kept
        self.moment = site.quiet_moment()

    def comes_back(self, cli: Cli, *options: str) -> None:
        """Every snapshot restores, byte for byte."""
        for number, (snapshot, tree) in enumerate(self.trees.items()):
            target = self.site.root / f"restored-{number}"
            shutil.rmtree(target, ignore_errors=True)
            cli("--direct", "restore", snapshot, "--target", target, *options)
            back = target / str(self.site.agent.data).lstrip("/")
            assert describe_tree(tree)
            assert difference(describe_tree(tree), describe_tree(back)) == []


def refused(request: Any, **parameters: Any) -> None:
    with pytest.raises(ClientError) as caught:
        request(**parameters)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in {400, 403}, caught.value


def fakes(repository: Repository, times: Iterable[datetime]) -> list[str]:
    """Write snapshots that claim to be of those times."""
    tree = repository.snapshots()[0].tree
    made = [Snapshot(time, tree, ["/"], NODE, tags=[AGENT_TAG, "job=app", f"run={n}"]) for n, time in enumerate(times)]
    with repository.lock():
        return [repository.save_snapshot(one).id for one in made]


def present(site: Hardened) -> set[str]:
    return {key.rpartition("/")[2] for key in site.objects("snapshots/")}


# ---------------------------------------------------------------- what the agent does with so few rights
def test_the_daemon_saves_checks_and_restores_and_deletes_locks_only(site, cli, tmp_path):
    cli("init", "--kit", tmp_path / "kit")
    site.agent.fill(5, 50_000)
    site.agent.start()
    with site.agent.client() as client:
        assert client.run_job("app").outcome is Outcome.SUCCESS
        site.agent.fill(2, 50_000, name="more")
        assert client.run_job("app", full=True).outcome is Outcome.SUCCESS
        checked = client.operate(Operation.CHECK, read_data_subset="100%")
        assert (checked.outcome, checked.error) == (Outcome.SUCCESS, "")
        for operation in (Operation.FORGET, Operation.PRUNE):
            with pytest.raises(UsageError, match="does no"):
                client.operate(operation)
    cli("restore", "app", "--target", tmp_path / "back")
    back = tmp_path / "back" / str(site.agent.data).lstrip("/")
    assert difference(describe_tree(site.agent.data), describe_tree(back)) == []
    site.agent.stop()
    cli("--direct", "forget", code=2)
    cli("--direct", "prune", code=2)
    deleted = [one["Key"] for one in site.versions() if "Size" not in one]
    assert deleted
    assert all(f"{site.prefix}/locks/" in key for key in deleted)
    assert site.objects("locks/") == []
    owner = site.radosgw.server.client()
    for key in site.objects():
        head = owner.head_object(Bucket=site.bucket, Key=key)
        assert head["ObjectLockMode"] == "GOVERNANCE", key


# ---------------------------------------------------------------- everything at once
def test_after_all_that_the_credentials_allow_everything_comes_back(site, cli, tmp_path):
    saved = Saved(site, cli)
    keys = site.objects()
    client = site.client("agent")
    with site.repository() as repository:
        now = datetime.now(UTC)
        lies = [timedelta(hours=hours) for hours in (-200, -100, -50, -26, 1, 30, 60, 9000)]
        fakes(repository, [*(now + lie for lie in lies), *(now + timedelta(seconds=n) for n in range(KEEP + 1))])
        repository.locks.write(exclusive=True)
    for key in keys:
        place = {"Bucket": site.bucket, "Key": key}
        head = client.head_object(**place)
        refused(client.delete_object, **place)
        refused(client.delete_object, **place, VersionId=head["VersionId"], BypassGovernanceRetention=True)
        refused(client.delete_objects, Bucket=site.bucket, Delete={"Objects": [{"Key": key}]})
        sooner = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(seconds=2)}
        for bypass in ({}, {"BypassGovernanceRetention": True}):
            refused(client.put_object_retention, **place, Retention=sooner, **bypass)
        client.put_object(**place, Body=b"\0" * head["ContentLength"])
    cli("--direct", "restore", "latest", "--target", tmp_path / "no", code=1)

    saved.comes_back(cli, "--as-of", saved.moment.isoformat())

    # The pruner undoes the covering, sets the fakes aside and forgets nothing that is real.
    textfile = tmp_path / "pruner.prom"
    cli.config = site.pruner(textfile=str(textfile), quarantine="1h")
    documents = cli.visits("forget", code=1)
    assert documents[-1]["type"] == "failed"
    assert documents[-1]["message"].startswith("exclusive lock")
    assert len(documents[-1]["overwritten"]) == len(keys)
    cli("--direct", "unlock", "--all", "--yes")
    (forgotten,) = cli.visits("forget")
    assert forgotten["overwritten"] == []
    assert forgotten["run"]["detail"]["forgotten"] == 0
    assert len(forgotten["run"]["detail"]["quarantined"]) == len(lies)
    assert saved.trees.keys() <= present(site)
    where = f'node="{NODE}",destination="repository"'
    assert f"pra_pruner_quarantined_snapshots{{{where}}} {len(lies)}\n" in textfile.read_text()
    cli("--direct", "prune")
    saved.comes_back(cli)
    assert "check: no damage" in cli("--direct", "check", "--read-data")


# ---------------------------------------------------------------- one by one
def test_backdated_and_future_fakes_push_no_real_snapshot_out(site, cli):
    saved = Saved(site, cli)
    with site.repository() as repository:
        now = datetime.now(UTC)
        old = fakes(repository, [now - timedelta(days=days) for days in range(2, 7)])
        future = fakes(repository, [now + age for age in (timedelta(minutes=10), timedelta(hours=30), timedelta(400))])
    cli.config = site.pruner(grace="0s")
    (plan,) = cli.visits("forget", "--dry-run")
    assert plan["node"] == NODE
    assert {one["id"] for one in plan["snapshots"] if not one["keep"]} == set()
    (done,) = cli.visits("forget")
    assert set(done["run"]["detail"]["quarantined"]) == {*old, *future}
    assert present(site) == {*saved.trees, *old, *future}
    # People look at them, and drop them.
    cli("--direct", "forget", *old, *future, code=1)
    assert "--yes" in cli.err
    cli("--direct", "forget", *old, *future, "--yes")
    assert present(site) == set(saved.trees)


def test_many_snapshots_at_once_push_nothing_out_that_the_lock_holds(site, cli):
    saved = Saved(site, cli)
    with site.repository() as repository:
        spam = set(fakes(repository, [datetime.now(UTC)] * 2 * KEEP))
    cli.config = site.pruner()
    (done,) = cli.visits("forget")
    assert done["run"]["detail"]["forgotten"] == 0
    cli.config = site.pruner(grace="0s")
    (plan,) = cli.visits("forget", "--dry-run")
    doomed = {one["id"] for one in plan["snapshots"] if not one["keep"]}
    assert saved.trees.keys() <= doomed  # which shows what the grace is for
    assert len(spam - doomed) == KEEP


def test_an_index_that_leads_to_garbage_gets_nothing_removed(site, cli):
    saved = Saved(site, cli)
    with site.repository() as repository, repository.lock():
        repository.load_index()
        listed = [entry for _, entries in repository.index.packs() for entry in entries]
        made = OpenPack(BlobType.DATA)
        for entry in listed:
            if entry.type is BlobType.DATA:
                sealed = os.urandom(entry.length)
                made.add(SealedBlob(entry.type, entry.id, entry.size, sealed, bool(entry.uncompressed_length)))
        pack = made.finish(repository.codec)
        repository.backend.put(pack.handle, pack.data)
        repository.files.write(Kind.INDEX, encode_index([(pack.id, pack.entries)]))
    cli.config = site.pruner(grace="0s", prune={"max_unused": "0B"})
    before = site.objects("data/")
    (failed,) = cli.visits("prune", code=1)
    assert failed["type"] == "failed"
    assert pack.id[:8] in failed["message"]
    assert site.objects("data/") == before
    saved.comes_back(cli)
    cli("--direct", "repair", "--read-data", "--yes")
    cli("--direct", "prune")
    saved.comes_back(cli)
    assert "check: no damage" in cli("--direct", "check", "--read-data")


def test_what_keeps_the_pruner_from_its_work_does_not_let_retention_run_out(site, cli, monkeypatch):
    Saved(site, cli, 1)
    with site.repository() as repository:
        repository.locks.write(exclusive=True)
    victim = site.objects("data/")[0]
    site.client("agent").put_object(Bucket=site.bucket, Key=victim, Body=b"ransom")
    longer = {"mode": "GOVERNANCE", "retain": "90d"}
    site.agent.configure(repository={**site.agent.settings["repository"], "object_lock": longer})
    cli.config = site.pruner()
    with monkeypatch.context() as patch:
        patch.setattr("pra_agent.operations.pruner.MOST_BROUGHT_BACK", 0)
        (failed,) = cli.visits("prune", code=1)
    assert "written over" in failed["message"]
    later = site.until()
    assert all(until > datetime.now(UTC) + timedelta(days=90) for key, until in later if "/locks/" not in key)
    assert [key for key, _ in later].count(victim) == 2
    assert not [key for key, until in later if "/locks/" in key and until != NEVER]
    # Once it is back, it is the lock that stands in the way.
    (failed,) = cli.visits("prune", code=1)
    assert failed["message"].startswith("exclusive lock")
    assert failed["overwritten"] == [victim.removeprefix(f"{site.prefix}/")]


# ---------------------------------------------------------------- and in peace
def test_when_the_lock_has_ended_the_pruner_gives_space_back(tmp_path, radosgw, users, capsys):
    site = Hardened(tmp_path, radosgw, users, retain="2s")
    keep_newest(site, 1)
    cli = Cli(site.agent.config, capsys)
    saved = Saved(site, cli)
    *old, newest = saved.trees
    wait_until(lambda: datetime.now(UTC) > saved.moment + timedelta(seconds=3), "the end of the lock")
    cli.config = site.pruner(prune={"max_unused": "0B"})
    (done,) = cli.visits("forget")
    assert (done["run"]["detail"]["forgotten"], present(site)) == (2, {newest})
    held = site.versions("snapshots/")
    assert {one["Key"].rpartition("/")[2] for one in held if "Size" in one} == set(saved.trees)
    pinned = cli.json("pin", newest[:12])[0]["snapshot"]
    assert present(site) == {pinned}
    newest = cli.json("unpin", pinned[:12])[0]["snapshot"]
    assert present(site) == {newest}
    cli("--direct", "prune")
    assert "check: no damage" in cli("--direct", "check", "--read-data")
    # The lifecycle removes what the pruner hid; in this Ceph a day has ten seconds.
    rule = {"ID": "x", "Status": "Enabled", "Prefix": "", "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    site.radosgw.server.client().put_bucket_lifecycle_configuration(
        Bucket=site.bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    wait_until(
        lambda: not {one["Key"].rpartition("/")[2] for one in site.versions("snapshots/") if "Size" in one} & set(old),
        "the lifecycle",
        90,
    )
    saved.trees = {newest: site.root / f"as-saved-{KEEP - 1}"}
    saved.comes_back(cli)
