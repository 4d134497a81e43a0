"""References to secrets, as the configuration holds them: where a secret is, never the secret itself."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_ORIGINS = ("credential", "file", "env", "kms")


class KmsReference(BaseModel):
    """A secret that AWS KMS unwraps: the file with the ciphertext, and the key's region."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ciphertext_file: Path
    region: str | None = None


class SecretRef(BaseModel):
    """Exactly one origin. `allow_readable` accepts a file that others than its owner can read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    file: Path | None = None
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    kms: KmsReference | None = None
    allow_readable: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(getattr(self, name) is not None for name in _ORIGINS) != 1:
            raise ValueError("name exactly one origin: {credential: NAME}, {file: PATH}, {env: NAME} or {kms: {...}}")
        return self

    def __str__(self) -> str:
        if self.credential is not None:
            return f"credential {self.credential}"
        if self.file is not None:
            return f"file {self.file}"
        if self.env is not None:
            return f"environment variable {self.env}"
        return f"KMS ciphertext {self.kms.ciphertext_file}" if self.kms is not None else "nothing"


def _no_plain_secret(value: object) -> object:
    if isinstance(value, (str, int, float)):
        raise ValueError(  # noqa: TRY004 - pydantic turns ValueError into a line with file and key
            "a secret is never written here; refer to it: {credential: NAME}, {file: PATH} or {env: NAME}"
        )
    return value


SecretField = Annotated[SecretRef, BeforeValidator(_no_plain_secret)]
