"""Exclude patterns in the notation of .gitignore, over raw names.

A pattern is matched against the path below the configured path, as if that directory held a .gitignore with all
patterns. An absolute path at or below a configured path may be written as well; it is taken as anchored there.
A directory that is excluded is not entered, so nothing below it can be brought back by a `!` pattern.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

import pathspec

from pra_agent.errors import SourceError

_GROUP_NAME = re.compile(r"\(\?P<\w+>")


class _Pattern(Protocol):
    include: bool | None
    regex: re.Pattern[str] | None


Excluded = Callable[[bytes, bool], bool]


def read_patterns(path: str | os.PathLike[str]) -> list[str]:
    """Read patterns from a file, one a line, comments and blank lines as in .gitignore. Raises SourceError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - bytes names
            return [line.rstrip("\r\n") for line in file]
    except OSError as error:
        raise SourceError(
            f"cannot read the exclude file {os.fspath(path)}: {error.strerror}",
            advice="Create the file, or take it out of exclude_files.",
        ) from error


def compile_patterns(patterns: Iterable[str], root: bytes) -> Excluded | None:
    """Make a function that tells whether a path is left out: its raw path below `root`, and whether it is a directory.

    None when there is nothing to match. Raises SourceError for a pattern that is none.
    """
    lines = [line for line in (_below(pattern, os.fsdecode(root)) for pattern in patterns) if line]
    try:
        spec = pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise SourceError(f"no exclude pattern: {error}", advice="Write it as in .gitignore.") from error
    rules = [
        (bool(pattern.include), _whole(pattern.regex.pattern))
        for pattern in cast("Iterable[_Pattern]", spec.patterns)
        if pattern.regex is not None
    ]
    positive = [regex for include, regex in rules if include]
    if not positive:
        return None
    # One match tells for nearly every path that no pattern is about it; only the others need the rules of order.
    quick = re.compile("|".join(positive), re.DOTALL).fullmatch
    # The last pattern that matches decides.
    matchers = [(include, re.compile(regex, re.DOTALL).fullmatch) for include, regex in reversed(rules)]

    def excluded(path: bytes, is_dir: bool) -> bool:
        text = os.fsdecode(path)
        if is_dir:
            text += "/"
        return quick(text) is not None and next(include for include, match in matchers if match(text))

    return excluded


def _whole(regex: str) -> str:
    """Turn a regex of pathspec, which also matches what lies below a match, into one for the path itself.

    Parents need no rule: a directory that is excluded is not entered.
    """
    regex = _GROUP_NAME.sub("(?:", regex)
    if not regex.startswith("^"):
        regex = ".*" + regex
    if regex.endswith(("$)", "/)")):
        return regex
    # "dir/**" is all below the directory, and not the directory; "**" is all.
    return regex + (".+" if regex.endswith("/") else ".*")


def _below(pattern: str, root: str) -> str:
    """Turn an absolute pattern below the root into one that is anchored there; leave all others."""
    negation = "!" if pattern.startswith("!") else ""
    text = pattern[len(negation) :]
    prefix = root.rstrip("/") + "/"
    if prefix != "/" and text.startswith(prefix):
        return f"{negation}/{text[len(prefix) :]}"
    return pattern


def is_under(path: bytes, parents: Sequence[bytes]) -> bool:
    """Tell whether a path is one of `parents`, or lies below one."""
    return any(path == parent or path.startswith(parent.rstrip(b"/") + b"/") for parent in parents)
