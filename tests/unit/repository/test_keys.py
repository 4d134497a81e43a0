import base64
import json
from typing import Any

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import DamagedError, NotFound, RefusedError, WrongKey
from pra_agent.repository import keys
from pra_agent.repository.codec import MasterKey, content_id
from pra_agent.repository.keys import KeyRing, open_master_key
from pra_agent.repository.settings import ScryptCost
from pra_agent.storage.backend import Handle, Kind
from tests.support.memory import MemoryBackend
from tests.support.repositories import HOST, QUICK

MASTER = MasterKey.generate()


def ring_of(backend: MemoryBackend) -> KeyRing:
    ring = KeyRing(backend, MASTER, "", SystemClock(), HOST)
    ring.current = ring.add("first", cost=QUICK).id
    return ring


def document(backend: MemoryBackend, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(backend.objects[Handle(Kind.KEY, name)])
    return found


def replace(backend: MemoryBackend, name: str, doc: object) -> None:
    backend.objects[Handle(Kind.KEY, name)] = json.dumps(doc).encode()


def test_a_slot_is_a_file_as_restic_writes_it():
    backend = MemoryBackend()
    ring = ring_of(backend)
    doc = document(backend, ring.current)
    assert list(doc) == ["created", "username", "hostname", "kdf", "N", "r", "p", "salt", "data"]
    assert (doc["kdf"], doc["N"], doc["r"], doc["p"]) == ("scrypt", 128, 1, 1)
    assert len(base64.b64decode(doc["salt"])) == 64
    assert content_id(backend.objects[Handle(Kind.KEY, ring.current)]).hex() == ring.current


def test_the_default_cost_is_that_of_stock_restic():
    assert (ScryptCost().n, ScryptCost().r) == (1 << 15, 8)
    assert ScryptCost().p >= 6


def test_each_password_opens_the_same_master_key():
    backend = MemoryBackend()
    ring = ring_of(backend)
    second = ring.add("zweites Passwort ü", cost=QUICK)
    assert open_master_key(backend, "first") == (MASTER, ring.current)
    assert open_master_key(backend, "zweites Passwort ü", second.id) == (MASTER, second.id)
    assert open_master_key(backend, "first", "no such slot") == (MASTER, ring.current)
    with pytest.raises(WrongKey, match="none of the 2"):
        open_master_key(backend, "third")
    assert [slot.current for slot in ring.list()].count(True) == 1
    assert {slot.hostname for slot in ring.list()} == {HOST.hostname}


def test_no_slots_at_all():
    with pytest.raises(NotFound):
        open_master_key(MemoryBackend(), "first")


def test_the_last_and_the_used_slot_stay():
    backend = MemoryBackend()
    ring = ring_of(backend)
    with pytest.raises(RefusedError):
        ring.remove(ring.current)
    second = ring.add("second", cost=QUICK)
    with pytest.raises(RefusedError):
        ring.remove(ring.current[:8])
    for nothing in ("", "zzzz"):
        with pytest.raises(NotFound):
            ring.remove(nothing)
    assert ring.remove(second.id[:12]).id == second.id
    with pytest.raises(WrongKey):
        open_master_key(backend, "second")
    assert open_master_key(backend, "first")[0] == MASTER


def test_passwd_replaces_the_slot_in_use():
    backend = MemoryBackend()
    ring = ring_of(backend)
    new = ring.passwd("new", cost=QUICK)
    assert new.current
    assert [slot.id for slot in ring.list()] == [new.id]
    assert open_master_key(backend, "new") == (MASTER, new.id)
    with pytest.raises(WrongKey):
        open_master_key(backend, "first")


def test_fields_may_be_missing():
    backend = MemoryBackend()
    ring = ring_of(backend)
    doc = document(backend, ring.current)
    for field in ("created", "username", "hostname"):
        del doc[field]
    replace(backend, ring.current, doc)
    assert open_master_key(backend, "first")[0] == MASTER
    slot = ring.list()[0]
    assert (slot.created, slot.username, slot.hostname) == ("", "", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"N": 1 << 24},
        {"p": 1 << 20},
        {"r": 1 << 20},
        {"N": 100},
        {"N": 0},
        {"p": -1},
        {"kdf": "argon2id"},
        {"salt": "***"},
        {"data": None},
        {"N": "many"},
    ],
)
def test_unusable_slots_are_passed_over(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend()
    ring = ring_of(backend)
    broken = ring.add("second", cost=QUICK)
    replace(backend, broken.id, document(backend, broken.id) | changes)
    assert open_master_key(backend, "first", broken.id)[0] == MASTER
    monkeypatch.setattr(keys, "_derive", lambda *_: pytest.fail("no work for a slot that cannot be"))
    backend.objects.pop(Handle(Kind.KEY, ring.current))
    with pytest.raises(WrongKey, match="1 unreadable"):
        open_master_key(backend, "second")


def test_files_that_are_no_slots_do_not_matter():
    backend = MemoryBackend()
    ring_of(backend)
    for number, junk in enumerate((b"not json", b"[]", b"x" * 100_000)):
        backend.objects[Handle(Kind.KEY, f"{number:064x}")] = junk
    assert open_master_key(backend, "first")[0] == MASTER


def test_a_slot_with_another_content_is_damaged_not_wrong():
    backend = MemoryBackend()
    ring = ring_of(backend)
    doc = document(backend, ring.current)
    salt = base64.b64decode(doc["salt"])
    from pra_agent.repository.codec import Codec

    wrapping = Codec(keys._derive("first", salt, 128, 1, 1))
    replace(backend, ring.current, doc | {"data": base64.b64encode(wrapping.seal(b"{}")).decode()})
    with pytest.raises(WrongKey, match="1 unreadable"):
        open_master_key(backend, "first")
    with pytest.raises(DamagedError):
        keys.unwrap_slot(document(backend, ring.current), "first")
