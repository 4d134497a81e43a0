"""The door of the command line. The overview and the version need no more than this module, so that they are quick."""

import os
import sys
from collections.abc import Sequence

from pra_agent import __version__
from pra_agent.cli.verb_table import PROGRAM, VERBS, overview

_HELP = ("-h", "--help")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "_PRA_AGENT_COMPLETE" not in os.environ and not any(word in VERBS for word in words):
        if not words or any(word in _HELP for word in words):
            print(overview())
            sys.exit(0 if words else 2)
        if "--version" in words:
            print(f"{PROGRAM} {__version__}")
            sys.exit(0)
    from pra_agent.cli.app import run  # noqa: PLC0415 - typer is slow to import, and the overview does without

    sys.exit(run(words))
