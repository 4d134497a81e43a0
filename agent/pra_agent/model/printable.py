"""Raw paths for people."""

from pra_agent.model.printability import is_printable


def printable(path: bytes) -> str:
    """Show a raw path on one line: control characters and bytes that are not UTF-8 are escaped."""
    text = path.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_show, text))


def _show(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char if is_printable(char) else char.encode("unicode_escape").decode("ascii")
