"""Which paths of a snapshot a restore is about: chosen paths, patterns, and what lies above them."""

import os
from collections.abc import Sequence
from enum import Enum, auto

import pathspec

from pra_agent.errors import UsageError


class Verdict(Enum):
    """What the selection says of a path."""

    #: Not restored, and nothing below it.
    NO = auto()
    #: A directory that is not itself meant, but something below it may be.
    ABOVE = auto()
    YES = auto()


def split(path: bytes) -> bytes:
    """Normalise an absolute path of a snapshot: no slash at the end, none doubled; the root is b""."""
    return b"".join(b"/" + part for part in path.split(b"/") if part not in {b"", b"."})


def above(paths: Sequence[bytes]) -> frozenset[bytes]:
    """All proper ancestors of these paths, but for those that are themselves among them."""
    ancestors: set[bytes] = set()
    for path in paths:
        while path:
            path = path[: path.rindex(b"/")]  # noqa: PLW2901 - climbs
            ancestors.add(path)
    return frozenset(ancestors - set(paths))


class Selection:
    """Chosen paths and gitignore-style patterns over a snapshot's paths.

    Raises UsageError for a pattern that cannot be understood. What is excluded stays excluded with all below it.
    """

    def __init__(self, paths: Sequence[bytes], include: Sequence[str], exclude: Sequence[str]) -> None:
        self.paths = frozenset(split(path) for path in paths)
        if b"" in self.paths:
            self.paths = frozenset[bytes]()
        self._above = above(tuple(self.paths))
        self._include = _compile(include) if include else None
        self._exclude = _compile(exclude) if exclude else None

    @property
    def everything(self) -> bool:
        """Whether there is nothing to ask for."""
        return not self.paths and self._include is None and self._exclude is None

    def root(self) -> Verdict:
        """The verdict on the root of the snapshot, for `judge`."""
        return Verdict.ABOVE if self.paths or self._include is not None else Verdict.YES

    def judge(self, path: bytes, *, directory: bool, within: bool) -> Verdict:
        """Judge a normalised path; `within` says that it lies in a chosen path (see `chosen`)."""
        if not within and path not in self.paths:
            return Verdict.ABOVE if directory and path in self._above else Verdict.NO
        text = os.fsdecode(path[1:]) + ("/" if directory else "")
        if self._exclude is not None and self._exclude.match_file(text):
            return Verdict.NO
        if self._include is None or self._include.match_file(text):
            return Verdict.YES
        return Verdict.ABOVE if directory else Verdict.NO

    def chosen(self, path: bytes, *, within: bool) -> bool:
        """Whether what is below this path lies in a chosen path."""
        return within or not self.paths or path in self.paths


def _compile(patterns: Sequence[str]) -> pathspec.GitIgnoreSpec:
    try:
        return pathspec.GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UsageError(f"not a pattern: {error}") from error
