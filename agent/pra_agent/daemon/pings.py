"""Pings: a POST to a dead man's switch when a backup begins and when it ends. They never hold a run up or fail it."""

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

import structlog

from pra_agent import __version__
from pra_agent.config.pings import PingSettings
from pra_agent.model.runs import Operation, Outcome, RunRecord

#: Seconds before each further try, and for one try.
PAUSES: Sequence[float] = (2.0, 10.0, 60.0)
_TIMEOUT = 10.0
_LONGEST_BODY = 10_000

_log = structlog.get_logger()


class Pings:
    """Sends pings in the background, in order of their runs. Belongs to the event loop's thread."""

    def __init__(self, settings_of: Callable[[str], PingSettings | None]) -> None:
        self._settings_of = settings_of
        self._tasks: set[asyncio.Task[None]] = set()

    def started(self, record: RunRecord) -> None:
        """A run begins."""
        settings = self._settings_of(record.job)
        if settings is not None and record.operation is Operation.BACKUP:
            self._send(settings.at_start, record, f"run {record.id} of {record.job} begins")

    def ended(self, record: RunRecord, *, good: bool) -> None:
        """A run has ended; it is good when its data counts."""
        settings = self._settings_of(record.job)
        if settings is None or record.operation is not Operation.BACKUP or record.outcome is Outcome.SKIPPED:
            return
        lines = [f"run {record.id} of {record.job}: {record.outcome}"]
        lines += [f"{record.files} files, {record.bytes_added} bytes added, {record.files_failed} files failed"]
        lines += [record.error] if record.error else []
        self._send(settings.at_success if good else settings.at_failure, record, "\n".join(lines))

    async def close(self, patience: float = 5.0) -> None:
        """Give what is under way a little time, then leave it."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=patience)
            for task in late:
                task.cancel()

    def _send(self, address: str | None, record: RunRecord, body: str) -> None:
        if address is not None:
            task = asyncio.get_running_loop().create_task(_ping(address, record.job, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _ping(address: str, job: str, body: str) -> None:
    trouble = ""
    for pause in (0.0, *PAUSES):
        await asyncio.sleep(pause)
        trouble = await asyncio.to_thread(_post, address, body)
        if not trouble:
            return
    # The address itself is a secret of a kind: whoever knows it can say that all is well.
    _log.warning("a ping was not taken", job=job, reason=trouble)


def _post(address: str, body: str) -> str:
    """Send one ping; returns what went wrong, "" for nothing."""
    data = body.encode()[:_LONGEST_BODY]
    headers = {"User-Agent": f"pra-agent/{__version__}", "Content-Type": "text/plain; charset=utf-8"}
    request = urllib.request.Request(address, data=data, headers=headers, method="POST")  # noqa: S310  checked: http(s)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310  ditto
            answer.read(1024)
    except urllib.error.HTTPError as error:
        error.close()
        return f"status {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return type(error).__name__
    return ""
