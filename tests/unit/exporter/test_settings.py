"""Where to listen, in the forms that people write."""

import pytest
from pydantic import ValidationError

from pra_agent.exporter.settings import ExporterSettings


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9807", ("127.0.0.1", 9807)),
        (":9807", ("", 9807)),
        ("[::1]:0", ("::1", 0)),
        ("host.example:80", ("host.example", 80)),
    ],
)
def test_addresses(listen: str, address: tuple[str, int]) -> None:
    assert ExporterSettings(listen=listen).address == address


@pytest.mark.parametrize("listen", ["", "9807", "::1:9807", "host", "host:", "host:x", "host:70000"])
def test_what_is_none(listen: str) -> None:
    with pytest.raises(ValidationError, match="listen"):
        ExporterSettings(listen=listen)
