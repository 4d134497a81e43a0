"""Writes docs/cli.md from the verbs: `python -m pra_agent.cli.reference > docs/cli.md`."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from pra_agent.cli.app import build
from pra_agent.cli.verb_table import PROGRAM, VERBS

_HEAD = """# Command line

Written from the verbs themselves by `python -m pra_agent.cli.reference`; do not edit.

`pra-agent VERB --help` shows the same. Options may stand on either side of the verb.

## Everywhere

| Option | Meaning |
|---|---|
| `--config FILE`, `-c` | The configuration; `PRA_AGENT_CONFIG`, else `/etc/pra-agent/config.yaml`, when left out. |
| `--direct` | Open the repository in this process, without the daemon: on a bare host, or to look after it by hand. |
| `--json` | One JSON document a line on stdout and nothing else; see [json.md](json.md). |
| `--quiet`, `-q` | Results, errors and warnings only. |
| `--debug` | Show where an error comes from. |
| `--as-node NODE` | Read another node's snapshots (with `--direct`). |
| `--version`, `--help` | |

Progress is a bar with rate and ETA on a terminal, and a line every ten seconds elsewhere; both go to stderr. Errors are
one line, and one of advice. Ctrl-C ends in order, with code 130, and says what was kept; a second one ends at once.

`--direct` keeps its cache and its own journal below `~/.local/state/pra-agent` (`XDG_STATE_HOME`), so that nothing of
the daemon's is touched.

| Exit code | Meaning |
|---|---|
| 0 | success |
| 1 | failed |
| 2 | the command line or the configuration is wrong |
| 3 | partial: files are missing from the snapshot; or it is suspect, far smaller than usual |
| 10 | no repository there |
| 11 | the repository is locked |
| 12 | the password opens no key slot |
| 130 | interrupted |

A moment (`--at`, `--as-of`) is written like `2026-11-30` (the end of that day), `2026-11-30 14:05`,
`2026-11-30T14:05+01:00` or `3h ago`; UTC unless a zone is given.
"""


def render() -> str:
    """Write the whole document."""
    panels: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
        panels.setdefault(verb.panel, []).append(name)
    text = _HEAD
    for panel, names in panels.items():
        text += f"\n## {panel}\n"
        text += "".join(section for name in names for section in _verb(name))
    return text


def _verb(name: str) -> Iterator[str]:
    # What typer makes has types of its own that it keeps to itself.
    whole: Any = typer.main.get_command(build(name))
    yield from _sections(name, whole.commands[name])


def _sections(path: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    below: dict[str, Any] = getattr(command, "commands", {})
    arguments = "" if below else "".join(f" {metavar(one)}" for one in command.params if not is_option(one))
    word = " VERB" if below else ""
    yield f"\n### {path}\n\n```\n{PROGRAM} {path}{word}{arguments}\n```\n\n{inspect.cleandoc(command.help or '')}\n"
    options = [one for one in command.params if is_option(one) and one.name != "help"]
    if options:
        rows = "".join(f"| {names(one)} | {one.help or ''} |\n" for one in options)
        yield f"\n| Option | Meaning |\n|---|---|\n{rows}"
    for name, one in below.items():
        yield from _sections(f"{path} {name}", one)


def is_option(parameter: Any) -> bool:  # noqa: ANN401 - as above
    """Whether it is an option, not an argument."""
    return str(parameter.param_type_name) == "option"


def metavar(argument: Any) -> str:  # noqa: ANN401 - as above
    """The argument's name in a synopsis."""
    return str(argument.metavar or (argument.name or "").upper())


def names(option: Any) -> str:  # noqa: ANN401 - as above
    """All spellings of the option, each in backquotes."""
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    names = [*option.opts, *option.secondary_opts]
    return ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(render())
