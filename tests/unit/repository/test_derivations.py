"""A key derivation is made once, and belongs to one password and one slot alone."""

import hashlib

import pytest

from pra_agent.repository import derivations

SALT = b"s" * 64


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(derivations, "_known", {})


def scrypt(password: bytes, salt: bytes = SALT, n: int = 128) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=1, p=1, dklen=64)


def test_it_is_scrypt_with_and_without_memory():
    for _ in range(2):
        assert derivations.derive("secret", SALT, 128, 1, 1) == scrypt(b"secret")
        assert derivations.derive("other", SALT, 128, 1, 1) == scrypt(b"other")
        assert derivations.derive("secret", b"t" * 64, 128, 1, 1) == scrypt(b"secret", b"t" * 64)
        assert derivations.derive("secret", SALT, 256, 1, 1) == scrypt(b"secret", n=256)


def test_what_another_process_derived_is_not_derived_again(monkeypatch):
    derivations.derive("secret", SALT, 128, 1, 1)
    told = derivations.known()
    monkeypatch.setattr(derivations, "_known", {})
    derivations.adopt(told)
    monkeypatch.setattr(hashlib, "scrypt", None)
    assert len(derivations.derive("secret", SALT, 128, 1, 1)) == 64


def test_the_oldest_are_forgotten():
    for n in range(40):
        derivations.adopt({bytes([n]): b"x"})
    assert set(derivations.known()) == {bytes([n]) for n in range(8, 40)}
