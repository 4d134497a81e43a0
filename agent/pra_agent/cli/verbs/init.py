"""init: create the repository and write the recovery kit."""

import os
import pwd
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.asking import ask_new_secret, ask_secret, at_terminal
from pra_agent.cli.kit import KitFacts, KitFile, create_private, encrypt, kit_text, read_recipients, write_private
from pra_agent.cli.options import options
from pra_agent.cli.output import Output
from pra_agent.clock import SystemClock
from pra_agent.config import Config, CopySettings, RepositorySettings, load
from pra_agent.config.secrets import Resolver
from pra_agent.errors import PraError, RepositoryExists, UsageError
from pra_agent.model.references import SecretRef
from pra_agent.repository.host import this_host
from pra_agent.repository.repository import Repository
from pra_agent.storage.opening import open_backend

SERVICE_USER = "pra-agent"


def command(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    kit: Annotated[
        Path | None,
        typer.Option("--kit", metavar="FILE", help="Where the recovery kit goes; beside the configuration otherwise."),
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option("--recipient", "-r", metavar="KEY", help="Encrypt the kit to this age or ssh public key."),
    ] = None,
    recipients_file: Annotated[
        Path | None, typer.Option("--recipients-file", metavar="FILE", help="Public keys, one a line.")
    ] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show the kit on this terminal, too.")] = False,
    kit_only: Annotated[bool, typer.Option("--kit-only", help="Only write a kit for the existing repository.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing kit.")] = False,
) -> None:
    """Create the repository (and those of the copies), and write the recovery kit.

    The kit has the URL, the password and the commands that bring everything back, for pra-agent and for stock restic.
    It is a file of mode 0600, or encrypted to public keys. Move it off this host. A password file that the
    configuration names and that does not exist yet is generated.
    """
    chosen = options(context)
    output = Output.of(chosen)
    if reveal and not (at_terminal() and sys.stdout.isatty()):
        raise UsageError("--reveal shows secrets, and this is no terminal", advice="Read the kit's file instead.")
    config = load(chosen.config)
    keys = [*(recipient or []), *(read_recipients(recipients_file) if recipients_file else [])]
    encrypt("", keys) if keys else None  # a wrong key is told before anything is made
    path = kit or chosen.config.parent / f"recovery-kit-{config.node}.{'age' if keys else 'txt'}"
    file = KitFile(path, force=force)
    try:
        repository, password = _open(config) if kit_only else _create(config, config.repository, output)
        copies = [] if kit_only else [_create_copy(config, copy, output) for copy in config.copies]
        facts = KitFacts(
            config.node,
            repository,
            config.repository,
            password,
            SystemClock().now(),
            list(config.jobs),
            [(copy, _own_password(copy)) for copy in config.copies],
        )
        text = kit_text(facts)
        data = encrypt(text, keys) if keys else text.encode()
    except BaseException:
        file.give_up()
        raise
    file.save(data)
    output.data(
        {
            "type": "init",
            "repository": config.repository.url,
            "repository_id": repository,
            "kit": str(path.absolute()),
            "kit_encrypted": bool(keys),
            "copies": copies,
        }
    )
    output.line(f"recovery kit: {path.absolute()}{' (encrypted)' if keys else ''}; move it off this host")
    if reveal:
        print(text)


def _own_password(copy: CopySettings) -> str:
    return Resolver(ask=ask_secret).resolve(copy.password) if copy.password is not None else ""


def _open(config: Config) -> tuple[str, str]:
    """Open the existing repository; returns its id and its password."""
    password = Resolver(ask=ask_secret).resolve(config.repository.password)
    clock = SystemClock()
    backend = open_backend(config.repository, clock)
    try:
        return Repository.open(backend, password, clock=clock, host=this_host(config.node)).id, password
    finally:
        backend.close()


def _create(config: Config, place: RepositorySettings | CopySettings, output: Output) -> tuple[str, str]:
    """Create a repository; returns its id and its password."""
    reference = place.password or config.repository.password
    password, generated = _password(reference)
    clock = SystemClock()
    backend = open_backend(place, clock)
    try:
        repository = Repository.init(
            backend, password, clock=clock, host=this_host(config.node), settings=config.repository.tuning
        )
    except BaseException:
        if generated is not None:
            generated.unlink()
        raise
    finally:
        backend.close()
    if place.s3 is None:
        _hand_over(Path(place.url), output)
    if generated is not None:
        output.line(f"password: generated into {generated}")
    output.line(f"repository: {place.url}, id {repository.id[:10]}")
    return repository.id, password


def _create_copy(config: Config, copy: CopySettings, output: Output) -> dict[str, object]:
    """Create a copy's repository where there is none yet."""
    try:
        identity, _ = _create(config, copy, output)
    except RepositoryExists:
        output.line(f"copy: {copy.label}, exists already")
        return {"url": copy.url, "created": False}
    except PraError as error:
        output.warn(f"copy {copy.label}: {error.message}")
        return {"url": copy.url, "created": False, "error": error.message}
    return {"url": copy.url, "created": True, "repository_id": identity}


def _password(reference: SecretRef) -> tuple[str, Path | None]:
    """Read the password; where its file does not exist yet, make one up. Returns the file if it was made."""
    resolver = Resolver(ask=ask_new_secret)
    path = resolver.path(reference)
    if path is None or path.exists() or reference.kms is not None:
        return resolver.resolve(reference), None
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = secrets.token_urlsafe(32)
    write_private(create_private(path), f"{password}\n".encode())
    return password, path


def _hand_over(directory: Path, output: Output) -> None:
    """Give a directory that root has just made to the daemon's user, where there is one."""
    if os.geteuid() != 0:
        return
    with suppress(KeyError):
        user = pwd.getpwnam(SERVICE_USER)
        for path in (directory, *_below(directory)):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
        output.note(f"{directory}: given to the user {SERVICE_USER}")


def _below(directory: Path) -> Sequence[Path]:
    return [Path(folder) / name for folder, folders, files in os.walk(directory) for name in (*folders, *files)]
