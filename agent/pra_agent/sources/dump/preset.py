"""The contract of a preset: what a dump consists of, and how each part is put back."""

import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from typing import BinaryIO, Protocol

from pra_agent.errors import SourceError
from pra_agent.sources.dump.stream import Demand
from pra_agent.sources.source import ReinstateContext


@dataclass(frozen=True, slots=True)
class Ended:
    """How a short command ended, and what it said."""

    code: int
    stdout: bytes
    stderr: str


class Runner(Protocol):
    """Where the tools run: on the host, or inside a container. Raises `CommandError`."""

    @property
    def where(self) -> str:
        """The place, for messages: "on this host", "in container NAME"."""
        ...

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout: float = 300) -> Ended:
        """Run a short command to its end; its exit code is the caller's to judge."""
        ...

    def stream(self, argv: Sequence[str], env: Mapping[str, str], cancelled: Event) -> AbstractContextManager[BinaryIO]:
        """Read a command's stdout; leaving asserts its exit code."""
        ...

    def feed(self, argv: Sequence[str], env: Mapping[str, str], cancelled: Event) -> AbstractContextManager[BinaryIO]:
        """Write to a command's stdin; leaving asserts its exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One stream of a dump. `name` is its file name below the dump's directory."""

    name: str
    demand: Demand
    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())
    #: What is stored as it is instead of a command's output.
    text: bytes | None = None


class Preset(Protocol):
    """One database product."""

    def parts(self, runner: Runner) -> Sequence[Part]:
        """Ask the server what there is and say what a dump consists of; never empty."""
        ...

    def databases(self, runner: Runner) -> Sequence[str]:
        """Ask the server which databases it has; none where there are no names to choose by."""
        ...

    def reinstate(self, runner: Runner, directory: str, context: ReinstateContext) -> Sequence[str]:
        """Put the files of `directory` back; returns what was done, a line each."""
        ...


def file_name(database: str, suffix: str) -> str:
    """A database's name as a file name: whatever is in it stays one path component."""
    quoted = urllib.parse.quote(database, safe=" ")
    return ("%2E" + quoted[1:] if quoted.startswith(".") else quoted) + suffix


def database_name(file: str, suffix: str) -> str:
    """The inverse of `file_name`."""
    return urllib.parse.unquote(file.removesuffix(suffix))


def asked(runner: Runner, argv: Sequence[str], env: Mapping[str, str], what: str) -> str:
    """Run a short query and return its output; `SourceError` with the tool's own words when it fails."""
    ended = runner.run(argv, env)
    if ended.code != 0:
        raise SourceError(
            f"{what} {runner.where}: {argv[0]} ended with {ended.code}: {ended.stderr or 'it said nothing'}",
            advice="Check user, password and address of the job; run the tool by hand.",
        )
    return ended.stdout.decode("utf-8", "surrogateescape")
