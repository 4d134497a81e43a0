import itertools
import json

import pytest

from pra_agent.errors import DamagedError, PraError
from pra_agent.repository.codec import Codec, MasterKey
from pra_agent.repository.config_file import RepositoryConfig, is_irreducible, random_polynomial

CODEC = Codec(MasterKey.generate())


def product(a: int, b: int) -> int:
    result = 0
    while b:
        if b & 1:
            result ^= a
        a, b = a << 1, b >> 1
    return result


@pytest.mark.parametrize("degree", [2, 3, 5, 7])
def test_irreducible_means_no_factors(degree: int) -> None:
    """Compared with all products, for degrees that are prime (which the test of 53 asks for)."""
    reducible = {
        product(a, b)
        for a, b in itertools.product(range(2, 1 << degree), repeat=2)
        if a.bit_length() + b.bit_length() == degree + 2
    }
    for candidate in range(1 << degree, 2 << degree):
        assert is_irreducible(candidate) == (candidate not in reducible)


def test_polynomials_are_random_and_of_degree_53() -> None:
    found = {random_polynomial() for _ in range(5)}
    assert len(found) == 5
    assert all(one.bit_length() == 54 and is_irreducible(one) for one in found)
    assert is_irreducible(0x3DA3358B4DC173)  # the one that restic's own tests use


def test_the_config_round_trips_uncompressed() -> None:
    config = RepositoryConfig.generate()
    sealed = config.seal(CODEC)
    assert RepositoryConfig.unseal(CODEC, sealed) == config
    document = json.loads(CODEC.unseal(sealed))
    assert document == {"version": 2, "id": config.id, "chunker_polynomial": f"{config.polynomial:x}"}
    assert len(config.id) == 64


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"version":2,"id":"x","chunker_polynomial":"xyz"}'])
def test_what_is_no_config_is_damaged(text: bytes) -> None:
    with pytest.raises(DamagedError, match="config"):
        RepositoryConfig.unseal(CODEC, CODEC.seal(text))


def test_another_key_or_version_is_told() -> None:
    with pytest.raises(DamagedError, match="config"):
        RepositoryConfig.unseal(Codec(MasterKey.generate()), RepositoryConfig.generate().seal(CODEC))
    old = RepositoryConfig("0" * 64, 3, 1)
    with pytest.raises(PraError, match="version 1") as told:
        RepositoryConfig.unseal(CODEC, old.seal(CODEC))
    assert "migrate" in told.value.advice
