"""The source `files`: paths of this host, as they are."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import SourceError
from pra_agent.model.printable import printable
from pra_agent.model.references import SecretRef
from pra_agent.sources.attributes import Names, make_node, read_xattrs
from pra_agent.sources.patterns import compile_patterns, read_patterns
from pra_agent.sources.source import CaptureContext, Entry, Listing, Missed, ReinstateContext, StateBefore
from pra_agent.sources.walk import Rules, Start, Tally, Walker
from pra_agent.units import Size


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is no absolute path; write it from / on")
    return Path(os.path.normpath(path))


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class FilesSettings(BaseModel):
    """Paths of this host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["files"] = "files"
    paths: Annotated[tuple[AbsolutePath, ...], Field(min_length=1)]
    exclude: tuple[str, ...] = ()
    exclude_files: tuple[AbsolutePath, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    exclude_larger_than: Size | None = None

    def build(
        self,
        resolve: Callable[[SecretRef], str] | None = None,  # noqa: ARG002 - the contract's: files need no secret
        clock: Clock | None = None,
    ) -> "FilesSource":
        """Make the source."""
        return FilesSource(self, clock or SystemClock())


@dataclass(frozen=True, slots=True)
class FilesSource:
    """Captures files in place; they are not frozen, so a file that changes while it is read is found by its status."""

    settings: FilesSettings
    clock: Clock

    @contextmanager
    def capture(self, context: CaptureContext) -> Generator["FilesCapture"]:
        """Open the configured paths. Raises SourceError when none of them exists."""
        patterns = list(self.settings.exclude)
        for file in self.settings.exclude_files:
            patterns += read_patterns(file)
        with ExitStack() as stack:
            capture = FilesCapture(self.settings, patterns, context, self.clock.now())
            capture.open(stack)
            yield capture

    def undo(self, state: StateBefore) -> None:
        """Nothing was changed."""

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:  # noqa: ARG002 - the contract's
        """Nothing to do: files are in service where they are restored to."""
        return ()


class FilesCapture:
    """The walk over the configured paths, in the order of their components."""

    def __init__(
        self, settings: FilesSettings, patterns: Sequence[str], context: CaptureContext, instant: datetime
    ) -> None:
        self._settings = settings
        self._patterns = patterns
        self._context = context
        self._instant = instant
        self._roots = sorted({os.fsencode(path) for path in settings.paths}, key=_components)
        self._starts: list[Start] = []
        self._missing: list[Missed] = []
        self._names = Names()
        self._walked = False

    @property
    def data_instant(self) -> datetime:
        return self._instant

    @property
    def roots(self) -> Sequence[bytes]:
        return self._roots

    def open(self, stack: ExitStack) -> None:
        """Open the directories that hold the configured paths, until the stack is left."""
        for root in self._roots:
            directory, _, name = root.rpartition(b"/")
            try:
                fd = os.open(directory or b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                os.stat(name or b".", dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                self._missing.append(Missed(printable(root), f"it is configured, but: {error.strerror}"))
                continue
            self._starts.append(Start(fd, name or b".", root))
        if not self._starts:
            what = ", ".join(missed.path for missed in self._missing)
            raise SourceError(f"there is nothing to save: {what}", advice="Check the paths of the job.")

    def entries(self) -> Iterator[Entry | Missed | Listing]:
        yield from self._missing
        tally = Tally()
        starts = frozenset(start.path for start in self._starts)
        towards = frozenset(parent for path in starts for parent in _parents(path))
        walked: set[bytes] = set()
        above: set[bytes] = set()
        for start in self._starts:
            if not walked.isdisjoint(_parents(start.path)):
                # It lies in a path that was walked, and was met there unless a symlink leads to it.
                if start.path not in tally.met:
                    yield Missed(printable(start.path), "it lies behind a symlink inside another configured path")
                continue
            yield from self._ancestors(start.path, above)
            walked.add(start.path)
            excluded = compile_patterns(self._patterns, start.path)
            rules = Rules(
                excluded,
                self._settings.exclude_caches,
                self._settings.one_file_system,
                self._settings.exclude_larger_than,
                frozenset(path.rstrip(b"/") for path in self._context.never),
                starts,
                towards,
            )
            yield from Walker(start, rules, self._names, tally).entries()
        tally.tell(self._context.report)
        self._walked = True

    def verify(self) -> None:
        """What was missed has been told as such; but the walk must have come to its end."""
        if not self._walked:
            raise SourceError("the walk over the configured paths did not come to its end")

    def _ancestors(self, path: bytes, told: set[bytes]) -> Iterator[Entry]:
        """Yield the directories above a configured path, so that a restore can make them as they are."""
        for parent in _parents(path)[1:]:
            if parent in told:
                continue
            told.add(parent)
            try:
                # They may be reached through symlinks: what they lead to is what the path means.
                st = os.stat(parent)  # noqa: PTH116 - raw names
                xattrs = read_xattrs(parent + b"/.")
            except OSError:
                continue
            yield Entry(parent, make_node(parent.rpartition(b"/")[2], st, self._names, xattrs))


def _components(path: bytes) -> list[bytes]:
    return path.strip(b"/").split(b"/") if path != b"/" else []


def _parents(path: bytes) -> list[bytes]:
    """All directories above a path, the root first."""
    if path == b"/":
        return []
    parts = _components(path)
    return [b"/", *(b"/" + b"/".join(parts[:count]) for count in range(1, len(parts)))]
