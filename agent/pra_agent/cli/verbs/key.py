"""key: the passwords that open the repository, each in a key slot."""

from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.asking import ask_new_secret, confirm
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output
from pra_agent.cli.reaching import direct
from pra_agent.cli.verbs import escrow
from pra_agent.config.secrets import read_secret

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(escrow.app, name="escrow", help="Slots whose password only the operators can have.")

NewPassword = Annotated[
    Path | None,
    typer.Option("--new-password-file", metavar="FILE", help="The new password; asked for on a terminal otherwise."),
]


@app.command("list")
def list_slots(context: typer.Context) -> None:
    """List the key slots; the one that opened the repository is marked."""
    output = Output.of(options(context))
    with direct(options(context)) as repository:
        slots = repository.keys.list()
    output.data({"type": "keys", "keys": slots})
    output.table(
        ("ID", "CREATED", "USER", "HOST", ""),
        [
            (slot.id[:10], slot.created[:19], slot.username, slot.hostname, "in use" if slot.current else "")
            for slot in slots
        ],
    )


@app.command()
def add(context: typer.Context, new_password_file: NewPassword = None) -> None:
    """Let a further password open the repository."""
    password = _new_password(new_password_file)
    output = Output.of(options(context))
    with direct(options(context)) as repository:
        slot = repository.keys.add(password, cost=repository.settings.scrypt)
    output.data({"type": "key_added", "key": slot})
    output.line(f"added: key slot {slot.id[:10]}")


@app.command()
def remove(
    context: typer.Context,
    slot: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let a password no longer open the repository. The last slot, and the one in use, are not removed.

    Whoever had the password may have kept the master key: after a compromise start a new repository.
    """
    if not yes:
        confirm(f"Remove key slot {slot}? Its password will open the repository no more.")
    output = Output.of(options(context))
    with direct(options(context)) as repository:
        removed = repository.keys.remove(slot)
    output.data({"type": "key_removed", "key": removed})
    output.line(f"removed: key slot {removed.id[:10]}")


@app.command()
def passwd(context: typer.Context, new_password_file: NewPassword = None) -> None:
    """Replace the password in use by another one. Change what the configuration refers to right after.

    The master key stays the same: this does not shut out who knew the old password and had a copy of the key.
    """
    password = _new_password(new_password_file)
    chosen: Options = options(context)
    output = Output.of(chosen)
    with direct(chosen) as repository:
        slot = repository.keys.passwd(password, cost=repository.settings.scrypt)
    output.data({"type": "key_changed", "key": slot})
    output.line(f"changed: key slot {slot.id[:10]} is in use now; put the new password where the configuration looks")


def _new_password(file: Path | None) -> str:
    return read_secret(file) if file is not None else ask_new_secret("password")
