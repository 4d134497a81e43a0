"""Chunks are the stream, their sizes have bounds, and cuts follow from bytes and key alone."""

import itertools
import random
from collections.abc import Callable, Iterator

import pyfastcdc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pra_agent.errors import PraError
from pra_agent.repository.chunker import MAX_SIZE, MIN_SIZE, Chunker
from pra_agent.repository.codec import MasterKey

KEY = MasterKey(bytes(32), bytes(16), bytes(16))
CHUNKER = Chunker(KEY)
NOISE = random.Random(1).randbytes(24 << 20)


def reader(data: bytes, sizes: Iterator[int]) -> Callable[[int], bytes]:
    position = 0

    def read(wanted: int) -> bytes:
        nonlocal position
        piece = data[position : position + min(wanted, next(sizes))]
        position += len(piece)
        return piece

    return read


def cuts(data: bytes, sizes: Iterator[int], chunker: Chunker = CHUNKER) -> list[int]:
    chunks = list(chunker.chunks(reader(data, sizes)))
    assert b"".join(chunks) == data
    return [len(chunk) for chunk in chunks]


def whole(data: bytes) -> list[int]:
    """The cuts of the library, over all bytes at once."""
    return [chunk.length for chunk in CHUNKER._cdc.cut_buf(data)]


@given(
    seed=st.integers(0, 1 << 30),
    length=st.integers(0, 20 << 20),
    zeros=st.integers(0, 12 << 20),
    reads=st.lists(st.integers(1000, 9 << 20), min_size=1, max_size=5),
)
@settings(max_examples=25)
def test_cuts_do_not_depend_on_read_sizes(seed: int, length: int, zeros: int, reads: list[int]) -> None:
    start = seed % (4 << 20)
    middle = bytes(zeros)
    data = NOISE[start : start + length // 2] + middle + NOISE[: length - length // 2]
    found = cuts(data, itertools.cycle(reads))
    assert found == whole(data)
    assert all(MIN_SIZE <= size <= MAX_SIZE for size in found[:-1])


@pytest.mark.parametrize(
    "length",
    [0, 1, MIN_SIZE - 1, MIN_SIZE, MIN_SIZE + 1, 4 << 20, (4 << 20) + 1, MAX_SIZE, MAX_SIZE + 1, 2 * MAX_SIZE],
)
@pytest.mark.parametrize("content", ["noise", "zeros"])
def test_lengths_at_the_edges(length: int, content: str) -> None:
    data = NOISE[:length] if content == "noise" else bytes(length)
    for size in (1 << 16, 1 << 20, 1 << 30):
        assert cuts(data, itertools.repeat(size)) == whole(data)


def test_a_small_stream_is_the_object_that_was_read():
    data = NOISE[:1000]
    pieces = [data, b""]
    assert next(CHUNKER.chunks(lambda _: pieces.pop(0))) is data


def test_an_insertion_moves_few_cuts():
    changed = NOISE[: 3 << 20] + b"inserted" + NOISE[3 << 20 :]
    before = set(CHUNKER.chunks(reader(NOISE, itertools.repeat(1 << 20))))
    after = set(CHUNKER.chunks(reader(changed, itertools.repeat(1 << 20))))
    assert len(after - before) <= 3


def test_another_key_cuts_elsewhere():
    other = Chunker(MasterKey.generate())
    assert cuts(NOISE, itertools.repeat(1 << 20), other) != cuts(NOISE, itertools.repeat(1 << 20))
    assert cuts(NOISE, itertools.repeat(1 << 20), Chunker(KEY)) == cuts(NOISE, itertools.repeat(1 << 20))


def test_what_was_yielded_stays_valid():
    chunks = list(CHUNKER.chunks(reader(NOISE, itertools.repeat(3 << 20))))
    assert b"".join(chunks) == NOISE


def test_memory_is_bounded():
    """No more than a window and a largest chunk is asked for ahead of what was yielded."""
    asked = given_out = 0

    def read(wanted: int) -> bytes:
        nonlocal asked
        asked += wanted
        assert asked - given_out <= (4 << 20) + 2 * MAX_SIZE
        return NOISE[:wanted] if asked < 200 << 20 else b""

    for chunk in CHUNKER.chunks(read):
        given_out += len(chunk)
    assert given_out > 190 << 20


def test_the_slow_fallback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class FastCDC:
        pass

    monkeypatch.setattr(pyfastcdc, "FastCDC", FastCDC)
    with pytest.raises(PraError, match="compiled extension"):
        Chunker(KEY)
