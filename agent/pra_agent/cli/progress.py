"""Shows how far a run is: a bar with rate and ETA on a terminal, a line now and then elsewhere, JSON events on request.

The reporter may be called from any thread, often; what it is told last wins.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Protocol

from pra_agent.cli.output import Output, age, is_terminal, printable_text, to_json
from pra_agent.clock import Clock, SystemClock
from pra_agent.model.events import Event, FileFailed, Notice, Progress, Reporter
from pra_agent.units import human_size

#: Seconds between two lines where there is no terminal, and between two JSON progress events.
LINE_EVERY = 10.0
JSON_EVERY = 1.0
#: Files that failed are all in the result; so many are told while it runs.
FAILURES_SHOWN = 20


@dataclass(slots=True)
class Pace:
    """Rate and time left of a stage, from its own start."""

    clock: Clock
    stage: str = ""
    started: float = 0.0
    bytes_before: int = 0

    def measure(self, event: Progress) -> tuple[float, float | None]:
        """Bytes a second since the stage began, and the seconds that are left; None while nobody can know."""
        now = self.clock.monotonic()
        if event.stage != self.stage:
            self.stage, self.started, self.bytes_before = event.stage, now, event.bytes_done
        elapsed = now - self.started
        rate = (event.bytes_done - self.bytes_before) / elapsed if elapsed > 0 else 0.0
        left = event.bytes_total - event.bytes_done
        return rate, left / rate if rate > 0 and event.bytes_total and left >= 0 else None


def describe(event: Progress, pace: Pace) -> str:
    """One line of progress."""
    rate, left = pace.measure(event)
    parts = [event.stage]
    if event.files_done or event.files_total:
        total = f"/{event.files_total:,}" if event.files_total else ""
        parts.append(f"{event.files_done:,}{total} files")
    if event.bytes_done or event.bytes_total:
        total = f" of {human_size(event.bytes_total)}" if event.bytes_total else ""
        share = f" ({event.bytes_done / event.bytes_total:.0%})" if event.bytes_total else ""
        parts.append(f"{human_size(event.bytes_done)}{total}{share}")
    if rate > 0:
        parts.append(f"{human_size(rate)}/s")
    if left is not None:
        parts.append(f"ETA {age(left)}")
    return "  ".join(parts)


class View(Protocol):
    """What shows progress."""

    def progress(self, event: Progress) -> None: ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Lines:
    clock: Clock
    pace: Pace
    last: float = float("-inf")
    stage: str = ""

    def progress(self, event: Progress) -> None:
        now = self.clock.monotonic()
        if event.stage == self.stage and now - self.last < LINE_EVERY:
            return
        self.last, self.stage = now, event.stage
        self.message(describe(event, self.pace))

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        return


class _Bar:
    """A bar of rich, on stderr, gone when the run has ended."""

    def __init__(self, clock: Clock) -> None:
        from rich.console import Console  # noqa: PLC0415 - slow to import, and only of use on a terminal
        from rich.progress import BarColumn, SpinnerColumn, TextColumn  # noqa: PLC0415 - as above
        from rich.progress import Progress as Bars  # noqa: PLC0415 - as above

        self._pace = Pace(clock)
        self._bars = Bars(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bars.add_task("starting", total=None)
        self._bars.start()

    def progress(self, event: Progress) -> None:
        current = printable_text(event.current)
        room = max(self._bars.console.width - 100, 20)
        tail = f"  {current if len(current) <= room else '...' + current[-room + 3 :]}" if current else ""
        self._bars.update(
            self._task,
            description=describe(event, self._pace) + tail,
            completed=event.bytes_done,
            total=event.bytes_total or None,
        )

    def message(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._bars.stop()


@dataclass(slots=True)
class Watcher:
    """Receives events and gives them to a view. `view` None: errors and warnings only."""

    output: Output
    clock: Clock
    view: View | None
    failures: int = 0
    _last_json: float = float("-inf")
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self.output.json:
                self._json(event)
            elif isinstance(event, Progress):
                if self.view is not None:
                    self.view.progress(event)
            elif isinstance(event, FileFailed):
                self._failure(event)
            else:
                self._notice(event)

    def _json(self, event: Event) -> None:
        if isinstance(event, Progress):
            now = self.clock.monotonic()
            if now - self._last_json < JSON_EVERY:
                return
            self._last_json = now
        print(to_json(asdict(event)), flush=True)

    def _failure(self, event: FileFailed) -> None:
        self.failures += 1
        if self.failures <= FAILURES_SHOWN:
            self._say(f"failed: {printable_text(event.path)}: {event.reason}")
        elif self.failures == FAILURES_SHOWN + 1:
            self._say("failed: more files; all of them are in the run's record")

    def _notice(self, event: Notice) -> None:
        if event.level == "warning":
            self._say(f"warning: {event.message}")
        elif self.view is not None:
            self._say(event.message)

    def _say(self, text: str) -> None:
        if self.view is not None:
            self.view.message(text)
        else:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def showing(output: Output, clock: Clock | None = None) -> Generator[Reporter]:
    """Show a run's events while the context is open."""
    ticking = clock or SystemClock()
    view: View | None = None
    if not output.json and not output.quiet:
        view = _Bar(ticking) if is_terminal(sys.stderr) else _Lines(ticking, Pace(ticking))
    try:
        yield Watcher(output, ticking, view)
    finally:
        if view is not None:
            view.close()
