"""observe: look at repositories with nothing but the right to list them."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from pra_agent.cli.directly import stoppable
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, instant
from pra_agent.clock import SystemClock
from pra_agent.config.observer import OBSERVER_PATH, ObserverSettings, WatchedRepository, load_observer
from pra_agent.exporter.observed import ObservedBook, serving, write_textfile
from pra_agent.operations.observe import ALWAYS, Observation, Watched, observe
from pra_agent.storage.backend import Backend, Kind
from pra_agent.storage.opening import open_backend
from pra_agent.units import human_size

#: Repositories that are looked at together; each look is little more than waiting for the store.
_AT_ONCE = 8


def command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The observer's configuration.")] = OBSERVER_PATH,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and exit 1 when a look failed.")] = False,
) -> None:
    """Look at repositories from another host, with nothing but the right to list them, and export what is there.

    It needs no password and reads no object. It serves /metrics (127.0.0.1:9808 unless configured) until it is
    stopped; with --once it prints a table and serves nothing. A textfile is written either way, if one is configured.
    """
    output = Output.of(options(context))
    settings = load_observer(file)
    observer = _Observer(settings, output)
    if once:
        seen = observer.look(tuple(Kind))
        _show(output, seen)
        raise typer.Exit(1 if any(one.error for one in seen) else 0)
    with stoppable() as stop:
        observer.watch(stop)


class _Observer:
    def __init__(self, settings: ObserverSettings, output: Output) -> None:
        self._settings = settings
        self._output = output
        self._clock = SystemClock()
        self._watched = [
            Watched(one.node, one.destination, functools.partial(_store, one, self._clock))
            for one in settings.repositories
        ]
        self.book = ObservedBook()

    def look(self, kinds: Sequence[Kind]) -> Sequence[Observation]:
        """Look at all of them, enter it into the book and write the textfile."""
        look: Callable[[Watched], Observation] = functools.partial(observe, clock=self._clock, kinds=kinds)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="observer") as pool:
            seen = list(pool.map(look, self._watched))
        for one in seen:
            self.book.enter(one)
            if one.error:
                self._output.warn(f"{one.node} ({one.destination}): {one.error}")
        if self._settings.textfile is not None:
            write_textfile(self.book, self._settings.textfile)
        return seen

    def watch(self, stop: Event) -> None:
        """Look again and again until it is stopped, and serve what was seen."""
        exporter = self._settings.exporter
        with serving(self.book, exporter) if exporter.enabled else nullcontext(("", 0)) as (host, port):
            if exporter.enabled:
                self._output.note(f"metrics are served at {host}:{port}")
            for kinds in self._turns():
                self.look(kinds)
                if stop.wait(self._settings.interval.total_seconds()):
                    return

    def _turns(self) -> Iterator[Sequence[Kind]]:
        """What to list each time: packs only when it is time to count them."""
        due = self._clock.now()
        while True:
            now = self._clock.now()
            # Half a turn early is better than nearly a turn late.
            everything = now + min(self._settings.interval / 2, timedelta(hours=1)) >= due
            if everything:
                due = now + self._settings.count_every
            yield tuple(Kind) if everything else ALWAYS


def _store(settings: WatchedRepository, clock: SystemClock) -> "closing[Backend]":
    return closing(open_backend(settings, clock))


def _show(output: Output, seen: Sequence[Observation]) -> None:
    for one in seen:
        output.data({"type": "observation", "observation": one})
    rows = [
        (
            one.node,
            one.destination,
            instant(one.newest),
            f"{one.tallies[Kind.SNAPSHOT].objects:,}" if not one.error else "-",
            human_size(sum(tally.bytes for tally in one.tallies.values())) if not one.error else "-",
        )
        for one in seen
    ]
    output.table(("NODE", "DESTINATION", "NEWEST SNAPSHOT", "SNAPSHOTS", "SIZE"), rows, right=("SNAPSHOTS", "SIZE"))
