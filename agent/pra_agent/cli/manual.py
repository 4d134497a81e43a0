"""Writes the manual pages from the verbs: `python -m pra_agent.cli.manual DIRECTORY`.

`pra-agent(1)` has the overview, `pra-agent-VERB(1)` each verb. The same program and the same SOURCE_DATE_EPOCH give the
same bytes.
"""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from pra_agent import __version__
from pra_agent.cli.app import build
from pra_agent.cli.reference import is_option, metavar, names
from pra_agent.cli.verb_table import OPTIONS, PROGRAM, VERBS
from pra_agent.errors import UsageError

_INTRO = """Keeps this host recoverable: files, Docker volumes, databases, Cassandra and Elasticsearch, encrypted and
deduplicated, in restic's repository format.

Verbs ask the daemon through its socket; with --direct they open the repository themselves. Options may stand on either
side of the verb."""

_CODES = (
    ("0", "success"),
    ("1", "failed"),
    ("2", "the command line or the configuration is wrong"),
    ("3", "partial: files are missing from the snapshot; or it is suspect, far smaller than usual"),
    ("10", "no repository there"),
    ("11", "the repository is locked"),
    ("12", "the password opens no key slot"),
    ("130", "interrupted"),
)

_FILES = (
    ("/etc/pra-agent/config.yaml", "The configuration, and conf.d/*.yaml beside it."),
    ("/run/pra-agent/control.sock", "The daemon's socket."),
    ("/var/lib/pra-agent", "The daemon's journal and cache."),
)


def pages(date: datetime) -> Mapping[str, str]:
    """Every page's file name and text, dated so."""
    made = {f"{PROGRAM}.1": "\n".join(_overview(date)) + "\n"}
    for name, verb in VERBS.items():
        # What typer makes has types of its own that it keeps to itself.
        whole: Any = typer.main.get_command(build(name))
        lines = _head(f"{PROGRAM}-{name}", verb.help, date)
        made[f"{PROGRAM}-{name}.1"] = "\n".join([*lines, *_verb(name, whole.commands[name]), *_see_also()]) + "\n"
    return made


def write(directory: Path) -> None:
    """Write all pages into the directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    date = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    for name, text in pages(date).items():
        (directory / name).write_text(text, encoding="utf-8")


def _overview(date: datetime) -> Iterator[str]:
    yield from _head(PROGRAM, "back this host up, and restore it", date)
    yield from (".SH SYNOPSIS", f".B {_text(PROGRAM)}", r"[\fIOPTION\fR]... \fIVERB\fR [\fIARGUMENT\fR]...")
    yield from (".SH DESCRIPTION", *_paragraphs(_INTRO))
    panels: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
        panels.setdefault(verb.panel, []).append(name)
    yield ".SH VERBS"
    for panel, listed in panels.items():
        yield f".SS {_text(panel)}"
        for name in listed:
            yield from _tagged(rf"\fB{_text(PROGRAM)}\-{_text(name)}\fR(1)", VERBS[name].help)
    yield ".SH OPTIONS"
    for option, meaning in OPTIONS:
        yield from _tagged(rf"\fB{_text(option)}\fR", meaning)
    yield ".SH EXIT STATUS"
    for code, meaning in _CODES:
        yield from _tagged(code, meaning)
    yield ".SH FILES"
    for path, meaning in _FILES:
        yield from _tagged(rf"\fI{_text(path)}\fR", meaning)
    yield from (".SH SEE ALSO", r".BR restic (1)")


def _head(page: str, what: str, date: datetime) -> list[str]:
    return [
        f'.TH {_text(page.upper())} 1 {date:%Y-%m-%d} "{PROGRAM} {__version__}" "{PROGRAM}"',
        ".nh",
        ".ad l",
        ".SH NAME",
        rf"{_text(page)} \- {_text(what.rstrip('.'))}",
    ]


def _verb(path: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - typer's own types
    below: dict[str, Any] = getattr(command, "commands", {})
    words = [rf"\fI{_text(metavar(one))}\fR" for one in command.params if not below and not is_option(one)]
    options = [one for one in command.params if is_option(one) and one.name != "help"]
    synopsis = " ".join([*([r"[\fIOPTION\fR]..."] if options else []), *(words or ([r"\fIVERB\fR"] if below else []))])
    yield from (".SH SYNOPSIS", f".B {_text(f'{PROGRAM} {path}')}", *([synopsis] if synopsis else []))
    yield from _body(command, options, ".SH")
    for name, one in below.items():
        yield f".SH {_text(f'{path} {name}'.upper())}"
        yield from _body(one, [p for p in one.params if is_option(p) and p.name != "help"], ".SS")


def _body(command: Any, options: list[Any], level: str) -> Iterator[str]:  # noqa: ANN401 - typer's own types
    if level == ".SH":
        yield ".SH DESCRIPTION"
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    if options:
        yield f"{level} {'OPTIONS' if level == '.SH' else 'Options'}"
    for one in options:
        yield from _tagged(rf"\fB{_text(names(one).replace('`', ''))}\fR", one.help or "")


def _see_also() -> tuple[str, ...]:
    return (".SH SEE ALSO", rf".BR {_text(PROGRAM)} (1)")


def _tagged(tag: str, meaning: str) -> tuple[str, str, str]:
    return (".TP", tag, _text(meaning))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.replace("\b", ""))):
        if number:
            yield ".PP"
        yield from (_text(line.strip()) for line in paragraph.splitlines() if line.strip())


def _text(text: str) -> str:
    """As roff takes it literally."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise UsageError("one directory is wanted")
    write(Path(sys.argv[1]))
