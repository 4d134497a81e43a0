import os
from pathlib import Path

from pra_agent.repository.cache import FileCache
from pra_agent.repository.codec import content_id
from pra_agent.storage.backend import Handle, Kind


def handle_of(data: bytes, kind: Kind = Kind.INDEX) -> Handle:
    return Handle(kind, content_id(data).hex())


def test_files_come_back_only_when_they_are_what_their_name_says(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    handle = handle_of(b"one")
    assert cache.get(handle) is None
    cache.put(handle, b"one")
    assert cache.get(handle) == b"one"
    assert cache.size() == 3
    (tmp_path / "index" / handle.name).write_bytes(b"two")
    assert cache.get(handle) is None
    assert cache.size() == 0


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 250)
    blobs = [bytes([number]) * 100 for number in range(4)]
    for age, blob in enumerate(blobs):
        cache.put(handle_of(blob), blob)
        os.utime(tmp_path / "index" / handle_of(blob).name, (1000 + age, 1000 + age))
    assert cache.get(handle_of(blobs[0])) == blobs[0]
    cache.trim()
    assert [cache.get(handle_of(blob)) is not None for blob in blobs] == [True, False, False, True]


def test_what_is_gone_from_the_store_goes(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1000)
    cache.keep_only(Kind.INDEX, [])
    for blob in (b"one", b"two"):
        cache.put(handle_of(blob), blob)
    cache.put(handle_of(b"three", Kind.SNAPSHOT), b"three")
    cache.keep_only(Kind.INDEX, [handle_of(b"two").name])
    assert cache.get(handle_of(b"one")) is None
    assert cache.get(handle_of(b"two")) == b"two"
    assert cache.get(handle_of(b"three", Kind.SNAPSHOT)) == b"three"


def test_a_disk_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FileCache(tmp_path / "file", 1000)
    cache.put(handle_of(b"one"), b"one")
    assert cache.get(handle_of(b"one")) is None
    cache.trim()
    assert cache.size() == 0
