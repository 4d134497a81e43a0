"""The operators' own way in: a key slot whose password only they can unwrap.

The password is random and is kept nowhere but inside the slot's file, wrapped: by age for the operators' recipients,
or by a KMS key (of another account, so that taking over the host's account does not give it away). The file is a plain
key slot otherwise: stock restic opens the repository with the unwrapped password, and ignores the field that we add.
"""

import importlib
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from pra_agent.errors import DamagedError, NotFound, RefusedError, SecretError, WrongKey
from pra_agent.repository import kms
from pra_agent.repository.keys import KeyRing, KeySlot, read_slot, slot_documents, unwrap_slot
from pra_agent.repository.settings import ScryptCost
from pra_agent.storage.backend import Backend

#: The library has no types.
_age: Any = importlib.import_module("pyrage")

FIELD = "pra_agent_escrow"
_PASSWORD_BYTES = 32


class Wrapper(Protocol):
    """Wraps the slot's password for those who may have it."""

    def wrap(self, password: str) -> Mapping[str, Any]:
        """Give what the slot's file will hold: plain JSON, with the `kind` of wrapping."""
        ...


class Unwrapper(Protocol):
    """Gets the password back. Raises `SecretError`."""

    def unwrap(self, field: Mapping[str, Any]) -> str: ...


@dataclass(frozen=True, slots=True)
class AgeWrapper:
    """For age recipients: `age1...` public keys, or SSH public keys."""

    recipients: Sequence[str]

    def wrap(self, password: str) -> Mapping[str, Any]:
        if not self.recipients:
            raise SecretError("an escrow slot needs at least one age recipient")
        data = _age.encrypt(password.encode(), [_recipient(text) for text in self.recipients])
        return {"kind": "age", "recipients": list(self.recipients), "data": b64encode(data).decode()}


@dataclass(frozen=True, slots=True)
class KmsWrapper:
    """For whoever may use a KMS key."""

    key_id: str
    region: str | None = None
    endpoint: str | None = None

    def wrap(self, password: str) -> Mapping[str, Any]:
        data = kms.wrap(password, self.key_id, region=self.region, endpoint=self.endpoint)
        told = {"kind": "kms", "key_id": self.key_id, "data": b64encode(data).decode()}
        return told | ({"region": self.region} if self.region else {})


@dataclass(frozen=True, slots=True)
class AgeUnwrapper:
    """With an operator's identity file (age-keygen's, or an SSH private key without passphrase)."""

    identity_file: Path

    def unwrap(self, field: Mapping[str, Any]) -> str:
        if field.get("kind") != "age":
            raise SecretError(f"this escrow slot is wrapped by {field.get('kind')}, an age identity does not open it")
        try:
            return bytes(_age.decrypt(_data(field), _identities(self.identity_file))).decode()
        except _age.DecryptError as error:
            raise SecretError(
                f"{self.identity_file}: this identity does not open the escrow slot",
                advice="Use the identity of one of its recipients: " + ", ".join(field.get("recipients", [])),
            ) from error


@dataclass(frozen=True, slots=True)
class KmsUnwrapper:
    """With credentials that may decrypt (the standard chain of AWS)."""

    endpoint: str | None = None

    def unwrap(self, field: Mapping[str, Any]) -> str:
        if field.get("kind") != "kms":
            raise SecretError(f"this escrow slot is wrapped by {field.get('kind')}, KMS does not open it")
        region = field.get("region")
        what = f"escrow slot under {field.get('key_id')}"
        return kms.unwrap(_data(field), what=what, region=region, endpoint=self.endpoint)


def add_escrow(ring: KeyRing, wrapper: Wrapper, *, cost: ScryptCost | None = None) -> KeySlot:
    """Add a slot with a random password that only the wrapping's owners can have; nobody else ever sees it."""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    return ring.add(password, cost=cost, extra={FIELD: dict(wrapper.wrap(password))})


def escrow_slots(backend: Backend) -> "list[EscrowSlot]":
    """All escrow slots, the oldest first; no password is needed to see them."""
    found: list[EscrowSlot] = []
    for name, document in slot_documents(backend):
        field = escrow_field(document)
        if field is not None:
            owners = field.get("key_id") or ", ".join(map(str, field.get("recipients", ())))
            found.append(EscrowSlot(name, str(document.get("created") or ""), str(field.get("kind")), str(owners)))
    return sorted(found, key=lambda slot: (slot.created, slot.id))


@dataclass(frozen=True, slots=True)
class EscrowSlot:
    """An escrow slot as its file tells: who can unwrap it."""

    id: str
    created: str
    kind: str
    owners: str


def find_escrow(backend: Backend, prefix: str = "") -> str:
    """The id of the escrow slot that starts with `prefix`; "" when there is one only. Raises `NotFound`."""
    found = [slot.id for slot in escrow_slots(backend) if slot.id.startswith(prefix)]
    if len(found) != 1:
        raise NotFound(
            f"{len(found)} escrow slots have an id that starts with {prefix!r}"
            if prefix
            else f"there are {len(found)} escrow slots",
            advice="Name one of pra-agent key escrow list, or add one with pra-agent key escrow add.",
        )
    return found[0]


def escrow_password(backend: Backend, slot: str, unwrapper: Unwrapper) -> str:
    """Unwrap a slot's password and prove that it opens the repository by that very slot.

    Raises `SecretError` when it cannot be unwrapped, `WrongKey` when it does not open the slot.
    """
    document = read_slot(backend, slot)
    field = escrow_field(document)
    if field is None:
        raise RefusedError(f"key slot {slot[:8]} is no escrow slot", advice="See pra-agent key list.")
    password = unwrapper.unwrap(field)
    if unwrap_slot(document, password) is None:
        raise WrongKey(f"the unwrapped password does not open key slot {slot[:8]}", advice="Add a new escrow slot.")
    return password


def escrow_field(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a slot's file says of its wrapping; None when it is no escrow slot."""
    field = document.get(FIELD)
    return cast("Mapping[str, Any]", field) if isinstance(field, dict) else None


def _data(field: Mapping[str, Any]) -> bytes:
    try:
        return b64decode(str(field["data"]), validate=True)
    except (KeyError, Base64Error) as error:
        raise DamagedError("the escrow slot's wrapped password is not readable") from error


def _recipient(text: str) -> Any:  # noqa: ANN401 (no types)
    try:
        if text.startswith("ssh-"):
            return _age.ssh.Recipient.from_str(text)
        return _age.x25519.Recipient.from_str(text)
    except _age.RecipientError as error:
        raise SecretError(
            f"{text[:24]!r} is no age recipient", advice="It starts with age1 or ssh-; see age-keygen."
        ) from error


def _identities(path: Path) -> list[Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{path}: cannot be read as an identity") from error
    try:
        if "PRIVATE KEY" in text:
            return [_age.ssh.Identity.from_buffer(text.encode())]
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        found = [_age.x25519.Identity.from_str(line) for line in lines]
    except _age.IdentityError as error:
        raise SecretError(f"{path}: holds no age identity", advice="It has a line AGE-SECRET-KEY-1...") from error
    if not found:
        raise SecretError(f"{path}: holds no age identity", advice="It has a line AGE-SECRET-KEY-1...")
    return found
