import struct

import pytest

from pra_agent.errors import DamagedError, NotFound
from pra_agent.model.ids import BlobType
from pra_agent.repository.codec import Codec, MasterKey
from pra_agent.repository.pack import (
    OpenPack,
    PackEntry,
    SealedBlob,
    encode_header,
    open_blob,
    pack_size,
    parse_header,
    read_header,
)
from pra_agent.repository.sealer import Sealer
from pra_agent.storage.backend import Handle, Kind
from tests.support.memory import MemoryBackend

CODEC = Codec(MasterKey.generate())
SEALER = Sealer(CODEC)


def filled(*blobs: bytes, blob_type: BlobType = BlobType.DATA) -> OpenPack:
    pack = OpenPack(blob_type)
    for blob in blobs:
        pack.add(SEALER.seal(blob_type, blob))
    return pack


def test_the_header_is_laid_out_as_the_format_says():
    one = PackEntry(BlobType.DATA, b"\x01" * 32, 0, 100, 0)
    two = PackEntry(BlobType.TREE, b"\x02" * 32, 100, 50, 300)
    header = encode_header([one, two])
    assert header == struct.pack("<BI", 0, 100) + b"\x01" * 32 + struct.pack("<BII", 3, 50, 300) + b"\x02" * 32
    assert parse_header(header) == [one, two]
    for broken in (b"\x04" + header[1:], header[:-1], header + b"\x00"):
        with pytest.raises(DamagedError):
            parse_header(broken)


@pytest.mark.parametrize("count", [1, 5, 3000])
def test_a_stored_pack_tells_its_entries(count: int) -> None:
    backend = MemoryBackend()
    blobs = [b"blob %d" % number for number in range(count)]
    pack = filled(*blobs).finish(CODEC)
    backend.put(pack.handle, pack.data)
    entries = read_header(backend, CODEC, pack.id, len(pack.data))
    assert entries == pack.entries
    assert len(pack.data) == pack_size(entries)
    for entry, blob in zip(entries, blobs, strict=True):
        sealed = backend.get(pack.handle, entry.offset, entry.length)
        assert open_blob(CODEC, pack.id, entry, sealed) == blob
        assert entry.size == len(blob)


def test_a_pack_is_full_by_size_or_by_its_header():
    pack = filled(b"x" * 100)
    assert not pack.full(4 << 20)
    assert pack.full(20)
    crowded = OpenPack(BlobType.DATA)
    tiny = SealedBlob(BlobType.DATA, bytes(32), 1, b"", compressed=False)
    while not crowded.full(4 << 20):
        crowded.add(tiny)
    assert len(encode_header(crowded.entries)) < 16 << 20


def test_a_pack_absorbs_another():
    one, two = filled(b"one", b"two"), filled(b"three")
    one.absorb(two)
    finished = one.finish(CODEC)
    found = [
        open_blob(CODEC, "", entry, finished.data[entry.offset : entry.offset + entry.length])
        for entry in finished.entries
    ]
    assert found == [b"one", b"two", b"three"]


def test_broken_packs_are_named():
    backend = MemoryBackend()
    finished = filled(b"content" * 100).finish(CODEC)
    data = bytes(finished.data)
    handle = Handle(Kind.DATA, finished.id)
    size = len(data)
    broken = [
        data[:-1] + b"\xff",  # a length that cannot be
        data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],  # the header's authentication code
        data[:10],
        data[:-4] + bytes(4),
        data[-(4 + 41 + 32) :],  # a header without its blobs
    ]
    for content in broken:
        backend.objects[handle] = content
        with pytest.raises(DamagedError, match=finished.id):
            read_header(backend, CODEC, finished.id, len(content))
    backend.objects[handle] = data[:-20]
    with pytest.raises(DamagedError, match=finished.id):
        read_header(backend, CODEC, finished.id, size)
    del backend.objects[handle]
    with pytest.raises(NotFound):
        read_header(backend, CODEC, finished.id, size)


def test_trees_are_compressed_and_noise_is_not():
    tree = SEALER.seal(BlobType.TREE, b'{"nodes":[]}\n')
    assert tree.compressed
    data = SEALER.seal(BlobType.DATA, CODEC.seal(bytes(1000)))
    assert not data.compressed
    assert SEALER.seal(BlobType.DATA, bytes(1000)).compressed
