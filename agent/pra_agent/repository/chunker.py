"""Cutting streams into blobs by their content: FastCDC (Xia et al., USENIX ATC 2016, and TPDS 2020), keyed.

The gear table is diversified per repository, so that the lengths of chunks do not betray which known file they
come from. Cuts depend on the bytes and the key only, never on the sizes of reads.
"""

import warnings
from collections.abc import Callable, Iterator

from pra_agent.errors import PraError
from pra_agent.repository.codec import MasterKey

MIN_SIZE = 512 << 10
AVERAGE_SIZE = 1 << 20
MAX_SIZE = 8 << 20
_WINDOW = 4 << 20
_PURPOSE = b"chunker-v1"


class Chunker:
    """Cuts streams. One may be used for many streams, one after the other; after a fork as well."""

    min_size = MIN_SIZE

    def __init__(self, key: MasterKey) -> None:
        with warnings.catch_warnings():
            # The fallback warns; it is refused below with a sentence of ours.
            warnings.simplefilter("ignore")
            import pyfastcdc  # noqa: PLC0415 - only who cuts pays for it
        if pyfastcdc.FastCDC.__module__.split(".")[:2] != ["pyfastcdc", "cy"]:
            raise PraError("pyfastcdc has no compiled extension on this system", advice="Install a wheel of pyfastcdc.")
        # pyfastcdc shifts the seed left by one in 64 bits: 63 bits are all it can take.
        seed = int.from_bytes(key.derive(_PURPOSE)[:8], "big") >> 1
        self._cdc = pyfastcdc.FastCDC(
            AVERAGE_SIZE, min_size=MIN_SIZE, max_size=MAX_SIZE, normalized_chunking=1, seed=max(1, seed)
        )

    def chunks(self, read: Callable[[int], bytes]) -> Iterator[bytes | memoryview]:
        """Yield the chunks of a stream in order; `read(n)` gives at most n bytes, none at the end.

        At most `_WINDOW + MAX_SIZE` bytes are held. What is yielded stays valid; a stream of at most `min_size`
        bytes comes as one chunk, and as the very object that was read when one read gave it.
        """
        buffer, ended = _fill(read, b"", MIN_SIZE + 1)
        if ended:
            if buffer:
                yield buffer
            return
        while buffer or not ended:
            if not ended:
                # A window that holds a cut before its end holds the same cut when there is more behind it.
                buffer, ended = _fill(read, buffer, _WINDOW)
            view = memoryview(buffer)
            kept = 0
            for chunk in self._cdc.cut_buf(view):
                end = chunk.offset + chunk.length
                if end == len(view) and not ended and chunk.length < MAX_SIZE:
                    break
                kept = end
                yield chunk.data
            buffer = buffer[kept:]
            if not ended and len(buffer) >= _WINDOW:
                buffer, ended = _fill(read, buffer, MAX_SIZE)


def _fill(read: Callable[[int], bytes], start: bytes, wanted: int) -> tuple[bytes, bool]:
    """Read until `wanted` bytes are there or the stream ends; tell which."""
    pieces = [start] if start else []
    missing = wanted - len(start)
    while missing > 0:
        piece = read(missing)
        if not piece:
            return b"".join(pieces) if len(pieces) != 1 else pieces[0], True
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces) if len(pieces) != 1 else pieces[0], False
