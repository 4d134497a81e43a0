"""Files of the repository that are one sealed document each: indexes and snapshots."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pra_agent.errors import DamagedError, StorageError
from pra_agent.repository.cache import FileCache
from pra_agent.repository.codec import Codec, content_id
from pra_agent.storage.backend import Backend, Handle, Kind


class SealedFiles:
    """Reads and writes documents; `cache` keeps their sealed bytes on this host."""

    def __init__(self, backend: Backend, codec: Codec, cache: FileCache | None) -> None:
        self._backend = backend
        self._codec = codec
        self._cache = cache

    def read(self, handle: Handle) -> bytes:
        """Give a document, proven by its name; `DamagedError` names the file."""
        try:
            return self._codec.unseal_unpacked(self._sealed(handle))
        except DamagedError as error:
            raise DamagedError(f"{handle.path}: {error.message}") from error

    def read_many(self, handles: Iterable[Handle]) -> Iterator[tuple[Handle, bytes | StorageError | DamagedError]]:
        """Read many in parallel, in their order; what fails is given as its error. A few are held at once."""
        workers = max(1, min(self._backend.connections, 8))
        waiting: deque[tuple[Handle, Future[bytes | StorageError | DamagedError]]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="read-files") as pool:
            try:
                for handle in handles:
                    waiting.append((handle, pool.submit(self._read_or_error, handle)))
                    if len(waiting) > workers:
                        first, future = waiting.popleft()
                        yield first, future.result()
                while waiting:
                    first, future = waiting.popleft()
                    yield first, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def write(self, kind: Kind, document: bytes) -> str:
        """Store a document durably; returns its hex name."""
        sealed = self._codec.seal_unpacked(document)
        handle = Handle(kind, content_id(sealed).hex())
        self._backend.put(handle, sealed)
        if self._cache:
            self._cache.put(handle, sealed)
        return handle.name

    def _read_or_error(self, handle: Handle) -> bytes | StorageError | DamagedError:
        try:
            return self.read(handle)
        except (StorageError, DamagedError) as error:
            return error

    def _sealed(self, handle: Handle) -> bytes:
        sealed = self._cache.get(handle) if self._cache else None
        if sealed is not None:
            return sealed
        sealed = self._backend.get(handle)
        if content_id(sealed).hex() != handle.name:
            raise DamagedError("the content does not match the name")
        if self._cache:
            self._cache.put(handle, sealed)
        return sealed
