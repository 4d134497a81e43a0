"""The recovery kit: complete, private, and the same for stock restic."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pra_agent.cli.kit import (
    KitFacts,
    KitFile,
    create_private,
    encrypt,
    kit_text,
    read_recipients,
    restic_repository,
    write_private,
)
from pra_agent.errors import UsageError
from pra_agent.storage.settings import StorageSettings

pyrage = pytest.importorskip("pyrage")


def facts(**storage: str) -> KitFacts:
    settings = StorageSettings.model_validate(storage)
    return KitFacts("web-1", "ab" * 32, settings, "the password", datetime(2026, 1, 1, tzinfo=UTC), ["app", "db"])


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ({"url": "/srv/backup"}, "/srv/backup"),
        ({"url": "s3://bkt/a/b", "region": "eu-west-3"}, "s3:https://s3.eu-west-3.amazonaws.com/bkt/a/b"),
        ({"url": "s3://bkt/a/", "endpoint": "http://127.0.0.1:7070/"}, "s3:http://127.0.0.1:7070/bkt/a"),
        ({"url": "s3://bkt"}, "s3:https://s3.us-east-1.amazonaws.com/bkt"),
    ],
)
def test_the_place_as_stock_restic_writes_it(storage, expected):
    assert restic_repository(StorageSettings.model_validate(storage)) == expected
    assert f"RESTIC_REPOSITORY={expected}\n" in kit_text(facts(**storage))


def test_everything_that_is_needed_is_in_it():
    text = kit_text(facts(url="s3://bkt/a", region="eu-west-3", endpoint="https://s3.example.org"))
    for part in (
        "the password",
        "ab" * 32,
        "region: eu-west-3",
        "endpoint: https://s3.example.org",
        "restore app",
    ):
        assert part in text
    assert "AWS_" in text
    assert "AWS_" not in kit_text(facts(url="/srv/backup"))


def test_encrypted_for_each_recipient():
    people = [pyrage.x25519.Identity.generate() for _ in range(2)]
    data = encrypt("kit", [person.to_public().__str__() for person in people])
    assert [pyrage.decrypt(data, [person]) for person in people] == [b"kit", b"kit"]
    with pytest.raises(UsageError, match="is no recipient"):
        encrypt("kit", ["ssh-rsa nonsense"])


def test_recipients_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# operators\nage1abc\n\n  age1def  \n")
    assert read_recipients(path) == ["age1abc", "age1def"]
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipients(tmp_path / "none")


def test_copies_are_in_it():
    copies = [(StorageSettings.model_validate({"url": "s3://disaster/a", "region": "eu-central-1"}), "")]
    copies.append((StorageSettings.model_validate({"url": "/mnt/copy"}), "another password"))
    text = kit_text(replace(facts(url="/srv/backup"), copies=copies))
    assert "Copy:           s3://disaster/a\nRegion:         eu-central-1\nPassword:       the same\n" in text
    assert "Copy:           /mnt/copy\nPassword:       another password\n" in text


def test_the_file_is_private_and_nothing_is_replaced_by_accident(tmp_path):
    path = tmp_path / "kit"
    KitFile(path).save(b"one")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    with pytest.raises(UsageError, match="exists already"):
        KitFile(path)
    KitFile(path, force=True).give_up()
    assert path.read_bytes() == b"one"
    path.chmod(0o666)
    KitFile(path, force=True).save(b"2")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"2", 0o600)
    with pytest.raises(UsageError, match="cannot be written"):
        KitFile(tmp_path / "none" / "kit")
    assert [one.name for one in tmp_path.iterdir()] == ["kit"]


def test_a_private_file_is_new(tmp_path):
    write_private(create_private(tmp_path / "a"), b"x")
    with pytest.raises(UsageError, match="exists already"):
        create_private(tmp_path / "a")
