"""A run inside its child process: calls the operation, and reports line by line to the daemon.

Each line is one JSON object with a `type`: `progress`, `file_failed`, `notice` (`model.events`), `gauge` (name, job,
value, and `add` when it grows), `instant` (job, destination, instant, off_host), `seed` (a record of an earlier life),
and at the end `record` or `error` (kind, message, advice, exit_code), then `derived` (what opens the repository again
without a key derivation).
"""

import ctypes
import json
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

from pra_agent.clock import Clock, SystemClock
from pra_agent.daemon import child, records
from pra_agent.daemon.journal import Journal
from pra_agent.daemon.requests import RunRequest
from pra_agent.errors import Interrupted, PraError
from pra_agent.model.events import Event, Progress
from pra_agent.model.runs import RunRecord
from pra_agent.repository import derivations

#: Progress goes to the daemon at most so often, in seconds; a new stage always does.
_PROGRESS_EVERY = 0.25
_IONICE = {"none": 0, "best-effort": (2 << 13) | 7, "idle": 3 << 13}
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


@dataclass(frozen=True, slots=True)
class RunTask:
    """All that the child needs. `action` is a function `(Work) -> RunRecord` as `module:name`."""

    action: str
    run: RunRecord
    request: RunRequest
    config: object
    journal: Path
    nice: int = 0
    ionice: str = "none"
    log_json: bool = False
    context: Mapping[str, object] = field(default_factory=lambda: dict[str, object]())


class Work:
    """What an action gets: its run, the configuration, and the ways to tell and to be told."""

    def __init__(self, task: RunTask, channel: int, clock: Clock) -> None:
        self.task = task
        self.run = task.run
        self.request = task.request
        self.config = task.config
        self.clock = clock
        self.stop = threading.Event()
        self._channel = channel
        self._sending = threading.Lock()
        self._last = (-_PROGRESS_EVERY, "")
        self._journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        """The journal, opened in this process when first used."""
        if self._journal is None:
            self._journal = Journal(self.task.journal)
        return self._journal

    def report(self, event: Event) -> None:
        """Tell the daemon of an event; the `model.events.Reporter` of a run."""
        if isinstance(event, Progress):
            now = self.clock.monotonic()
            before, stage = self._last
            if now - before < _PROGRESS_EVERY and stage == event.stage:
                return
            self._last = (now, event.stage)
        self.send(asdict(event))

    def gauge(self, name: str, value: float | None, job: str = "", *, add: bool = False) -> None:
        """Leave a number for the exporter; `add` adds to what is there, None takes it away."""
        self.send({"type": "gauge", "name": name, "value": value, "job": job, "add": add})

    def instant(self, job: str, destination: str, instant: datetime, *, off_host: bool) -> None:
        """Tell that data of this instant is durable at a destination."""
        self.send(
            {
                "type": "instant",
                "job": job,
                "destination": destination,
                "instant": instant.isoformat(),
                "off_host": off_host,
            }
        )

    def seed(self, record: RunRecord) -> None:
        """Tell of a run that only its snapshot remembers."""
        self.send({"type": "seed", "record": records.to_json(record)})

    def send(self, message: Mapping[str, object]) -> None:
        """Send one line. The daemon always reads; when it is gone, so is this process."""
        data = memoryview(json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n")
        with self._sending:
            while data:
                data = data[os.write(self._channel, data) :]

    def close(self) -> None:
        """Give the journal back."""
        if self._journal is not None:
            self._journal.close()


def run(payload: object, descriptors: Sequence[int]) -> int:
    """Do a `RunTask`; the descriptor is the pipe to the daemon. Returns the exit status."""
    # Slow to import: a command that works directly has no use for it, and in the daemon's children it is there.
    import structlog  # noqa: PLC0415 - see above

    from pra_agent.daemon import log  # noqa: PLC0415 - see above

    task = cast("RunTask", payload)
    log.configure(json=task.log_json)
    structlog.contextvars.bind_contextvars(run=task.run.id, operation=task.run.operation.value)
    if task.run.job:
        structlog.contextvars.bind_contextvars(job=task.run.job)
    _be_nice(task.nice, task.ionice)
    work = Work(task, descriptors[0], SystemClock())

    def ask_to_stop(_number: int, _frame: object) -> None:
        if work.stop.is_set():
            raise Interrupted("the run was asked to stop twice")
        work.stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    try:
        action = cast("Callable[[Work], RunRecord]", child.resolve(task.action))
        record = action(work)
    except PraError as error:
        kind = type(error).__name__
        work.send(_error(kind, error.message, error.advice, error.exit_code))
        return error.exit_code
    except BaseException as error:  # noqa: BLE001  whatever it was, the daemon is told
        structlog.get_logger().exception("the run crashed")
        work.send(_error(type(error).__name__, f"{type(error).__name__}: {error}", "", 1))
        return 1
    else:
        work.send({"type": "record", "record": records.to_json(record)})
        return 0
    finally:
        derived = derivations.known()
        if derived:
            work.send({"type": "derived", "entries": {key.hex(): value.hex() for key, value in derived.items()}})
        work.close()


def _error(kind: str, message: str, advice: str, exit_code: int) -> dict[str, object]:
    return {"type": "error", "kind": kind, "message": message, "advice": advice, "exit_code": exit_code}


def _be_nice(nice: int, ionice: str) -> None:
    if nice:
        with suppress(PermissionError):  # the hardened unit allows no change; it gives the priority itself
            os.nice(nice)
    number = _SYS_IOPRIO_SET.get(os.uname().machine)
    if _IONICE.get(ionice) and number is not None:
        ioprio_who_process = 1
        ctypes.CDLL(None, use_errno=True).syscall(number, ioprio_who_process, 0, _IONICE[ionice])
