"""Key slots: the master key, sealed under passwords. Each slot is one file under `keys/`, plain JSON.

The key derivation is scrypt (RFC 7914); the file's layout is restic's (doc/design.rst, "Keys, Encryption and MAC").
"""

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from pra_agent.clock import Clock
from pra_agent.errors import DamagedError, NotFound, RefusedError, WrongKey
from pra_agent.repository.codec import Codec, MasterKey, content_id
from pra_agent.repository.derivations import derive
from pra_agent.repository.host import Host
from pra_agent.repository.settings import ScryptCost
from pra_agent.storage.backend import Backend, Handle, Kind

__all__ = ["KeyRing", "KeySlot", "MasterKey", "open_master_key"]

_SALT = 64
_MAX_MEMORY = 1 << 29
_MAX_WORK = 1 << 26
_MAX_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class KeySlot:
    """A password's wrapping of the master key. Texts are "" where the file does not tell."""

    id: str
    created: str
    username: str
    hostname: str
    current: bool = False


class KeyRing:
    """The key slots of an open repository. `current` is the slot that the password opened."""

    def __init__(self, backend: Backend, master: MasterKey, current: str, clock: Clock, host: Host) -> None:
        self._backend = backend
        self._master = master
        self._clock = clock
        self._host = host
        self.current = current

    def list(self) -> list[KeySlot]:
        """All readable slots, the oldest first; ours is marked."""
        slots = [
            KeySlot(
                id=name,
                created=str(doc.get("created") or ""),
                username=str(doc.get("username") or ""),
                hostname=str(doc.get("hostname") or ""),
                current=name == self.current,
            )
            for name, doc in slot_documents(self._backend)
        ]
        return sorted(slots, key=lambda slot: (slot.created, slot.id))

    def add(self, password: str, *, cost: ScryptCost | None = None, extra: Mapping[str, Any] | None = None) -> KeySlot:
        """Wrap the master key under another password. `extra` fields of the file are ignored by restic."""
        cost = cost or ScryptCost()
        salt = os.urandom(_SALT)
        wrapping = Codec(_derive(password, salt, cost.n, cost.r, cost.p))
        document = {
            "created": self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "username": self._host.username,
            "hostname": self._host.hostname,
            "kdf": "scrypt",
            "N": cost.n,
            "r": cost.r,
            "p": cost.p,
            "salt": b64encode(salt).decode(),
            "data": b64encode(wrapping.seal(self._master.to_json())).decode(),
            **(extra or {}),
        }
        data = orjson.dumps(document)
        name = content_id(data).hex()
        self._backend.put(Handle(Kind.KEY, name), data)
        return KeySlot(name, str(document["created"]), self._host.username, self._host.hostname)

    def remove(self, slot: str) -> KeySlot:
        """Remove a slot by its id or a prefix of it; `RefusedError` for the last one and for the one in use."""
        found = [one for one in self.list() if one.id.startswith(slot)]
        if not slot or len(found) != 1:
            raise NotFound(f"{len(found)} key slots have an id that starts with {slot!r}", advice="See key list.")
        if found[0].current:
            raise RefusedError("this key slot is the one in use", advice="Open the repository with another password.")
        self._remove(found[0].id)
        return found[0]

    def passwd(self, password: str, *, cost: ScryptCost | None = None) -> KeySlot:
        """Replace the slot in use by one with another password. The master key stays the same."""
        slot = self.add(password, cost=cost)
        old, self.current = self.current, slot.id
        self._remove(old)
        return KeySlot(slot.id, slot.created, slot.username, slot.hostname, current=True)

    def _remove(self, name: str) -> None:
        if not [one for one in self.list() if one.id != name]:
            raise RefusedError("this is the last key slot; without it nobody could open the repository", advice="")
        self._backend.delete(Handle(Kind.KEY, name))


def open_master_key(backend: Backend, password: str, hint: str = "") -> tuple[MasterKey, str]:
    """Find the slot that the password opens; `hint` is the slot to try first.

    Raises `WrongKey` when there is none, `NotFound` when there are no slots at all.
    """
    tried = damaged = 0
    for name, doc in slot_documents(backend, hint):
        try:
            master = unwrap_slot(doc, password)
        except DamagedError:
            damaged += 1
            continue
        tried += 1
        if master:
            return master, name
    if not tried and not damaged:
        raise NotFound("the repository has no key slots")
    unreadable = f", {damaged} unreadable" if damaged else ""
    raise WrongKey(f"the password opens none of the {tried} key slots{unreadable}")


def read_slot(backend: Backend, name: str) -> dict[str, Any]:
    """Read one slot's JSON by its whole id; `DamagedError` when it is none."""
    try:
        doc = orjson.loads(backend.get(Handle(Kind.KEY, name)))
    except orjson.JSONDecodeError as error:
        raise DamagedError(f"key slot {name[:8]} is not readable") from error
    return cast("dict[str, Any]", doc) if isinstance(doc, dict) else {}


def unwrap_slot(doc: dict[str, Any], password: str) -> MasterKey | None:
    """Open one slot: None when the password is wrong, `DamagedError` when the slot cannot be used."""
    try:
        n, r, p = int(doc["N"]), int(doc["r"]), int(doc["p"])
        salt = b64decode(doc["salt"], validate=True)
        data = b64decode(doc["data"], validate=True)
        kdf = doc["kdf"]
    except (KeyError, TypeError, ValueError, Base64Error) as error:
        raise DamagedError("the key slot is not complete") from error
    if kdf != "scrypt" or n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise DamagedError("the key slot has parameters that scrypt does not know")
    if n * r * p > _MAX_WORK or 128 * r * (n + p) > _MAX_MEMORY:
        raise DamagedError("the key slot asks for more work than any sound one does")
    wrapping = Codec(_derive(password, salt, n, r, p))
    try:
        opened = wrapping.unseal(data)
    except DamagedError:
        return None
    return MasterKey.from_json(opened)


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> MasterKey:
    return MasterKey.split(derive(password, salt, n, r, p))


def slot_documents(backend: Backend, hint: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the slots' JSON, the hinted one first; what is not a slot is an empty document."""
    names = [info.handle.name for info in backend.list(Kind.KEY) if info.size <= _MAX_FILE]
    for name in sorted(names, key=lambda one: (one != hint, one)):
        try:
            doc = orjson.loads(backend.get(Handle(Kind.KEY, name)))
        except (orjson.JSONDecodeError, NotFound):
            continue
        yield name, doc if isinstance(doc, dict) else {}
