"""A worker process: takes batches of files and pieces of streams, gives back ids and sealed blobs.

It is forked, so it has the index (copy on write) and the keys. It dies with its parent, keeps no descriptor that is
not its own but directories (entries are opened relative to them), and ends without any clean-up of the parent's.
"""

import gc
import os
import signal
import stat
import traceback
from typing import Any, NoReturn, Protocol

from pra_agent.archiver.channel import Arena, receive, send
from pra_agent.archiver.reading import Buffer, Chunker, FileReader
from pra_agent.kernel import die_with_parent

#: Blobs are announced when so many bytes wait, or with the result of a batch.
_ANNOUNCE = 2 << 20

READ = "read"
SEAL = "seal"
ERROR = "error"


class Sealed(Protocol):
    """What a sealer makes (`repository.pack.SealedBlob`)."""

    @property
    def stored(self) -> bytes: ...

    @property
    def compressed(self) -> bool: ...


class Tools(Protocol):
    """What a worker needs of the repository; usable after a fork."""

    chunker: Chunker

    def known(self, blob: bytes) -> bool:
        """Whether a data blob is stored already."""
        ...

    def seal(self, data: Buffer, blob: bytes) -> Sealed:
        """Compress and encrypt a data blob whose id is known."""
        ...


class Link:
    """The descriptors and memory that a worker and the archiver share. `piece` carries pieces of streams."""

    def __init__(self, arena: Arena, piece: Arena) -> None:
        self.arena = arena
        self.piece = piece
        self.task_read, self.task_write = os.pipe2(os.O_CLOEXEC)
        self.result_read, self.result_write = os.pipe2(os.O_CLOEXEC)

    def worker_fds(self) -> set[int]:
        """What the worker keeps."""
        return {self.task_read, self.result_write, self.arena.credits, self.piece.credits}


class Worker:
    """The worker's side of a link."""

    def __init__(self, link: Link, tools: Tools) -> None:
        self._link = link
        self._tools = tools
        self._reader = FileReader(tools.chunker, tools.known, self._put)
        self._blobs: list[tuple[bytes, int, bool, int, int]] = []
        self._taken = 0

    def run(self) -> None:
        """Work until the archiver closes the link."""
        while (message := receive(self._link.task_read)) is not None:
            kind, number, payload = message
            if kind == READ:
                result: Any = [self._reader.read(task) for task in payload]
                self._reader.close()
            else:
                result = self._seal_piece(payload)
            self._announce((number, result))

    def _seal_piece(self, length: int) -> bytes:
        with memoryview(self._link.piece.memory)[:length] as data:
            return self._reader.store(data)

    def _put(self, blob: bytes, data: Buffer) -> None:
        sealed = self._tools.seal(data, blob)
        offset, taken = self._link.arena.place(sealed.stored, self._announce)
        self._blobs.append((blob, len(data), sealed.compressed, offset, len(sealed.stored)))
        self._taken += taken
        if self._taken > _ANNOUNCE:
            self._announce()

    def _announce(self, done: tuple[int, Any] | None = None) -> None:
        """Tell of the blobs that are in the arena, and of a task that is done."""
        if self._blobs or done is not None:
            send(self._link.result_write, (self._blobs, self._taken, done))
            self._blobs = []
            self._taken = 0


def work(link: Link, tools: Tools, parent: int) -> NoReturn:
    """Be the worker process; never returns."""
    try:
        die_with_parent(parent, signal.SIGKILL)
        _detach(link.worker_fds())
        Worker(link, tools).run()
    except BaseException as error:  # noqa: BLE001 - the archiver is told, whatever it is
        _tell(link, error)
    finally:
        os._exit(0)


def _tell(link: Link, error: BaseException) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})"  # noqa: PTH119
    try:
        send(link.result_write, (ERROR, text, None))
    except OSError:
        return


def _detach(keep: set[int]) -> None:
    """Leave the parent's affairs: its signals, its garbage, its descriptors."""
    gc.disable()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # An interrupt at the terminal reaches the whole group; the parent decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - descriptors, not files
        fd = int(name)
        if fd > 2 and fd not in keep and not _is_directory(fd):
            _close(fd)


def _is_directory(fd: int) -> bool:
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:
        return True


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return
