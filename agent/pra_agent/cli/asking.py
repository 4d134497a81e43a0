"""What is asked of the person at the terminal; nothing is asked when there is none."""

import getpass
import sys

from pra_agent.errors import RefusedError, SecretError


def at_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_secret(what: str) -> str:
    """Ask for a secret without echo. Raises `SecretError` when there is no terminal."""
    if not at_terminal():
        raise SecretError(
            f"{what}: not found, and there is no terminal to ask at",
            advice="Load it with LoadCredential= in the unit, refer to it as {file: PATH}, or run this on a terminal.",
        )
    return getpass.getpass(f"{what}: ", stream=sys.stderr)


def ask_new_secret(what: str) -> str:
    """Ask twice for a new secret. Raises `SecretError` when the two differ or there is no terminal."""
    first = ask_secret(f"new {what}")
    if first != ask_secret(f"new {what}, again"):
        raise SecretError("the two differ", advice="Type the same twice.")
    return first


def confirm(question: str, *, option: str = "--yes") -> None:
    """Go on only when the answer is yes. Raises `RefusedError` when it is not, or nobody is there to give it."""
    if not at_terminal():
        raise RefusedError(f"{question} Nobody is there to answer.", advice=f"Say {option} if that is wanted.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError("not confirmed; nothing was changed", advice="")
