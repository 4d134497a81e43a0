"""What the documents tell people to type is there: verbs, options, configurations, links."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import typer

from pra_agent.cli.app import build
from pra_agent.cli.options import GLOBAL_OPTIONS
from pra_agent.cli.verb_table import VERBS
from pra_agent.config import load

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:^|`|\s{3,})(pra-agent [a-z-][^`#\n]*)", README, re.MULTILINE)))


def options_of(verb: str, words: list[str]) -> set[str]:
    command = typer.main.get_command(build(verb)).commands[verb]  # type: ignore[attr-defined]
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line):
    words = shlex.split(line)[1:]
    verb = next((word for word in words if word in VERBS), None)
    options = {word for word in words if word.startswith("-")} - GLOBAL_OPTIONS.keys()
    if verb is None:
        assert words[0] in {"VERB", "..."} or options <= {"--help"}
        return
    assert options <= options_of(verb, words[words.index(verb) + 1 :]) | {"--help"}


def test_there_are_commands_to_look_at():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("block", re.findall(r"^ *```yaml\n(.*?)```", README, re.DOTALL | re.MULTILINE))
def test_configurations(block, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(textwrap.dedent(block))
    assert load(path).jobs


@pytest.mark.parametrize("document", ["README.md", "docs/cli.md", "docs/configuration.md", "docs/json.md"])
def test_links(document):
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / document).parent.joinpath(link).exists(), link
