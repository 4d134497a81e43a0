"""dump: write a file of a snapshot to stdout or into a file; a directory as a tar stream."""

import os
import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pra_agent.cli.choosing import AsOf, At, Which, choose
from pra_agent.cli.kit import create_private
from pra_agent.cli.options import options
from pra_agent.cli.reaching import reader
from pra_agent.errors import UsageError
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.operations.dump import dump_file, dump_tar


class Archive(StrEnum):
    """How a directory becomes a stream."""

    TAR = "tar"


def command(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    which: Which,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The path in the snapshot.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Into this new file, of mode 0600.")
    ] = None,
    archive: Annotated[
        Archive | None, typer.Option("--archive", "-a", help="Write a tar stream; a directory needs that.")
    ] = None,
    at: At = None,
    as_of: AsOf = None,
) -> None:
    """Write one file of a snapshot to stdout, or a directory as a tar stream."""
    chosen = options(context)
    if output is None and archive is not None and sys.stdout.isatty():
        raise UsageError("a tar stream does not belong on a terminal", advice="Use -o FILE, or a pipe.")
    with reader(chosen, f"dump {which}", as_of) as source:
        snapshot = choose(chosen, source.snapshots(), which, at)
        if output is None:
            _write(source, snapshot, os.fsencode(path), sys.stdout.buffer, tar=archive is not None)
            sys.stdout.buffer.flush()
            return
        try:
            with closing(os.fdopen(create_private(output), "wb")) as file:
                _write(source, snapshot, os.fsencode(path), file, tar=archive is not None)
        except UsageError:
            if output.exists() and not output.stat().st_size:
                output.unlink()
            raise


def _write(source: SnapshotReader, snapshot: Snapshot, path: bytes, out: BinaryIO, *, tar: bool) -> None:
    if tar:
        dump_tar(source, snapshot, path, out)
        return
    out.writelines(dump_file(source, snapshot, path))
