"""The boto3 client: made when it is first needed, once, and shared by all threads."""

import configparser
import functools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.session import Session

from pra_agent.errors import SecretError
from pra_agent.storage.settings import CredentialsSettings, StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CREDENTIAL_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


class ClientSource:
    """Makes the client of some settings at its first use. Retries are not its business: `retrying` counts them."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._client: S3Client | None = None

    def get(self) -> "S3Client":
        """The client. Raises `SecretError`, and what boto3 raises."""
        with self._guard:
            if self._client is None:
                self._client = _make_client(self._settings)
            return self._client

    def close(self) -> None:
        """Close the connections; the next use makes new ones."""
        with self._guard:
            client, self._client = self._client, None
        if client is not None:
            client.close()


@functools.cache
def _loader() -> Loader:
    """What reads botocore's models of S3, which takes longer than all the rest; it remembers them."""
    return create_loader()


def _make_client(settings: StorageSettings) -> "S3Client":
    keys = _read_credentials(settings.credentials) if settings.credentials is not None else {}
    path_style = settings.endpoint is not None if settings.path_style is None else settings.path_style
    config = Config(
        signature_version="s3v4",
        connect_timeout=settings.timeouts.connect.total_seconds(),
        read_timeout=settings.timeouts.read.total_seconds(),
        max_pool_connections=settings.limits.connections + 2,  # the lock's refresher must not wait for uploads
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path" if path_style else "virtual"},
        tcp_keepalive=True,
        # Uploads carry the object's own SHA-256; what botocore would add some stores refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="pra-agent",
    )
    region = settings.region or ("us-east-1" if settings.endpoint is not None else None)
    session = Session()
    session.register_component("data_loader", _loader())
    client = session.create_client(
        "s3",
        region_name=region,
        endpoint_url=settings.endpoint,
        verify=str(settings.ca) if settings.ca is not None else None,
        config=config,
        **keys,
    )
    return cast("S3Client", client)


def _read_credentials(settings: CredentialsSettings) -> dict[str, Any]:
    path = _credential_path(settings)
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text())
        section = parser[settings.profile]
        keys = {name: section[name] for name in _CREDENTIAL_KEYS if name in section}
    except OSError as error:
        raise SecretError(f"S3 credentials {path}: {error.strerror}") from error
    except KeyError:
        raise SecretError(f"S3 credentials {path}: no section [{settings.profile}]") from None
    except (configparser.Error, UnicodeDecodeError):
        # The parser's message quotes the line, and that may be the secret.
        raise SecretError(f"S3 credentials {path}: not an ini file with aws_access_key_id = ... lines") from None
    if not keys.keys() >= set(_CREDENTIAL_KEYS[:2]):
        raise SecretError(
            f"S3 credentials {path}: [{settings.profile}] lacks {_CREDENTIAL_KEYS[0]} or {_CREDENTIAL_KEYS[1]}"
        )
    return keys


def _credential_path(settings: CredentialsSettings) -> Path:
    if settings.file is not None:
        return settings.file
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise SecretError(
            f"S3 credential {settings.credential}: this process was not started by systemd with credentials",
            advice="Name the file instead: credentials: {file: PATH}.",
        )
    return Path(folder) / str(settings.credential)
