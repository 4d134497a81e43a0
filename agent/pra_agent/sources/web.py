"""Small requests to services on this host: JSON in and out, secrets in headers only, one line when it fails."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from pra_agent.errors import SourceError

_LARGEST = 16 << 20


def ask(url: str, *, method: str = "GET", login: tuple[str, str] | None = None, timeout: float = 30) -> bytes:
    """Make one request and return its body. `SourceError` with status and reason when it is not 2xx."""
    if not url.startswith(("http://", "https://")):
        raise SourceError(f"{url}: only http and https addresses are asked")
    headers: Mapping[str, str] = {}
    if login is not None:
        headers = {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}
    request = urllib.request.Request(url, method=method, headers=dict(headers))  # noqa: S310 (checked above)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            return bytes(response.read(_LARGEST))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(300).decode(errors="replace").strip().replace("\n", " ")
        raise SourceError(f"{url}: {error.code} {error.reason}{': ' if said else ''}{said}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise SourceError(f"{url}: {getattr(error, 'reason', error)}") from error


def ask_json(url: str, *, method: str = "GET", login: tuple[str, str] | None = None, timeout: float = 30) -> Any:  # noqa: ANN401 (JSON)
    """Make one request and return its JSON."""
    data = ask(url, method=method, login=login, timeout=timeout)
    try:
        return json.loads(data)
    except ValueError as error:
        raise SourceError(f"{url}: does not answer in JSON") from error


def is_well(url: str, login: tuple[str, str] | None = None) -> str:
    """Ask a health address: "" when it answers well, else what is wrong."""
    try:
        ask(url, login=login, timeout=5)
    except SourceError as error:
        return error.message
    return ""
