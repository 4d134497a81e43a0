"""The observer's configuration, and what it refuses."""

import pytest

from pra_agent.config.observer import load_observer
from pra_agent.errors import ConfigError

GOOD = """
repositories:
  - {node: web-1, url: "s3://backups/web-1", region: eu-west-3, credentials: {file: /etc/pra-agent/observer.ini}}
  - {node: web-1, destination: dr, url: "s3://dr-backups/web-1"}
"""


def loaded(tmp_path, text):
    path = tmp_path / "observer.yaml"
    path.write_text(text)
    return load_observer(path)


def test_a_good_one(tmp_path):
    settings = loaded(tmp_path, GOOD)
    assert [(one.node, one.destination) for one in settings.repositories] == [("web-1", "repository"), ("web-1", "dr")]
    assert settings.exporter.address == ("127.0.0.1", 9808)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("repositories: []", "repositories"),
        (GOOD + "password: secret\n", "password: unknown key"),
        (GOOD.replace("destination: dr, ", ""), "two that are called repository"),
        (GOOD + "interval: 10\n", "interval"),
        (GOOD.replace("node: web-1, url", 'node: "a b", url'), "no good name"),
        (GOOD + "exporter: {users: /etc/users}\n", "no basic auth"),
        (GOOD + "interval: 0s\n", "at least a second"),
        ("repositories: [", "no valid YAML"),
    ],
)
def test_what_is_refused(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_observer(tmp_path / "none.yaml")
