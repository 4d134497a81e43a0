"""What a forked child does first: make crashes speak, and find its work."""

import faulthandler
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class Task:
    """The work of a child: a function as `module:name`, and what it gets beside the descriptors."""

    entry: str
    payload: object


def resolve(name: str) -> object:
    """Import what `module:name` names."""
    module, _, attribute = name.partition(":")
    return cast("object", getattr(importlib.import_module(module), attribute))


def main(task: Task, descriptors: Sequence[int]) -> int:
    """Run the task; returns the exit status."""
    faulthandler.enable(file=sys.stderr)
    entry = cast("Callable[[object, Sequence[int]], int]", resolve(task.entry))
    return entry(task.payload, descriptors)
