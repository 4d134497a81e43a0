"""A run's events on their way from any thread to a client: bounded, the newest progress only."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from pra_agent.control.protocol import PING
from pra_agent.control.wire import event_line
from pra_agent.model.events import Event, Progress
from pra_agent.model.runs import JournalReader, RunRecord

#: Lines (failed files, notices) kept for a client that is slower than the run; older ones are dropped.
_KEPT: Final = 10_000
#: Seconds between two writes: progress comes often, eyes are slow.
_PACE: Final = 0.1
_PING_LINE: Final = b'{"type":"ping"}\n'


class EventStream:
    """A `RunListener` whose other side is lines of NDJSON on the loop that it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._mutex = threading.Lock()
        self._lines: deque[Event] = deque(maxlen=_KEPT)
        self._progress: Progress | None = None
        self._record: RunRecord | None = None
        self._woken = False

    def __call__(self, event: Event | RunRecord) -> None:
        with self._mutex:
            if isinstance(event, RunRecord):
                self._record = event
            elif isinstance(event, Progress):
                self._progress = event
            else:
                self._lines.append(event)
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:
            # The loop is closed: the server has stopped, and the run goes on without a listener.
            return

    async def lines(self, run_id: str, journal: JournalReader) -> AsyncIterator[bytes]:
        """Yield what there is, several lines at once, and a ping now and then; at last the run's record."""
        while True:
            try:
                async with asyncio.timeout(PING):
                    await self._wake.wait()
            except TimeoutError:
                yield _PING_LINE
                await self._look(run_id, journal)
                continue
            data, ended = self._take()
            yield data
            if ended:
                return
            await asyncio.sleep(_PACE)

    def _take(self) -> tuple[bytes, bool]:
        with self._mutex:
            events: list[Event | RunRecord] = [*self._lines]
            if self._progress is not None:
                events.append(self._progress)
            if self._record is not None:
                events.append(self._record)
            self._lines.clear()
            self._progress = None
            self._woken = False
            self._wake.clear()
        return b"".join(map(event_line, events)), self._record is not None

    async def _look(self, run_id: str, journal: JournalReader) -> None:
        """Ask the journal as well, so that a lost last event does not keep a client for ever."""
        record = await asyncio.to_thread(journal.run, run_id)
        if record is not None and record.finished is not None:
            self(record)
