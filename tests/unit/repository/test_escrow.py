"""The escrow slot: opens the repository for its owners, for nobody else, and for stock restic."""

import subprocess

import boto3
import pyrage  # type: ignore[import-untyped]
import pytest
from moto import mock_aws

from pra_agent.clock import SystemClock
from pra_agent.errors import NotFound, RefusedError, SecretError, WrongKey
from pra_agent.repository import kms
from pra_agent.repository.escrow import (
    FIELD,
    AgeUnwrapper,
    AgeWrapper,
    KmsUnwrapper,
    KmsWrapper,
    add_escrow,
    escrow_password,
    escrow_slots,
    find_escrow,
)
from pra_agent.repository.host import this_host
from pra_agent.repository.keys import read_slot
from pra_agent.repository.repository import Repository
from pra_agent.repository.settings import ScryptCost, Settings
from pra_agent.storage.local import LocalBackend
from tests.support.restic import require_restic

QUICK = ScryptCost(n=128, r=8, p=1)


@pytest.fixture
def repository(tmp_path):
    backend = LocalBackend(tmp_path / "repo")
    settings = Settings(scrypt=QUICK)
    return Repository.init(backend, "the host's", clock=SystemClock(), host=this_host("n"), settings=settings)


@pytest.fixture
def identity(tmp_path):
    made = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity"
    path.write_text(f"# created: today\n{made}\n")
    return path, str(made.to_public())


def test_age_there_and_back(repository, identity, tmp_path):
    path, recipient = identity
    slot = add_escrow(repository.keys, AgeWrapper([recipient]), cost=QUICK)
    assert [(one.id, one.kind, one.owners) for one in escrow_slots(repository.backend)] == [(slot.id, "age", recipient)]
    assert find_escrow(repository.backend) == find_escrow(repository.backend, slot.id[:6]) == slot.id
    with pytest.raises(NotFound, match="0 escrow slots"):
        find_escrow(repository.backend, "zz")
    password = escrow_password(repository.backend, slot.id, AgeUnwrapper(path))
    opened = Repository.open(repository.backend, password, clock=SystemClock(), host=this_host("other"))
    assert opened.id == repository.id
    stored = (tmp_path / "repo/keys" / slot.id).read_text()
    assert password not in stored


def test_stock_restic_opens_it(repository, identity, tmp_path):
    require_restic()
    path, recipient = identity
    slot = add_escrow(repository.keys, AgeWrapper([recipient]), cost=QUICK)
    password = escrow_password(repository.backend, slot.id, AgeUnwrapper(path))
    done = subprocess.run(
        ["restic", "-r", str(tmp_path / "repo"), "--no-cache", "snapshots"],
        env={"RESTIC_PASSWORD": password, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_others_do_not_get_in(repository, identity, tmp_path):
    slot = add_escrow(repository.keys, AgeWrapper([identity[1]]), cost=QUICK)
    wrong = tmp_path / "wrong"
    wrong.write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(SecretError, match="does not open"):
        escrow_password(repository.backend, slot.id, AgeUnwrapper(wrong))
    with pytest.raises(SecretError, match="wrapped by age"):
        escrow_password(repository.backend, slot.id, KmsUnwrapper())
    with pytest.raises(RefusedError, match="no escrow slot"):
        escrow_password(repository.backend, repository.keys.current, AgeUnwrapper(identity[0]))


def test_a_wrapping_of_another_password_is_noticed(repository, identity):
    _, recipient = identity
    field = AgeWrapper([recipient]).wrap("another")
    slot = repository.keys.add("the real one", cost=QUICK, extra={FIELD: dict(field)})
    with pytest.raises(WrongKey, match="does not open key slot"):
        escrow_password(repository.backend, slot.id, AgeUnwrapper(identity[0]))


@pytest.mark.parametrize("recipient", ["", "age1xyz", "ssh-ed25519 AAAA", "nonsense"])
def test_bad_recipients(recipient):
    with pytest.raises(SecretError, match="no age recipient"):
        AgeWrapper([recipient]).wrap("x")


@pytest.mark.parametrize(
    "content", ["", "# only a comment\n", "AGE-SECRET-KEY-1NOTREALLY", "-----BEGIN PRIVATE KEY-----\nx"]
)
def test_bad_identities(repository, identity, tmp_path, content):
    slot = add_escrow(repository.keys, AgeWrapper([identity[1]]), cost=QUICK)
    path = tmp_path / "bad"
    path.write_text(content)
    with pytest.raises(SecretError, match="no age identity"):
        escrow_password(repository.backend, slot.id, AgeUnwrapper(path))


@pytest.fixture
def kms_key(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with mock_aws():
        yield boto3.client("kms", region_name="eu-west-3").create_key()["KeyMetadata"]["KeyId"]


def test_kms_there_and_back(repository, kms_key):
    slot = add_escrow(repository.keys, KmsWrapper(kms_key, "eu-west-3"), cost=QUICK)
    password = escrow_password(repository.backend, slot.id, KmsUnwrapper())
    assert Repository.open(repository.backend, password, clock=SystemClock(), host=this_host("o")).id == repository.id
    assert read_slot(repository.backend, slot.id)[FIELD]["region"] == "eu-west-3"


def test_kms_refusals_name_the_key_and_no_secret(kms_key):
    with pytest.raises(SecretError, match="NotFoundException") as caught:
        kms.wrap("my s3cret", "alias/none", region="eu-west-3")
    assert "my s3cret" not in str(caught.value)
    with pytest.raises(SecretError, match="a file: KMS says"):
        kms.unwrap(b"garbage", what="a file", region="eu-west-3")
    with pytest.raises(SecretError, match="bytes"):
        kms.wrap("x" * 5000, kms_key, region="eu-west-3")
