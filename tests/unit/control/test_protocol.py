"""What goes over the socket survives the way, and anything else is refused in words."""

import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent import errors
from pra_agent.control import protocol
from pra_agent.errors import DamagedError, PraError, UsageError
from pra_agent.model.ids import BlobHandle, BlobType

HANDLES = st.builds(BlobHandle, st.sampled_from(BlobType), st.binary(min_size=32, max_size=32))
ALL_ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PraError)]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_every_error_comes_back_as_itself(kind: type[PraError]) -> None:
    error = kind("disk: broken")
    error.advice = "Mend it."

    back = protocol.error_of(orjson.loads(orjson.dumps(protocol.error_json(error))))

    assert type(back) is kind
    assert (back.message, back.advice, back.exit_code) == ("disk: broken", "Mend it.", kind.exit_code)


def test_an_error_without_advice_of_its_own_keeps_its_class_advice() -> None:
    back = protocol.error_of(protocol.error_json(errors.Locked("r")))

    assert back.advice == errors.Locked.advice


@pytest.mark.parametrize("data", ["text", None, [], 3])
def test_what_is_no_error_is_told_as_such(data: object) -> None:
    assert "not understood" in protocol.error_of(data).message


def test_an_unknown_kind_keeps_its_exit_code() -> None:
    back = protocol.error_of({"error": "x", "kind": "Newer", "exit_code": 42, "advice": ""})

    assert (type(back), back.exit_code) == (PraError, 42)


def test_object_is_no_error_class() -> None:
    assert type(protocol.error_of({"error": "x", "kind": "Exception"})) is PraError


@given(st.lists(HANDLES))
def test_handles_round_trip(handles: list[BlobHandle]) -> None:
    json = orjson.dumps([[handle.type.value, handle.id.hex()] for handle in handles])

    assert protocol.parse_handles(protocol.pack_handles(handles)) == handles
    assert protocol.parse_handles(json, json=True) == handles


@given(st.binary(), st.booleans())
def test_any_other_list_of_handles_is_refused(data: bytes, json: bool) -> None:
    try:
        protocol.parse_handles(data, json=json)
    except UsageError:
        return
    # What was understood must say the same again.
    if not json:
        assert protocol.pack_handles(protocol.parse_handles(data)) == data


def test_a_tree_list_takes_bare_ids_and_no_data() -> None:
    assert protocol.parse_handles(b'["%s"]' % (b"ab" * 32), json=True, only=BlobType.TREE) == [
        BlobHandle(BlobType.TREE, b"\xab" * 32)
    ]
    with pytest.raises(UsageError, match="type tree"):
        protocol.parse_handles(b"d" + bytes(32), only=BlobType.TREE)


@given(st.dictionaries(HANDLES, st.one_of(st.none(), st.integers(0, 2**32 - 2))))
def test_sizes_round_trip(sizes: dict[BlobHandle, int | None]) -> None:
    known = {handle: size for handle, size in sizes.items() if size is not None}

    assert protocol.parse_sizes(list(sizes), protocol.pack_sizes(list(sizes), known)) == known


def test_sizes_of_other_handles_are_refused() -> None:
    with pytest.raises(DamagedError):
        protocol.parse_sizes([BlobHandle(BlobType.DATA, bytes(32))], bytes(8))


@given(st.lists(st.tuples(HANDLES, st.binary(max_size=100))))
def test_frames_round_trip(blobs: list[tuple[BlobHandle, bytes]]) -> None:
    batch = b"".join(protocol.frame_header(handle, len(data)) + data for handle, data in blobs)

    frames = list(protocol.parse_batch(memoryview(batch + protocol.last_frame())))

    assert frames == [*blobs, (None, b"")]


def test_the_last_frame_carries_an_error() -> None:
    (frame,) = protocol.parse_batch(memoryview(protocol.last_frame(DamagedError("pack x"))))

    assert frame.handle is None
    assert type(protocol.error_of(orjson.loads(frame.data))) is DamagedError


@given(st.binary(max_size=300))
def test_a_broken_batch_is_damage(batch: bytes) -> None:
    try:
        list(protocol.parse_batch(memoryview(batch)))
    except DamagedError:
        return
    # Whole frames only: their lengths add up.
    at = 0
    while at < len(batch):
        at += protocol.FRAME.size + struct.unpack_from(">I", batch, at + 33)[0]
    assert at == len(batch)
