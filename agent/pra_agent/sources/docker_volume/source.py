"""The source of Docker volumes: a walk over where the engine keeps them, while their users stand still."""

import json
import os
import re
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import SourceError
from pra_agent.model.events import Reporter, ignore
from pra_agent.sources import exchange
from pra_agent.sources.attributes import Names
from pra_agent.sources.docker_volume import quiesce
from pra_agent.sources.docker_volume.exchange import put_back, undo_exchange
from pra_agent.sources.docker_volume.mounts import Place, compose_files, describe, find_places, find_users
from pra_agent.sources.docker_volume.settings import DockerVolumeSettings
from pra_agent.sources.engine import Engine
from pra_agent.sources.inline import inline
from pra_agent.sources.patterns import compile_patterns
from pra_agent.sources.source import (
    Capture,
    CaptureContext,
    Entry,
    Listing,
    Missed,
    ReinstateContext,
    StateBefore,
)
from pra_agent.sources.walk import Rules, Start, Tally, Walker

ROOT = b"/docker"
FACTS = b"/docker/facts.json"
COMPOSE = b"/docker/compose"
_LARGEST_COMPOSE = 1 << 20
#: A value of a variable whose name says that it is a secret; a reference to a variable is none.
_SECRET = re.compile(
    rb"(?im)^(\s*-?\s*[\"']?\w*(?:password|passwd|secret|token|api_?key)\w*[\"']?\s*[:=]\s*)(?![\s\"']*\$)\S.*$"
)


class DockerVolumeSource:
    """Volumes (and bind mounts) of one job. The data instant is when their users stood still, or the start."""

    def __init__(self, settings: DockerVolumeSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(self, context: CaptureContext) -> Generator[Capture, None, None]:
        chosen = self._settings
        with Engine(chosen.docker) as engine, ExitStack() as stack:
            quiesce.undo(engine, context.state, context.report)
            places = find_places(engine, chosen)
            users = find_users(engine, places)
            facts = describe(engine, places, users)
            standing = quiesce.Quiesced(
                engine,
                context.state,
                chosen.quiesce,
                limit=chosen.quiesce_limit.total_seconds(),
                stop_timeout=chosen.stop_timeout.total_seconds(),
            )
            stack.callback(standing.end)
            standing.begin(users)
            capture = _VolumeCapture(chosen, places, facts, self._clock.now(), standing, context.report)
            capture.compose = compose_files(users)
            capture.open(stack)
            yield capture

    def undo(self, state: StateBefore) -> None:
        pending = state.pending()
        if quiesce.KEY in pending or exchange.KEY in pending:
            with Engine(self._settings.docker) as engine:
                quiesce.undo(engine, state, ignore)
                undo_exchange(engine, self._settings, state)

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        with Engine(self._settings.docker) as engine:
            return put_back(engine, self._settings, context)


@dataclass(slots=True)
class _VolumeCapture:
    """The walk over each place in turn, then the facts."""

    settings: DockerVolumeSettings
    places: Sequence[Place]
    facts: dict[str, Any]
    data_instant: datetime
    standing: quiesce.Quiesced
    report: Reporter
    compose: Sequence[str] = ()
    starts: list[Start] = field(default_factory=lambda: list[Start]())
    walked: bool = False

    @property
    def roots(self) -> Sequence[bytes]:
        return [place.logical for place in self.places] + [COMPOSE] * bool(self.compose) + [FACTS]

    def open(self, stack: ExitStack) -> None:
        """Open each place's directory until the stack is left. `SourceError` when one cannot be opened."""
        for place in sorted(self.places, key=lambda one: one.logical):
            directory, name = place.path.encode("utf-8", "surrogateescape"), b"."
            if place.kind == "bind" and not Path(place.path).is_dir():
                directory, _, name = directory.rpartition(b"/")
            try:
                fd = os.open(directory or b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise SourceError(
                    f"{place.kind} {place.name}: {place.path} cannot be read: {error.strerror}",
                    advice="The agent needs to reach the engine's data on this host; a remote engine cannot be saved.",
                ) from error
            stack.callback(os.close, fd)
            self.starts.append(Start(fd, name, place.logical))

    def entries(self) -> Iterator[Entry | Missed | Listing]:
        when = int(self.data_instant.timestamp() * 1_000_000_000)
        names, tally = Names(), Tally()
        yield from self._compose(when)
        text = json.dumps(self.facts, indent=1, sort_keys=True, default=str).encode()
        yield inline(FACTS, text, when)
        for start in self.starts:
            excluded = compile_patterns(self.settings.exclude, start.path) if self.settings.exclude else None
            rules = Rules(excluded=excluded, starts=frozenset({start.path}))
            yield from Walker(start, rules, names, tally).entries()
        tally.tell(self.report)
        self.walked = True

    def _compose(self, when: int) -> Iterator[Entry | Missed]:
        for number, path in enumerate(self.compose):
            try:
                status = Path(path).stat()
                if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_COMPOSE:
                    continue
                text = Path(path).read_bytes()
            except OSError as error:
                yield Missed(path, f"the compose file cannot be read: {error.strerror}")
                continue
            name = f"{number}-{Path(path).name}".encode("utf-8", "surrogateescape")
            yield inline(COMPOSE + b"/" + name, _SECRET.sub(rb"\1(not saved)", text), when)

    def verify(self) -> None:
        if self.standing.overrun:
            raise SourceError(
                f"containers stood still for {self.settings.quiesce_limit} and were given back before the end",
                advice="Raise quiesce_limit, or save less in this job; the snapshot was not kept.",
            )
        if not self.walked:
            raise SourceError("the walk over the volumes did not come to its end")
        self.standing.require_still()
        for place in self.places:
            if not Path(place.path).exists():
                raise SourceError(f"{place.kind} {place.name} was removed while it was saved")
