"""Exchanging directories under a service: beside, stopped, renamed, started, and undone if it does not recover.

What is being done is journalled before it is done; `undo` puts it right after a crash.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from pra_agent.model.events import Notice
from pra_agent.sources import command
from pra_agent.sources.source import ReinstateContext, StateBefore

KEY = "directories being exchanged"
_COPY_SECONDS = 24 * 3600


class Service(Protocol):
    """What uses the directories. Each method raises `SourceError`."""

    def stop(self) -> None:
        """Bring it to a standstill; harmless when it stands still."""
        ...

    def start(self) -> None:
        """Let it run again, if it ran before."""
        ...

    def facts(self) -> Mapping[str, object]:
        """What is needed to find it again after a crash; plain JSON."""
        ...

    def wait_well(self) -> None:
        """Return when it is well with what it has now; raise when it is not, or not in time."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One directory (or file): where it is, what comes there and where what was there is kept meanwhile.

    `restored` None: nothing comes there, it is only taken away.
    """

    live: Path
    restored: Path | None
    run: str

    @property
    def new(self) -> Path:
        """Beside the live one, on the same file system."""
        return self.live.with_name(f"{self.live.name}.pra-new-{self.run}")

    @property
    def before(self) -> Path:
        """What was there."""
        return self.live.with_name(f"{self.live.name}.pra-before-{self.run}")

    def copy_beside(self) -> None:
        """Copy what was restored beside the live one, attributes and all."""
        discard(self.new)
        if self.restored is None:
            return
        self.new.parent.mkdir(parents=True, exist_ok=True)
        options = ["--archive", "--sparse=auto", "--no-target-directory"]
        command.run(["cp", *options, "--", str(self.restored), str(self.new)], timeout=_COPY_SECONDS)


def swap(
    exchanges: Sequence[Exchange],
    service: Service,
    context: ReinstateContext,
    *,
    keep: bool = False,
    late: Callable[[], Sequence[Exchange]] = tuple,
) -> None:
    """Do all exchanges while the service stands still; what was there comes back when it is not well afterwards.

    `keep` leaves what was there beside, also when all is well. `late` names more to be taken away, which can only be
    known when the service stands still.
    """
    for exchange in exchanges:
        exchange.copy_beside()
    every = [_Place.of(one) for one in exchanges]
    _remember(every, service, context)
    try:
        service.stop()
        if more := late():
            every += [_Place.of(one) for one in more]
            _remember(every, service, context)
        for place in every:
            if place.live.exists():
                place.live.rename(place.before)
            if place.new.exists():
                place.new.rename(place.live)
        service.start()
        service.wait_well()
    except BaseException:
        service.stop()
        _roll_back(every)
        service.start()
        context.state.forget(KEY)
        context.report(Notice("what was there before is back in service", "warning"))
        raise
    context.state.forget(KEY)
    for place in every if not keep else ():
        discard(place.before)


@dataclass(frozen=True, slots=True)
class _Place:
    """An exchange as it is journalled; `had`: something was there before."""

    live: Path
    before: Path
    new: Path
    had: bool

    @classmethod
    def of(cls, exchange: Exchange) -> "_Place":
        return cls(exchange.live, exchange.before, exchange.new, exchange.live.exists())


def _remember(every: Sequence[_Place], service: Service, context: ReinstateContext) -> None:
    places = [[str(one.live), str(one.before), str(one.new), one.had] for one in every]
    context.state.remember(KEY, {"places": places, "service": dict(service.facts())})


def undo(state: StateBefore, service: Callable[[Mapping[str, object]], Service]) -> None:
    """After a crash in the middle of a swap: what was there before is put back. `service` gets its `facts`."""
    told = state.pending().get(KEY)
    if told is None:
        return
    places = cast("Sequence[tuple[str, str, str, bool]]", told["places"])
    using = service(cast("Mapping[str, object]", told["service"]))
    using.stop()
    _roll_back([_Place(Path(live), Path(before), Path(new), had) for live, before, new, had in places])
    using.start()
    state.forget(KEY)


def _roll_back(places: Sequence[_Place]) -> None:
    for place in places:
        if place.before.exists():
            discard(place.live)
            place.before.rename(place.live)
        elif not place.had:
            discard(place.live)
        discard(place.new)


def discard(path: Path) -> None:
    """Remove a file or a whole directory; harmless when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
