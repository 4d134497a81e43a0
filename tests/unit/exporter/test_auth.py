"""Passwords: only the right one, and no error that tells why."""

from base64 import b64encode
from pathlib import Path

import pytest

from pra_agent.errors import ConfigError
from pra_agent.exporter.auth import Users, hash_password


def basic(name: str, password: str) -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    path = tmp_path_factory.mktemp("users") / "users"
    path.write_text(f"# who may look\n\nprom:{hash_password('s3:cret')}\nops:{hash_password('é')}\n")
    return Users.load(path)


@pytest.mark.parametrize(("name", "password"), [("prom", "s3:cret"), ("ops", "é")])
def test_the_right_one(users: Users, name: str, password: str) -> None:
    assert users.admits(basic(name, password))
    assert users.admits(basic(name, password)), "also from memory"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Bearer abc",
        basic("prom", "wrong"),
        basic("prom", ""),
        basic("nobody", ""),
        basic("", ""),
        "Basic " + b64encode(b"prom").decode(),
        "Basic " + b64encode(b"\xff\xfe:\xff").decode(),
        "Basic \udcff",
    ],
)
def test_any_other(users: Users, header: str) -> None:
    assert not users.admits(header)


@pytest.mark.parametrize(
    "line",
    ["prom", "prom:plain", "prom:scrypt$1$2$3", ":scrypt$16384$8$1$AA==$AA==", "prom:scrypt$99999999$8$1$AA==$AA=="],
)
def test_a_line_that_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "users"
    path.write_text(f"\n{line}\n")

    with pytest.raises(ConfigError, match=":2:"):
        Users.load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Users.load(tmp_path / "none")


def test_two_hashes_of_a_password_differ() -> None:
    assert hash_password("x") != hash_password("x")
