"""What an operation tells while it runs; frozen values that JSON can carry.

`Reporter` is called from the thread that works, often: an implementation must be quick and never raise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Totals are 0 while they are not known; rates are left to who shows them."""

    stage: str
    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_stored: int = 0
    current: str = ""
    type: Literal["progress"] = field(default="progress", init=False)


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A file that could not be saved or restored, and why. The path is printable (see `model.quoting`)."""

    path: str
    reason: str
    type: Literal["file_failed"] = field(default="file_failed", init=False)


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the operator."""

    message: str
    level: Literal["info", "warning"] = "info"
    type: Literal["notice"] = field(default="notice", init=False)


Event = Progress | FileFailed | Notice
Reporter = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Report to nobody."""
