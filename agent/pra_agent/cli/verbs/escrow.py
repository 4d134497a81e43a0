"""key escrow: slots whose password only the operators can have, wrapped by age or by a KMS key."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.kit import create_private, read_recipients
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output
from pra_agent.cli.reaching import configuration, daemon, direct
from pra_agent.clock import SystemClock
from pra_agent.daemon.composition import opened_backend
from pra_agent.errors import PraError, UsageError
from pra_agent.repository.escrow import (
    AgeUnwrapper,
    AgeWrapper,
    KmsUnwrapper,
    KmsWrapper,
    Unwrapper,
    Wrapper,
    add_escrow,
    escrow_password,
    escrow_slots,
    find_escrow,
)
from pra_agent.storage.backend import Backend

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

Slot = Annotated[str, typer.Argument(metavar="[ID]", help="The slot; may be left out when there is one only.")]
Identity = Annotated[
    Path | None,
    typer.Option("--identity", metavar="FILE", help="An operator's age identity; a KMS slot needs none."),
]
KmsEndpoint = Annotated[str | None, typer.Option("--kms-endpoint", metavar="URL", help="Another address of KMS.")]


@app.command()
def add(
    context: typer.Context,
    age: Annotated[list[str] | None, typer.Option("--age", metavar="RECIPIENT", help="age1... or ssh-...")] = None,
    age_file: Annotated[Path | None, typer.Option("--age-file", metavar="FILE", help="One recipient a line.")] = None,
    kms_key: Annotated[str | None, typer.Option("--kms", metavar="KEY", help="Id, ARN or alias of a KMS key.")] = None,
    kms_region: Annotated[str | None, typer.Option("--kms-region", metavar="REGION")] = None,
    kms_endpoint: KmsEndpoint = None,
) -> None:
    """Add an escrow slot: losing the host, or its password, no longer loses the key."""
    recipients = [*(age or []), *(read_recipients(age_file) if age_file is not None else [])]
    if bool(recipients) == bool(kms_key):
        raise UsageError("an escrow slot is wrapped either for age recipients or by a KMS key", advice="--age or --kms")
    wrapper: Wrapper = KmsWrapper(kms_key, kms_region, kms_endpoint) if kms_key else AgeWrapper(recipients)
    output = Output.of(options(context))
    with direct(options(context)) as repository:
        slot = add_escrow(repository.keys, wrapper, cost=repository.settings.scrypt)
    output.data({"type": "key_added", "key": slot})
    output.line(
        f"added: escrow slot {slot.id[:10]}; prove now that it opens: pra-agent key escrow prove {slot.id[:10]}"
    )


@app.command("list")
def list_slots(context: typer.Context) -> None:
    """List the escrow slots and who can unwrap them. No password is needed for this."""
    output = Output.of(options(context))
    with _backend(context) as backend:
        slots = escrow_slots(backend)
    output.data({"type": "escrow", "slots": slots})
    output.table(
        ("ID", "CREATED", "KIND", "FOR"),
        [(slot.id[:10], slot.created[:19], slot.kind, slot.owners) for slot in slots],
    )


@app.command()
def prove(context: typer.Context, slot: Slot = "", identity: Identity = None, kms_endpoint: KmsEndpoint = None) -> None:
    """Prove that the slot's password can be unwrapped and opens the repository; nothing is shown of it.

    The daemon, when it runs and root asks, exports when that was (pra_escrow_proven_timestamp_seconds).
    """
    output = Output.of(options(context))
    with _backend(context) as backend:
        chosen = find_escrow(backend, slot)
        escrow_password(backend, chosen, _unwrapper(identity, kms_endpoint))
    told = _tell_daemon(options(context), chosen)
    output.data({"type": "escrow_proven", "id": chosen, "daemon_told": not told})
    output.line(f"proven: escrow slot {chosen[:10]} opens the repository")
    if told:
        output.note(f"the metric of it stays as it was: {told}")


@app.command("open")
def open_slot(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A new file, readable by you only.")],
    slot: Slot = "",
    identity: Identity = None,
    kms_endpoint: KmsEndpoint = None,
) -> None:
    """Unwrap the slot's password into a file: the way in when the host and its password are lost."""
    output = Output.of(options(context))
    with _backend(context) as backend:
        chosen = find_escrow(backend, slot)
        password = escrow_password(backend, chosen, _unwrapper(identity, kms_endpoint))
    with os.fdopen(create_private(out), "w") as file:
        file.write(password + "\n")
    output.data({"type": "escrow_opened", "id": chosen, "file": str(out)})
    output.line(f"written: the password of escrow slot {chosen[:10]}, to {out}")


def _tell_daemon(chosen: Options, slot: str) -> str:
    """Let the daemon remember the proof; returns why it does not, "" when it does."""
    if chosen.direct:
        return "--direct does not ask the daemon"
    try:
        with daemon(chosen) as client:
            client.escrow_proven(slot)
    except PraError as error:
        return error.message
    return ""


@contextmanager
def _backend(context: typer.Context) -> Generator[Backend]:
    with opened_backend(configuration(options(context)), SystemClock()) as backend:
        yield backend


def _unwrapper(identity: Path | None, kms_endpoint: str | None) -> Unwrapper:
    return AgeUnwrapper(identity) if identity is not None else KmsUnwrapper(kms_endpoint)
