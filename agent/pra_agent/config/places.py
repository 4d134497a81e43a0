"""YAML files to plain values, with the file and line of every key; several files merged into one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

KeyPath = tuple[str | int, ...]

#: Lists of these sections are joined when several files have them.
_JOINED = ("copies", "checks")
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file; line 0 is the file as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration, as one line."""

    place: Place
    key: str
    what: str
    suggestion: str = ""
    warning: bool = False

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        hint = f"; {self.suggestion}" if self.suggestion else ""
        return f"{self.place}: {key}{self.what}{hint}"


def dotted(path: KeyPath) -> str:
    """Show a key's path as `jobs.app-data.source.paths[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(slots=True)
class Document:
    """Plain values and where each key was written. `files` are all that were read, the first one the main one."""

    data: dict[str, object] = field(default_factory=lambda: dict[str, object]())
    places: dict[KeyPath, Place] = field(default_factory=lambda: dict[KeyPath, Place]())
    files: list[Path] = field(default_factory=lambda: list[Path]())

    def place(self, path: KeyPath) -> Place:
        """Where a key is; the nearest one above it when it was not written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(str(self.files[0]) if self.files else "")


def read_document(path: Path, problems: list[Problem]) -> Document:
    """Read one file. What is wrong with it is added to `problems`; OSError is passed on."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    document = Document(files=[path], places={(): Place(str(path))})
    if len(raw) > MAX_BYTES:
        problems.append(Problem(Place(str(path)), "", f"larger than {MAX_BYTES // 1024**2} MiB"))
        return document
    yaml = YAML(typ="rt", pure=True)
    try:
        loaded: object = yaml.load(raw)  # pyright: ignore[reportUnknownMemberType] - ruamel.yaml has no types here
    except MarkedYAMLError as error:
        problems.append(_syntax(str(path), error))
        return document
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        problems.append(Problem(Place(str(path)), "", f"no valid YAML: {str(error).splitlines()[0]}"))
        return document
    if loaded is None:
        return document
    if not isinstance(loaded, Mapping):
        problems.append(Problem(Place(str(path), 1), "", "not a mapping of keys to values", "start with node: NAME"))
        return document
    document.data = cast("dict[str, object]", _plain(cast("object", loaded), (), document))
    return document


def _syntax(file: str, error: object) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    text = str(getattr(error, "problem", None) or getattr(error, "context", None) or "").partition("\n")[0]
    place = Place(file, int(getattr(mark, "line", -1)) + 1)
    return Problem(place, "", f"no valid YAML: {text}", "check indentation, quotes and colons")


def _plain(value: object, path: KeyPath, document: Document) -> object:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        result: dict[str, object] = {}
        for key, item in mapping.items():
            name = str(key)
            below = (*path, name)
            document.places[below] = _line(cast("object", value), "key", key, document.place(path))
            result[name] = _plain(item, below, document)
        return result
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        items: list[object] = []
        for n, item in enumerate(cast("Sequence[object]", value)):
            document.places[*path, n] = _line(cast("object", value), "item", n, document.place(path))
            items.append(_plain(item, (*path, n), document))
        return items
    return _scalar(value)


def _scalar(value: object) -> object:
    """Strip ruamel's subclasses, which remember how a scalar was written."""
    if isinstance(value, (bool, type(None))):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)  # dates and the like: nothing here takes one


def _line(container: object, kind: str, key: object, otherwise: Place) -> Place:
    try:
        line, _ = getattr(getattr(container, "lc"), kind)(key)  # noqa: B009 - ruamel's own attribute, untyped
    except (AttributeError, KeyError, TypeError, IndexError):
        return otherwise  # merged in with <<
    return Place(otherwise.file, int(line) + 1)


def merge(documents: Iterable[Document], problems: list[Problem]) -> Document:
    """Join files: sections that are mappings key by key, lists of copies and checks one after another.

    A key (a job, a setting) that two files define is a problem that names both places.
    """
    merged = Document()
    for document in documents:
        merged.files.extend(document.files)
        merged.places.setdefault((), document.place(()))
        for section, value in document.data.items():
            _merge_section(merged, document, section, value, problems)
    return merged


def _merge_section(merged: Document, document: Document, section: str, value: object, problems: list[Problem]) -> None:
    present = merged.data.get(section)
    if section not in merged.data:
        merged.data[section] = value
        _adopt(merged, document, (section,))
    elif isinstance(present, dict) and isinstance(value, dict):
        known, added = cast("dict[str, object]", present), cast("dict[str, object]", value)
        for key, item in added.items():
            if key in known:
                problems.append(_twice(merged, document, (section, key)))
            else:
                known[key] = item
                _adopt(merged, document, (section, key))
    elif section in _JOINED and isinstance(present, list) and isinstance(value, list):
        joined = cast("list[object]", present)
        _adopt(merged, document, (section,), shift=len(joined))
        joined.extend(cast("list[object]", value))
    else:
        problems.append(_twice(merged, document, (section,)))


def _twice(merged: Document, document: Document, path: KeyPath) -> Problem:
    what = "this job is" if path[0] == "jobs" and len(path) == 2 else "this is"
    return Problem(
        document.place(path), dotted(path), f"{what} defined already at {merged.place(path)}", "remove one of the two"
    )


def _adopt(merged: Document, document: Document, path: KeyPath, shift: int = 0) -> None:
    depth = len(path)
    for key, place in document.places.items():
        if key[:depth] == path and (not shift or len(key) > depth):
            index = key[depth] if shift else None
            moved = (*path, index + shift, *key[depth + 1 :]) if isinstance(index, int) else key
            merged.places[moved] = place
