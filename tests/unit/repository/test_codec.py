"""Sealing; that every altered byte is refused is in tests/property/test_codec.py."""

import base64
import json
import os
import threading

import pytest
import zstandard

from pra_agent.errors import DamagedError
from pra_agent.repository import codec as codec_module
from pra_agent.repository.codec import OVERHEAD, Codec, MasterKey

KEY = MasterKey(bytes(range(32)), bytes(range(16)), bytes(range(16, 32)))


def test_the_master_key_is_restic_json_and_never_printed():
    document = json.loads(KEY.to_json())
    assert base64.b64decode(document["encrypt"]) == KEY.encrypt
    assert base64.b64decode(document["mac"]["k"]) == KEY.mac_k
    assert base64.b64decode(document["mac"]["r"]) == KEY.mac_r
    assert MasterKey.from_json(KEY.to_json()) == KEY
    assert repr(KEY) == "MasterKey(...)"
    assert MasterKey.generate() != MasterKey.generate()


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"encrypt":"!","mac":{"k":"","r":""}}', b'{"encrypt":"AA==","mac":{"k":"","r":""}}']
)
def test_what_is_no_master_key_is_damaged(text: bytes) -> None:
    with pytest.raises(DamagedError):
        MasterKey.from_json(text)


def test_derived_keys_depend_on_purpose_and_key():
    assert KEY.derive(b"a") != KEY.derive(b"b")
    assert KEY.derive(b"a") != MasterKey.generate().derive(b"a")
    assert len(KEY.derive(b"a")) == 32


def test_poly1305_aes_agrees_with_its_paper():
    """Bernstein's first test vector: r, k, nonce, message and authenticator (Poly1305-AES, appendix B)."""
    key = MasterKey(
        bytes(32),
        bytes.fromhex("ec074c835580741701425b623235add6"),
        bytes.fromhex("851fc40c3467ac0be05cc20404f3f700"),
    )
    nonce = bytes.fromhex("fb447350c4e868c52ac3275cf9d4327e")
    mac = bytes.fromhex("f4c633c3044fc145f84f335cb81953de")
    opened = Codec(key).unseal(nonce + b"\xf3\xf6" + mac)
    assert len(opened) == 2


def test_sealing_is_random_and_of_known_length():
    codec = Codec(KEY)
    one, two = codec.seal(b"hello"), codec.seal(b"hello")
    assert one != two
    assert len(one) == 5 + OVERHEAD
    assert codec.unseal(one) == codec.unseal(memoryview(two)) == b"hello"
    assert codec.unseal(codec.seal(b"")) == b""
    with pytest.raises(DamagedError, match="too short"):
        codec.unseal(b"x" * 31)
    with pytest.raises(DamagedError, match="authentication"):
        Codec(MasterKey.generate()).unseal(one)


def test_frames_have_their_size_and_no_checksum():
    frame = Codec(KEY).compress(b"a" * 100_000)
    parameters = zstandard.get_frame_parameters(frame)
    assert parameters.content_size == 100_000
    assert not parameters.has_checksum


def test_decompression_never_gives_more_than_is_expected():
    codec = Codec(KEY)
    bomb = codec.compress(bytes(1 << 20))
    assert codec.decompress(bomb, 1 << 20) == bytes(1 << 20)
    for length in (0, 1, (1 << 20) - 1, (1 << 20) + 1):
        with pytest.raises(DamagedError):
            codec.decompress(bomb, length)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"b" * 1000)
    assert codec.decompress(unsized, 1000) == b"b" * 1000
    for length in (0, 999, 1001):
        with pytest.raises(DamagedError):
            codec.decompress(unsized, length)
    with pytest.raises(DamagedError):
        codec.decompress(b"not a frame", 11)
    with pytest.raises(DamagedError):
        codec.decompress(bomb[:-3], 1 << 20)
    assert codec.decompress(codec.compress(b""), 0) == b""


def test_unpacked_files_come_compressed_or_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(KEY)
    document = b'{"packs":[]}' + b" " * 1000
    assert len(codec.seal_unpacked(document)) < 200
    assert codec.unseal_unpacked(codec.seal_unpacked(document)) == document
    assert codec.unseal_unpacked(codec.seal(b"[1]")) == b"[1]"
    unsized = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(document)
    assert codec.unseal_unpacked(codec.seal(b"\x02" + unsized)) == document
    for other in (b"", b"\x03{}", b"\x02broken"):
        with pytest.raises(DamagedError):
            codec.unseal_unpacked(codec.seal(other))
    monkeypatch.setattr(codec_module, "UNPACKED_LIMIT", 500)
    with pytest.raises(DamagedError, match="larger"):
        codec.unseal_unpacked(codec.seal_unpacked(document))


def test_threads_do_not_mix_their_contexts():
    codec = Codec(KEY)
    wrong: list[int] = []

    def work(number: int) -> None:
        data = bytes([number]) * 5000
        wrong.extend(
            number
            for _ in range(200)
            if codec.decompress(codec.unseal(codec.seal(codec.compress(data))), len(data)) != data
        )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_child_seals_what_the_parent_opens():
    codec = Codec(KEY)
    codec.seal(b"contexts are in the pool now")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, codec.seal(b"from the child"))
        os._exit(0)
    os.waitpid(child, 0)
    sealed = os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)
    assert codec.unseal(sealed) == b"from the child"
