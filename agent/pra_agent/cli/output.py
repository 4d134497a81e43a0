"""What is printed: results on stdout, everything about the way there on stderr.

With --json, stdout has one JSON document a line and nothing else; a verb that takes its time prints its events, and
its result last.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import TextIO, cast

import orjson

from pra_agent.cli.options import Options

_JSON = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def to_json(value: object) -> str:
    """Write a value as one line of JSON: times in RFC 3339 and UTC, durations in seconds, raw bytes in hex."""
    try:
        return orjson.dumps(value, default=_plain, option=_JSON).decode()
    except orjson.JSONEncodeError:  # bytes that are no UTF-8, in a name
        text = json.dumps(value, default=_plain_for_json, ensure_ascii=False, separators=(",", ":"))
        return "".join(c if not 0xD800 <= ord(c) <= 0xDFFF else f"\\\\x{ord(c) & 0xFF:02x}" for c in text)


def _plain_for_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, PurePath):
        return printable_text(str(value))
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, (Sequence, AbstractSet)):
        return list(cast("Sequence[object]", value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def printable_text(text: str) -> str:
    """Make a text fit for any terminal: bytes that are no UTF-8 escaped, control characters too."""
    return "".join(
        c if c.isprintable() else f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else repr(c)[1:-1]
        for c in text
    )


@dataclass(frozen=True, slots=True)
class Output:
    """Where a verb prints. `data` is for --json only, `line` and `table` for people only."""

    json: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, options: Options) -> "Output":
        """The output that was asked for."""
        return cls(json=options.json, quiet=options.quiet)

    def data(self, value: object) -> None:
        """Print a JSON document."""
        if self.json:
            print(to_json(value), flush=True)

    def line(self, text: str = "") -> None:
        """Print a line of the result."""
        if not self.json:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Print a line about the way there."""
        if not self.json and not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning, also when quiet."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
        """Print a table: with colours on a terminal, in aligned columns otherwise. `right` names right-aligned ones."""
        if self.json:
            return
        if is_terminal(sys.stdout):
            _rich_table(columns, rows, right)
            return
        widths = [max(len(column), *(len(row[n]) for row in rows), 0) for n, column in enumerate(columns)]
        for row in (columns, *rows):
            cells = (
                cell.rjust(width) if columns[n] in right else cell.ljust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            print("  ".join(cells).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box  # noqa: PLC0415 - rich is slow to import, and a pipe has no use for it
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console = Console()
    # A row that is too long is the terminal's to break: a cell that is cut or folded cannot be read or copied. But
    # sentences in the last column go on below each other where their words have room.
    natural = console.measure(table, options=console.options.update(width=10_000)).maximum
    last = [row[-1] for row in rows] if rows else []
    room = console.width - (natural - max((len(cell) for cell in (columns[-1], *last)), default=0))
    if natural > console.width and room >= max((len(word) for cell in last for word in cell.split()), default=0) + 12:
        table.columns[-1].no_wrap = False
    else:
        console.width = max(console.width, natural)
    console.print(table)


_STYLES = {
    "ok": "green",
    "success": "green",
    "warn": "yellow",
    "partial": "yellow",
    "suspect": "yellow",
    "at_risk": "yellow",
    "awaiting_first": "cyan",
    "on_hold": "cyan",
    "running": "cyan",
    "fail": "bold red",
    "failed": "bold red",
    "breached": "bold red",
}


def is_terminal(stream: TextIO) -> bool:
    """Whether people look at it (and the terminal can do more than print)."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def report_error(message: str, advice: str, exit_code: int, *, as_json: bool = False) -> None:
    """Print an error: one line, and one of advice; as JSON on stderr when that was asked for."""
    if as_json:
        document = {"type": "error", "message": message, "advice": advice, "exit_code": exit_code}
        print(to_json(document), file=sys.stderr, flush=True)
        return
    for line in message.splitlines() or [""]:
        print(f"pra-agent: {printable_text(line)}", file=sys.stderr)
    if advice:
        print(f"  {printable_text(advice)}", file=sys.stderr)
    sys.stderr.flush()


def instant(value: datetime | None) -> str:
    """Show a time to people, in UTC, to the second."""
    return value.strftime("%Y-%m-%d %H:%M:%S") if value is not None else "-"


def age(seconds: float | None) -> str:
    """Show an age or a duration to people: the two largest units."""
    if seconds is None:
        return "-"
    rest = int(seconds)
    if rest < 0:
        return f"-{age(-seconds)}"
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def duration(seconds: float) -> str:
    """Show how long something took: tenths below ten seconds, the two largest units above."""
    return f"{seconds:.1f}s" if 0 <= seconds < 10 else age(seconds)


def count(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
