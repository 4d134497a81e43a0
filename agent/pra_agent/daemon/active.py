"""A run from the moment that it is asked for until its record is in the journal."""

import asyncio
import json
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

from pra_agent.daemon import records
from pra_agent.daemon.processes import Child
from pra_agent.daemon.requests import MANNERS, Manner, RunRequest
from pra_agent.model.events import Event, FileFailed, Notice, Progress
from pra_agent.model.runs import Failure, Outcome, RunRecord

#: Gets each event of a run, at last its finished record.
Listener = Callable[[Event | RunRecord], None]

_STDERR_LINES = 40
_EVENTS: Mapping[str, type[Progress | FileFailed | Notice]] = {
    "progress": Progress,
    "file_failed": FileFailed,
    "notice": Notice,
}


@dataclass(slots=True, eq=False)
class ActiveRun:
    """A queued or running run; it belongs to the event loop's thread."""

    id: str
    request: RunRequest
    queued: datetime
    ended: "asyncio.Future[RunRecord]"
    record: RunRecord | None = None
    child: Child | None = None
    listeners: list[Listener] = field(default_factory=lambda: list[Listener]())
    stderr: deque[str] = field(default_factory=lambda: deque[str](maxlen=_STDERR_LINES))
    failures: list[Failure] = field(default_factory=lambda: list[Failure]())
    result: RunRecord | None = None
    error: Mapping[str, object] | None = None
    #: Why it was asked to stop, "" while it was not.
    stopping: str = ""
    #: It makes room for a backup, to be begun again later.
    gives_way: bool = False
    times_given_way: int = 0
    paused: bool = False

    @property
    def manner(self) -> Manner:
        """How its operation runs."""
        return MANNERS[self.request.operation]

    def tell(self, what: Event | RunRecord) -> None:
        """Let the listeners hear it."""
        for listener in list(self.listeners):
            listener(what)

    def hear(self, message: Mapping[str, object]) -> Event | None:
        """Take a line of the child that is an event or the result; gives the event, told already."""
        kind = cast("str", message.get("type"))
        if kind == "record":
            self.result = records.from_json(cast("Mapping[str, object]", message["record"]))
        elif kind == "error":
            self.error = message
        elif kind in _EVENTS:
            values = {key: value for key, value in message.items() if key != "type"}
            event = _EVENTS[kind](**values)  # type: ignore[arg-type]  # the child sent asdict() of that class
            if isinstance(event, FileFailed) and len(self.failures) < records.MAX_FAILURES:
                self.failures.append(Failure(event.path, event.reason))
            self.tell(event)
            return event
        return None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the child, if there is one."""
        if self.child is not None:
            self.child.signal(number, group=group)

    def pause(self) -> None:
        """Stop the clockwork of the run and of its workers."""
        self.paused = True
        self.signal(signal.SIGSTOP, group=True)

    def resume(self) -> None:
        """Let it go on."""
        self.paused = False
        self.signal(signal.SIGCONT, group=True)

    def outcome(self, finished: datetime, status: int) -> RunRecord:
        """The record of the ended run: what the child reported, or else how it ended. Status as in `Child.exited`."""
        begun = cast("RunRecord", self.record)
        if self.result is not None and self.result.outcome is not None:
            return replace(self.result, id=begun.id, started=begun.started, finished=self.result.finished or finished)
        outcome = Outcome.SKIPPED if self.gives_way else Outcome.FAILED
        failures = tuple(self.failures)
        return replace(
            begun,
            finished=finished,
            outcome=outcome,
            error=self._why(status),
            failures=failures,
            files_failed=len(failures),
            detail={**begun.detail, **self._detail()},
        )

    def _why(self, status: int) -> str:
        if self.error is not None:
            told = str(self.error.get("message") or "failed")
            stopped = self.stopping and self.error.get("kind") in {"Interrupted", "LockLost"}
            return self.stopping if stopped else told
        if self.stopping:
            return self.stopping
        how = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        last = "; ".join(line for line in self.stderr if line.strip())
        return f"the run's process {how} without a report" + (f": {last}" if last else "")

    def _detail(self) -> dict[str, object]:
        if self.error is None:
            return {}
        return {name: self.error[name] for name in ("kind", "advice", "exit_code") if self.error.get(name)}


def parse(line: bytes) -> Mapping[str, object] | None:
    """Read one line of a child; None when it is not one of ours."""
    try:
        message = cast("object", json.loads(line))
    except ValueError:
        return None
    return cast("Mapping[str, object]", message) if isinstance(message, dict) else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
