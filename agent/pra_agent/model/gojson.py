"""JSON with the very bytes that Go's encoding/json writes: compact, in the order given, HTML characters escaped.

A blob's id is the hash of its bytes, so two writers share trees only if they agree on every byte.
"""

from collections.abc import Iterable

import orjson

#: Go writes this escape where a string is not UTF-8, and the bare character where it is really meant.
_LOST = b"\\ufffd"


def dumps(value: object) -> bytes:
    """Encode dicts (keys in their order), lists, strings, integers, booleans and None.

    Raises TypeError for anything else that JSON lacks. Floats are not promised: the format has none.
    """
    data = orjson.dumps(value)
    if b"&" in data or b"<" in data or b">" in data:
        data = data.replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


def lossy(raw: bytes) -> str | orjson.Fragment:
    """A value for `dumps` that is a Go string of any bytes: what is not UTF-8 becomes the escape of U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "surrogateescape")
        return orjson.Fragment(b'"' + b"".join(_pieces(text)) + b'"')


def _pieces(text: str) -> Iterable[bytes]:
    for char in text:
        yield _LOST if 0xDC80 <= ord(char) <= 0xDCFF else orjson.dumps(char)[1:-1]
