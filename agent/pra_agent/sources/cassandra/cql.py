"""CQL as far as a restore must understand it: words, names, strings; statements split and given other names.

Only what the node itself has described is read. Names inside strings, comments and function bodies are left alone.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|//[^\n]*|/\*.*?\*/)
      | (?P<body>\$\$.*?\$\$)
      | (?P<string>'(?:[^']|'')*')
      | (?P<name>"(?:[^"]|"")+")
      | (?P<uuid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})
      | (?P<word>[A-Za-z_]\w*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_KINDS = {"keyspace", "table", "type", "index", "view", "function", "aggregate"}


def quoted(name: str) -> str:
    """Quote a name for CQL."""
    return '"' + name.replace('"', '""') + '"'


def bare(name: str) -> str:
    """A name as it is, of one that may be quoted."""
    return name[1:-1].replace('""', '"') if name.startswith('"') and name.endswith('"') and len(name) > 2 else name


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement as it is written."""

    kind: str
    text: str

    @property
    def name(self) -> str | None:
        """The name that it stands for: as written within quotes, in small letters without; None for no name."""
        if self.kind == "name":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else None


@dataclass(frozen=True, slots=True)
class Renaming:
    """Another name for a keyspace and, within it, for one table."""

    keyspace: str
    as_keyspace: str
    table: str = ""
    as_table: str = ""

    @property
    def changes(self) -> bool:
        """Whether anything gets another name."""
        return self.keyspace != self.as_keyspace or self.table != self.as_table

    def of(self, table: str) -> str:
        """A table's new name."""
        return self.as_table if table == self.table and self.as_table else table


def tokens(text: str) -> list[Token]:
    """Take text apart; nothing is lost."""
    return [Token(str(match.lastgroup), match.group()) for match in _TOKEN.finditer(text)]


def statements(text: str) -> list[list[Token]]:
    """Split text at its semicolons."""
    found: list[list[Token]] = [[]]
    for token in tokens(text):
        if token.text == ";" and token.kind == "other":
            found.append([])
        else:
            found[-1].append(token)
    return [each for each in found if any(token.kind != "space" for token in each)]


def written(pieces: Sequence[Token]) -> str:
    """Put tokens together again."""
    return "".join(token.text for token in pieces).strip()


def if_not_exists(pieces: Sequence[Token]) -> list[Token]:
    """Make a CREATE statement harmless where the thing exists; others are left as they are."""
    words = [(at, token.text.lower()) for at, token in enumerate(pieces) if token.kind == "word"]
    if not words or words[0][1] != "create":
        return list(pieces)
    at = next(at for at, word in words if word in _KINDS)
    following = next((word for place, word in words if place > at), "")
    extra = [] if following == "if" else [Token("space", " IF NOT EXISTS")]
    return [*pieces[: at + 1], *extra, *pieces[at + 1 :]]


def renamed(pieces: Sequence[Token], names: Renaming) -> list[Token]:
    """Give the keyspace (and the table) of a statement another name; the id of a table becomes another one, too."""
    if not names.changes:
        return list(pieces)
    result = list(pieces)
    solid = [at for at, token in enumerate(result) if token.kind != "space"]
    for here, after in pairwise(solid):
        if result[here].name == names.keyspace and result[after].text == ".":
            result[here] = Token("name", quoted(names.as_keyspace))
            place = next((at for at in solid if at > after), None)
            if place is not None and names.table and result[place].name == names.table:
                result[place] = Token("name", quoted(names.as_table))
    words = [result[at].text.lower() for at in solid[:4]]
    if "index" in words[1:3] and names.table:
        # Names of indexes are a keyspace's own, so the copy's get the copy's name behind them.
        place = solid[words.index("index") + 1]
        result[place] = Token("name", quoted(f"{result[place].name}_{names.as_table}"))
    if len(solid) > 2 and result[solid[1]].text.lower() == "keyspace":
        result[solid[2]] = Token("name", quoted(names.as_keyspace))
    if len(solid) > 2 and result[solid[1]].text.lower() in {"table", "materialized"}:
        for at, token in enumerate(result):
            if token.kind == "uuid":
                # The same on each node, so that nodes that make it at the same time make one table.
                other = uuid.uuid5(uuid.UUID(token.text), f"{names.as_keyspace}.{names.as_table}")
                result[at] = Token("uuid", str(other))
                break
    return result


def indexed(text: str) -> str:
    """The table that a CREATE INDEX statement is about."""
    solid = [token for token in tokens(text) if token.kind != "space"]
    on = next((at for at, token in enumerate(solid) if token.kind == "word" and token.text.lower() == "on"), None)
    if on is None or len(solid) < on + 4:
        return ""
    return (solid[on + 3] if solid[on + 2].text == "." else solid[on + 1]).name or ""
