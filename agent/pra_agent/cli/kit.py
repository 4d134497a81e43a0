"""The recovery kit: all that is needed to read a repository when its host is gone.

It holds the repository's password, so it is written with mode 0600, or encrypted to age recipients, and never printed
unless somebody asks for that at a terminal.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pra_agent.errors import UsageError
from pra_agent.storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class KitFacts:
    """What goes into a kit. `copies` are further places, each with its password ("" for the same one)."""

    node: str
    repository_id: str
    storage: StorageSettings
    password: str
    written: datetime
    jobs: Sequence[str] = ()
    copies: Sequence[tuple[StorageSettings, str]] = ()


def kit_text(facts: KitFacts) -> str:
    """Write the kit for a person who has nothing else."""
    storage = facts.storage
    options = "".join(
        f"  {name}: {value}\n" for name, value in (("region", storage.region), ("endpoint", storage.endpoint)) if value
    )
    credentials = (
        "\nThe store's own credentials are not in here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for an\n"
        "identity that may read the bucket.\n"
        if storage.s3
        else ""
    )
    job = facts.jobs[0] if facts.jobs else "JOB"
    return f"""\
RECOVERY KIT of {facts.node}, written {facts.written:%Y-%m-%d %H:%M} UTC
====================================================================
Whoever has this file can read every backup of {facts.node}. Keep it off that host, where you find it in a disaster.

Node:           {facts.node}
Repository:     {storage.url}
{"".join(f"{name.capitalize() + ':':16}{value}{chr(10)}" for name, value in _place(storage))}\
Repository id:  {facts.repository_id}
Password:       {facts.password}
Jobs:           {", ".join(facts.jobs) or "none yet"}
{"".join(_copy(*copy) for copy in facts.copies)}{credentials}
1. With pra-agent, on a bare host
---------------------------------
Write the password into /root/repository-password (chmod 600), and this into /root/recover.yaml:

node: {facts.node}
repository:
  url: {storage.url}
{options}  password: {{file: /root/repository-password}}

Then:

  pra-agent --direct --config /root/recover.yaml snapshots
  pra-agent --direct --config /root/recover.yaml restore {job} --target /restore

2. With stock restic (0.14 or newer)
------------------------------------
  export RESTIC_REPOSITORY={restic_repository(storage)}
  export RESTIC_PASSWORD_FILE=/root/repository-password
  restic snapshots
  restic restore latest --tag job={job} --target /restore
"""


def _copy(storage: StorageSettings, password: str) -> str:
    """A second place, to be used in the same way when the first is lost, too."""
    told = "".join(f"{name.capitalize() + ':':16}{value}\n" for name, value in _place(storage))
    return f"""
Copy:           {storage.url}
{told}Password:       {password or "the same"}
Stock restic:   {restic_repository(storage)}
"""


def _place(storage: StorageSettings) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (("region", storage.region), ("endpoint", storage.endpoint)) if value]


def restic_repository(storage: StorageSettings) -> str:
    """The repository's place as stock restic writes it."""
    place = storage.s3
    if place is None:
        return storage.url
    endpoint = storage.endpoint or f"https://s3.{storage.region or 'us-east-1'}.amazonaws.com"
    return f"s3:{endpoint.rstrip('/')}/{place.bucket}/{place.prefix}".rstrip("/")


def encrypt(text: str, recipients: Sequence[str]) -> bytes:
    """Encrypt the kit to age or ssh public keys. Raises `UsageError` for a text that is no key."""
    age: Any = importlib.import_module("pyrage")  # it has no types, and is of use here alone
    keys: list[object] = []
    for recipient in recipients:
        kind = age.ssh if recipient.startswith("ssh-") else age.x25519
        try:
            keys.append(kind.Recipient.from_str(recipient))
        except age.RecipientError as error:
            raise UsageError(
                f"{recipient[:20]!r} is no recipient", advice="Give a public key: age1... or ssh-ed25519 ..."
            ) from error
    return bytes(age.encrypt(text.encode(), keys))


def read_recipients(path: Path) -> list[str]:
    """Read public keys from a file, one a line; # starts a comment. Raises `UsageError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a list of recipients", advice="One public key a line.") from error
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def create_private(path: Path) -> int:
    """Create a file that only its owner can read, and return its descriptor; an existing one is refused."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; nothing was changed", advice="Give another name.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}", advice="Give another place.") from error
    os.fchmod(descriptor, 0o600)
    return descriptor


def write_private(descriptor: int, data: bytes) -> None:
    """Write all of it durably, and close."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class KitFile:
    """The kit's file: its place is tried before anything is made, and what was there is replaced at the very end."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Raises `UsageError` when the file exists (unless forced), or cannot be made."""
        if path.exists() and not force:
            raise UsageError(
                f"{path} exists already; nothing was changed", advice="Give another --kit, or --force to replace it."
            )
        self.path = path
        self._new = path.with_name(f".{path.name}.{os.getpid()}")
        self._descriptor = create_private(self._new)

    def save(self, data: bytes) -> None:
        """Write the kit durably into its place."""
        write_private(self._descriptor, data)
        self._new.replace(self.path)

    def give_up(self) -> None:
        """Leave everything as it was."""
        os.close(self._descriptor)
        self._new.unlink()
