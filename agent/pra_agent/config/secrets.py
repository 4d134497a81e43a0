"""A reference to a secret becomes the secret. Nothing here logs, and no message holds what was read.

A credential is looked for in `$CREDENTIALS_DIRECTORY` (within the unit), else in the file that the unit loads it from
(`LoadCredential=` of pra-agent.service and its drop-ins, then the credential stores of systemd), else asked for on a
terminal.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pra_agent.errors import SecretError
from pra_agent.model.references import KmsReference, SecretRef

UNIT = "pra-agent.service"
UNIT_DIRECTORIES = tuple(
    Path(directory)
    for directory in ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
)
STORES = (Path("/etc/credstore"), Path("/run/credstore"), Path("/usr/lib/credstore"))
MAX_BYTES = 1024 * 1024

#: Asks the operator for a secret, given what it is; raises `SecretError` when there is nobody to ask.
Ask = Callable[[str], str]
#: Unwraps a KMS ciphertext.
Unwrap = Callable[[KmsReference], str]


def nobody(what: str) -> str:
    """Ask nobody: there is no terminal."""
    raise SecretError(
        f"the {what} cannot be had: no credentials directory, and no unit loads it",
        advice="Give it with LoadCredential= in the unit, refer to it as {file: PATH}, or run this on a terminal.",
    )


def by_kms(reference: KmsReference) -> str:
    """Unwrap by AWS KMS, with the credentials that boto3 finds."""
    from pra_agent.repository import kms  # noqa: PLC0415 (boto3 is imported only when a secret asks for it)

    try:
        ciphertext = reference.ciphertext_file.read_bytes()
    except OSError as error:
        raise SecretError(f"{reference.ciphertext_file}: cannot be read: {error.strerror}") from error
    return kms.unwrap(ciphertext, what=str(reference.ciphertext_file), region=reference.region)


@dataclass(frozen=True)
class Resolver:
    """Where secrets come from; tests and other programs may point it elsewhere."""

    ask: Ask = nobody
    unwrap: Unwrap = by_kms
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    unit_directories: tuple[Path, ...] = UNIT_DIRECTORIES
    stores: tuple[Path, ...] = STORES

    def resolve(self, reference: SecretRef) -> str:
        """Read the secret, without the newline at its end. Raises `SecretError`."""
        if reference.env is not None:
            secret = self.environ.get(reference.env, "")
        elif reference.kms is not None:
            secret = self.unwrap(reference.kms)
        else:
            path = self.path(reference)
            if path is None:
                secret = self.ask(str(reference))
            else:
                inside = reference.credential is not None and "CREDENTIALS_DIRECTORY" in self.environ
                secret = read_secret(path, allow_readable=reference.allow_readable or inside)
        if not secret:
            raise SecretError(f"{reference}: is empty or not set")
        return secret

    def path(self, reference: SecretRef) -> Path | None:
        """The file that the secret is read from; None when it is in none."""
        if reference.file is not None:
            return reference.file
        name = reference.credential
        if name is None:
            return None
        directory = self.environ.get("CREDENTIALS_DIRECTORY")
        if directory and (inside := Path(directory) / name).exists():
            return inside
        for unit in self.unit_directories:
            for loaded, path in _loaded_credentials(unit / UNIT):
                if loaded == name:
                    return path
        return next((store / name for store in self.stores if (store / name).exists()), None)


def resolve(reference: SecretRef, *, ask: Ask = nobody) -> str:
    """Read the secret from its usual place."""
    return Resolver(ask=ask).resolve(reference)


def read_secret(path: Path, *, allow_readable: bool = False) -> str:
    """Read a secret's file. Raises `SecretError` also when others than its owner can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SecretError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and stat.S_ISREG(mode) and not allow_readable:
        raise SecretError(
            f"{path}: others than its owner can read it (mode {stat.S_IMODE(mode):04o})",
            advice=f"chmod 600 {path}, or say allow_readable: true beside it.",
        )
    if len(raw) > MAX_BYTES:
        raise SecretError(f"{path}: too large for a secret")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SecretError(f"{path}: is not UTF-8 text") from error


def _loaded_credentials(unit: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of LoadCredential= lines; drop-ins come first, since they have the last word."""
    for file in [*sorted(unit.with_name(f"{unit.name}.d").glob("*.conf"), reverse=True), unit]:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in reversed(text.splitlines()):
            key, _, value = line.partition("=")
            if key.strip() != "LoadCredential":
                continue
            name, _, source = value.strip().strip('"').partition(":")
            if source.startswith("/"):
                yield name.strip(), Path(source.strip())
