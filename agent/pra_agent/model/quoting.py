r"""Names as restic stores them: Go's strconv.Quote without the outer quotes.

Source: Go's strconv documentation. Bytes that are not UTF-8 become `\xNN`, and so does every control character that
has no short escape; other characters that are not printable become `\uNNNN` or `\UNNNNNNNN`.
"""

import re

from pra_agent.model.printability import is_printable

_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_SHORT = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_UNSHORT = {ord(text[1]): bytes([code]) for code, text in _SHORT.items()}
_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv\"\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))", re.DOTALL
)
_FORBIDDEN = re.compile(r'(?:^|[^\\])(?:\\\\)*"|\n')


def go_quote(name: bytes) -> str:
    """Quote raw bytes; `go_unquote` is the way back."""
    if _PLAIN.fullmatch(name):
        return name.decode("ascii")
    return "".join(map(_quote_char, name.decode("utf-8", "surrogateescape")))


def _quote_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code in _SHORT:
        return _SHORT[code]
    if is_printable(char):
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def go_unquote(text: str) -> bytes:
    """Turn a quoted name into raw bytes.

    Raises ValueError for what Go's strconv.Unquote refuses: an unknown or unfinished escape, a bare quote or newline.
    """
    if "\\" not in text and '"' not in text and "\n" not in text:
        return text.encode()
    if _FORBIDDEN.search(text):
        raise ValueError(f"not a quoted name: {text!r}")
    return _ESCAPE.sub(_unescape, text.encode())


def _unescape(match: re.Match[bytes]) -> bytes:
    short, byte, four, eight, octal, _bad = match.groups()
    if short is not None:
        return _UNSHORT[short[0]]
    if byte is not None:
        return bytes([int(byte, 16)])
    if four is not None or eight is not None:
        code = int(four or eight, 16)
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise ValueError(f"not a character: {match.group()!r}")
        return chr(code).encode()
    if octal is not None and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    raise ValueError(f"not an escape: {match.group()!r}")
