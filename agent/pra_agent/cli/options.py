"""Options that every verb has, on either side of it."""

from dataclasses import dataclass
from pathlib import Path

import typer

DEFAULT_CONFIG = Path("/etc/pra-agent/config.yaml")
CONFIG_VARIABLE = "PRA_AGENT_CONFIG"


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for everywhere."""

    config: Path = DEFAULT_CONFIG
    direct: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False
    as_node: str = ""


def options(context: typer.Context) -> Options:
    """The options of this call."""
    found: object = context.find_root().obj
    return found if isinstance(found, Options) else Options()


#: Global options and whether a value follows.
GLOBAL_OPTIONS = {
    "--config": True,
    "-c": True,
    "--as-node": True,
    "--direct": False,
    "--json": False,
    "--quiet": False,
    "-q": False,
    "--debug": False,
    "--version": False,
}


def arrange(arguments: list[str], verbs: frozenset[str]) -> tuple[list[str], str]:
    """Put global options first, then the verb, then the rest; returns that and the verb ("" when there is none).

    Everything after `--` stays as it is.
    """
    ahead: list[str] = []
    rest: list[str] = []
    tail: list[str] = []
    pending = list(arguments)
    while pending:
        word = pending.pop(0)
        name, equals, _ = word.partition("=")
        if word == "--":
            tail = [word, *pending]
            break
        if name in GLOBAL_OPTIONS:
            ahead.append(word)
            if GLOBAL_OPTIONS[name] and not equals and pending:
                ahead.append(pending.pop(0))
        else:
            rest.append(word)
    at = next((n for n, word in enumerate(rest) if word in verbs), None)
    if at is None:
        return [*ahead, *rest, *tail], ""
    verb = rest.pop(at)
    return [*ahead, verb, *rest, *tail], verb
