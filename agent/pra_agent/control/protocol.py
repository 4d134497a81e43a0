"""What goes over the socket beside plain JSON: errors, lists of blob handles, and batches of blobs.

An error is `{"error": line, "kind": class of errors.py, "exit_code": n, "advice": sentence}` with an HTTP status.

A list of handles is 33 bytes each, the type (`d` or `t`) and the raw id, as `application/octet-stream`; or JSON,
`[["data", "<hex>"], ...]`.

Blobs come as batches: the length of the batch (4 bytes, big-endian, without itself), then whole frames. A frame is its
type (1 byte), the id (32 bytes), the length of what follows (4 bytes, big-endian), and that many bytes: the plaintext
of a blob (`d`, `t`), an error as JSON (`x`), or nothing (`e`, the end). Exactly one `x` or `e` is the last frame; a
body without it was cut off.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

import orjson

from pra_agent import errors
from pra_agent.errors import DamagedError, PraError, UsageError
from pra_agent.model.ids import ID_BYTES, BlobHandle, BlobType

#: Largest body of a request that is not a list of handles, and of such a list (two million handles), in bytes.
MAX_BODY: Final = 64 * 1024
MAX_HANDLES: Final = 64 * 1024 * 1024
#: A batch is closed when it holds so many bytes; a larger blob has a batch of its own.
BATCH: Final = 1024 * 1024
#: The largest batch that a reader takes: a blob of 8 MiB and room for an oversized one of another tool.
MAX_BATCH: Final = 256 * 1024 * 1024
#: Seconds without use after which a restore session ends, and between two renewals of the client.
LEASE: Final = 60.0
RENEW: Final = 20.0
#: Seconds between two lines of a stream of events, when nothing else is to be told.
PING: Final = 10.0

HANDLES_TYPE: Final = "application/octet-stream"
BLOBS_TYPE: Final = "application/vnd.pra-agent.blobs"
EVENTS_TYPE: Final = "application/x-ndjson"
JSON_TYPE: Final = "application/json"

END: Final = b"e"
ERROR: Final = b"x"
FRAME: Final = struct.Struct(f">c{ID_BYTES}sI")
LENGTH: Final = struct.Struct(">I")
#: In the answer to a question for sizes: there is no such blob.
NO_SIZE: Final = 0xFFFFFFFF

_CODES: Final[Mapping[BlobType, bytes]] = {BlobType.DATA: b"d", BlobType.TREE: b"t"}
_TYPES: Final[Mapping[int, BlobType]] = {code[0]: kind for kind, code in _CODES.items()}
_HANDLE_BYTES: Final = 1 + ID_BYTES


class Frame(NamedTuple):
    """One frame: a blob, or the end (`handle` is None; `data` is empty, or the JSON of an error)."""

    handle: BlobHandle | None
    data: bytes


# ---------------------------------------------------------------- errors
def _kinds() -> dict[str, type[PraError]]:
    return {
        name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, PraError)
    }


_KINDS: Final = _kinds()


def error_json(error: PraError) -> dict[str, object]:
    """Put an error into the form that the client turns back."""
    return {
        "error": error.message,
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "advice": error.advice,
    }


def error_of(data: object) -> PraError:
    """Turn that form back into the error; what is not of that form becomes a `PraError` that says so."""
    if not isinstance(data, dict):
        return PraError(f"the daemon gave an answer that is not understood: {str(data)[:200]}")
    fields = cast("dict[str, object]", data)
    kind = _KINDS.get(str(fields.get("kind")), PraError)
    error = kind(str(fields.get("error", "unknown error")))
    error.advice = str(fields.get("advice", "")) or kind.advice
    code = fields.get("exit_code")
    if isinstance(code, int):
        error.exit_code = code
    return error


# ---------------------------------------------------------------- handles
def pack_handles(handles: Iterable[BlobHandle]) -> bytes:
    """Write a list of handles, 33 bytes each."""
    return b"".join(_CODES[handle.type] + handle.id for handle in handles)


def parse_handles(data: bytes, *, json: bool = False, only: BlobType | None = None) -> list[BlobHandle]:
    """Read a list of handles, of that type `only` when one is given; raises `UsageError` for any other text."""
    handles = _from_json(data, only) if json else _from_binary(data)
    if only is not None and any(handle.type is not only for handle in handles):
        raise UsageError(f"only blobs of type {only.value} can be asked for here")
    return handles


def _from_binary(data: bytes) -> list[BlobHandle]:
    if len(data) % _HANDLE_BYTES:
        raise UsageError(f"a list of handles is {_HANDLE_BYTES} bytes each, not {len(data)} bytes in all")
    try:
        return [
            BlobHandle(_TYPES[data[at]], data[at + 1 : at + _HANDLE_BYTES]) for at in range(0, len(data), _HANDLE_BYTES)
        ]
    except KeyError as error:
        raise UsageError("a handle begins with d (data) or t (tree)") from error


def _from_json(data: bytes, only: BlobType | None) -> list[BlobHandle]:
    try:
        items = orjson.loads(data)
        pairs = cast("list[list[str]]", [[only.value, item] for item in items] if only is not None else items)
        handles = [BlobHandle(BlobType(kind), bytes.fromhex(text)) for kind, text in pairs]
    except (ValueError, TypeError) as error:
        raise UsageError('a list of handles is [["data" or "tree", "<64 hex digits>"], ...]') from error
    if any(len(handle.id) != ID_BYTES for handle in handles):
        raise UsageError(f"a blob's id is {ID_BYTES * 2} hex digits")
    return handles


# ---------------------------------------------------------------- sizes
def pack_sizes(handles: Sequence[BlobHandle], sizes: Mapping[BlobHandle, int]) -> bytes:
    """Write the sizes in the order of the question, 4 bytes each."""
    return struct.pack(f">{len(handles)}I", *(sizes.get(handle, NO_SIZE) for handle in handles))


def parse_sizes(handles: Sequence[BlobHandle], data: bytes) -> dict[BlobHandle, int]:
    """Read the sizes of these handles; missing blobs are left out."""
    if len(data) != LENGTH.size * len(handles):
        raise DamagedError(f"asked for {len(handles)} sizes, got {len(data)} bytes")
    values = struct.unpack(f">{len(handles)}I", data)
    return {handle: size for handle, size in zip(handles, values, strict=True) if size != NO_SIZE}


# ---------------------------------------------------------------- frames
def frame_header(handle: BlobHandle, length: int) -> bytes:
    """Write the head of a blob's frame."""
    return FRAME.pack(_CODES[handle.type], handle.id, length)


def last_frame(error: PraError | None = None) -> bytes:
    """Write the frame that ends a body, with the error that ended it early."""
    if error is None:
        return FRAME.pack(END, bytes(ID_BYTES), 0)
    text = orjson.dumps(error_json(error))
    return FRAME.pack(ERROR, bytes(ID_BYTES), len(text)) + text


def parse_batch(batch: memoryview) -> Iterable[Frame]:
    """Take a batch apart; raises `DamagedError` where it is none. Each frame's data is a copy."""
    at = 0
    while at < len(batch):
        if len(batch) - at < FRAME.size:
            raise DamagedError("a frame from the daemon is cut off")
        code, raw_id, length = FRAME.unpack_from(batch, at)
        at += FRAME.size
        data = bytes(batch[at : at + length])
        at += length
        if len(data) != length:
            raise DamagedError("a frame from the daemon is cut off")
        yield Frame(_handle(code, raw_id), data)


def _handle(code: bytes, raw_id: bytes) -> BlobHandle | None:
    if code in (END, ERROR):
        return None
    try:
        return BlobHandle(_TYPES[code[0]], raw_id)
    except KeyError as error:
        raise DamagedError(f"a frame from the daemon has the unknown type {code!r}") from error
