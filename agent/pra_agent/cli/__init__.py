"""The command line: one verb, one module.

`main` is the whole entry point: it finds the verb, imports its module alone, runs it, and turns errors into a line,
advice and an exit code.
"""

from pra_agent.cli.entry import main

__all__ = ["main"]
