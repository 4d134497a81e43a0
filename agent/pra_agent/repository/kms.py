"""Secrets wrapped by AWS KMS: boto3's second door.

Errors are `SecretError`, which name the key or the file but never hold what was wrapped.
"""

from typing import Any, cast

import boto3
import botocore.exceptions

from pra_agent.errors import SecretError

#: What one `Encrypt` takes.
MAX_BYTES = 4096


def wrap(secret: str, key_id: str, *, region: str | None = None, endpoint: str | None = None) -> bytes:
    """Encrypt a secret under a KMS key (its id, ARN or alias); the ciphertext names the key itself."""
    plain = secret.encode()
    if not plain or len(plain) > MAX_BYTES:
        raise SecretError(f"KMS wraps 1 to {MAX_BYTES} bytes, not {len(plain)}")
    try:
        return bytes(_client(region, endpoint).encrypt(KeyId=key_id, Plaintext=plain)["CiphertextBlob"])
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise _refused(f"key {key_id}", "kms:Encrypt", error) from error


def unwrap(ciphertext: bytes, *, what: str, region: str | None = None, endpoint: str | None = None) -> str:
    """Decrypt what `wrap` (or `aws kms encrypt`) made; `what` names it in messages."""
    try:
        plain = bytes(_client(region, endpoint).decrypt(CiphertextBlob=ciphertext)["Plaintext"])
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise _refused(what, "kms:Decrypt", error) from error
    try:
        return plain.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SecretError(f"{what}: is not UTF-8 text once unwrapped") from error


def _client(region: str | None, endpoint: str | None) -> Any:  # noqa: ANN401 (boto3 makes its clients at run time)
    session = cast("Any", boto3.session.Session())
    return session.client("kms", region_name=region, endpoint_url=endpoint)


def _refused(what: str, right: str, error: Exception) -> SecretError:
    code = ""
    if isinstance(error, botocore.exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
    reason = code or type(error).__name__
    return SecretError(
        f"{what}: KMS says {reason}",
        advice=f"Check region and credentials; they need the right {right} on the key.",
    )
