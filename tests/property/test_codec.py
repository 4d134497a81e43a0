"""The codec gives back what was sealed, and refuses every altered byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pra_agent.errors import DamagedError
from pra_agent.model.ids import BlobType
from pra_agent.repository.codec import Codec, MasterKey
from pra_agent.repository.pack import PackEntry, encode_header, open_blob, parse_header
from pra_agent.repository.sealer import Sealer, still_sealed

CODEC = Codec(MasterKey.generate())


@given(st.binary(max_size=5000))
def test_round_trip(data: bytes) -> None:
    assert CODEC.unseal(CODEC.seal(data)) == data
    assert CODEC.decompress(CODEC.compress(data), len(data)) == data
    assert CODEC.unseal_unpacked(CODEC.seal_unpacked(data)) == data


@given(st.binary(max_size=200), st.data())
def test_an_altered_bit_is_refused(data: bytes, choice: st.DataObject) -> None:
    sealed = bytearray(CODEC.seal(data))
    place = choice.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << choice.draw(st.integers(0, 7))
    with pytest.raises(DamagedError):
        CODEC.unseal(sealed)


def test_every_byte_of_a_blob_counts():
    sealed = CODEC.seal(b"a short blob")
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 0x80
        with pytest.raises(DamagedError):
            CODEC.unseal(altered)
    for length in range(len(sealed)):
        with pytest.raises(DamagedError):
            CODEC.unseal(sealed[:length])


@given(st.sampled_from(BlobType), st.one_of(st.binary(max_size=3000), st.integers(0, 9000).map(bytes)))
def test_blobs_round_trip_and_are_told_apart(blob_type: BlobType, data: bytes) -> None:
    blob = Sealer(CODEC).seal(blob_type, data)
    entry = PackEntry(blob.type, blob.id, 0, len(blob.stored), blob.length if blob.compressed else 0)
    assert open_blob(CODEC, "p", entry, blob.stored) == data
    assert still_sealed(entry, blob.stored) == blob
    other = Sealer(CODEC).seal(blob_type, data + b"x")
    changed = entry._replace(length=len(other.stored), uncompressed_length=other.length if other.compressed else 0)
    with pytest.raises(DamagedError, match="other content"):
        open_blob(CODEC, "p", changed, other.stored)


entries = st.lists(
    st.tuples(
        st.sampled_from(BlobType),
        st.binary(min_size=32, max_size=32),
        st.integers(32, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    ),
    max_size=20,
)


@given(entries)
def test_pack_headers_round_trip(rows: list[tuple[BlobType, bytes, int, int]]) -> None:
    offset = 0
    made: list[PackEntry] = []
    for blob_type, blob_id, length, plain in rows:
        made.append(PackEntry(blob_type, blob_id, offset, length, plain))
        offset += length
    assert parse_header(encode_header(made)) == made


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_damaged(data: bytes) -> None:
    try:
        parsed = parse_header(data)
    except DamagedError:
        return
    assert sum(41 if entry.uncompressed_length else 37 for entry in parsed) <= len(data)
