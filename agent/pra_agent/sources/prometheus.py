"""Prometheus' own data: a snapshot by its admin API (hard links of immutable blocks), and its configuration."""

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import RefusedError, SourceError
from pra_agent.model.events import Notice
from pra_agent.model.references import SecretField, SecretRef
from pra_agent.sources import web
from pra_agent.sources.attributes import Names
from pra_agent.sources.exchange import Exchange, Service, swap, undo
from pra_agent.sources.service import Probe, service_for
from pra_agent.sources.source import (
    KEY_LINK,
    Capture,
    CaptureContext,
    Entry,
    Listing,
    Missed,
    ReinstateContext,
    StateBefore,
    rekeyed,
)
from pra_agent.sources.walk import Rules, Start, Tally, Walker
from pra_agent.units import Duration

DATA = b"/prometheus/data"
CONFIG = b"/prometheus/config"
_KEY = "snapshot"


class PrometheusSettings(BaseModel):
    """A Prometheus server of this host; it must run with --web.enable-admin-api."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["prometheus"] = "prometheus"
    url: str = "http://127.0.0.1:9090"
    data_dir: Path = Field(description="Its --storage.tsdb.path, as this host sees it.")
    config_dir: Path | None = Field(default=None, description="Its configuration and rules.")
    user: str | None = None
    password: SecretField | None = None
    unit: str | None = Field(default=None, description="Its systemd unit, stopped and started by a restore.")
    container: str | None = Field(default=None, description="Its container, likewise.")
    docker: str | None = None
    snapshot_timeout: Annotated[int, Field(ge=1)] = 600
    ready_within: Duration = timedelta(minutes=10)

    def build(self, resolve: Callable[[SecretRef], str] | None = None) -> "PrometheusSource":
        """Make the source."""
        return PrometheusSource(self, resolve)


class PrometheusSource:
    """One server. The data instant is the moment before the snapshot is asked for."""

    def __init__(
        self, settings: PrometheusSettings, resolve: Callable[[SecretRef], str] | None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._clock = clock or SystemClock()

    @contextmanager
    def capture(self, context: CaptureContext) -> Generator[Capture, None, None]:
        chosen = self._settings
        self._clear(context.state)
        instant = self._clock.now()
        url = f"{chosen.url.rstrip('/')}/api/v1/admin/tsdb/snapshot"
        told = web.ask_json(url, method="POST", login=self._login(), timeout=chosen.snapshot_timeout)
        name = str(told.get("data", {}).get("name", ""))
        if not name or "/" in name or name.startswith("."):
            raise SourceError(f"{chosen.url}: made no snapshot: {told.get('error') or told}")
        place = chosen.data_dir / "snapshots" / name
        context.state.remember(_KEY, {"place": str(place)})
        try:
            with ExitStack() as stack:
                yield _PrometheusCapture.open(stack, place, chosen.config_dir, instant)
        finally:
            if not self._clear(context.state):
                context.report(Notice(f"{place} cannot be removed; it takes room until somebody does", "warning"))

    def undo(self, state: StateBefore) -> None:
        self._clear(state)
        undo(state, lambda _facts: self._service(Event()))

    def reinstate(self, context: ReinstateContext) -> Sequence[str]:
        chosen = self._settings
        restored = Path(context.restored)
        pairs = [(chosen.data_dir, restored / os.fsdecode(DATA.lstrip(b"/")))]
        if chosen.config_dir is not None and "data_only" not in context.options:
            pairs.append((chosen.config_dir, restored / os.fsdecode(CONFIG.lstrip(b"/"))))
        missing = [str(source) for _, source in pairs if not source.exists()]
        if missing:
            raise SourceError(f"the restored files lack {', '.join(missing)}", advice="Restore the whole job.")
        live = [str(target) for target, _ in pairs if target.exists() and any(target.iterdir())]
        if live and not context.force:
            raise RefusedError(f"{', '.join(live)}: there is something in it", advice="Replace it with --force.")
        if context.dry_run:
            return [f"would replace {target}" for target, _ in pairs]
        swap([Exchange(target, source, context.run) for target, source in pairs], self._service(context.stop), context)
        return [f"prometheus: {target} put back" for target, _ in pairs]

    def _service(self, stopped: Event) -> Service:
        chosen = self._settings
        url = f"{chosen.url.rstrip('/')}/-/ready"
        probe = Probe(lambda: web.is_well(url, self._login()), chosen.ready_within.total_seconds(), stopped)
        return service_for(
            "Prometheus", unit=chosen.unit, container=chosen.container, docker=chosen.docker, probe=probe
        )

    def _login(self) -> tuple[str, str] | None:
        chosen = self._settings
        if chosen.user is None or chosen.password is None or self._resolve is None:
            return None
        return chosen.user, self._resolve(chosen.password)

    @staticmethod
    def _clear(state: StateBefore) -> bool:
        """Remove the snapshot that is remembered; tell whether it is gone."""
        told = state.pending().get(_KEY)
        if told is None:
            return True
        place = Path(str(told["place"]))
        shutil.rmtree(place, ignore_errors=True)
        if place.exists():
            return False
        state.forget(_KEY)
        return True


@dataclass(slots=True)
class _PrometheusCapture:
    """The walk over a snapshot's blocks, then over the configuration."""

    data_instant: datetime
    blocks: Start
    config: Start | None
    seen: int = 0

    @classmethod
    def open(cls, stack: ExitStack, place: Path, config: Path | None, instant: datetime) -> "_PrometheusCapture":
        """Open both directories until the stack is left."""
        return cls(instant, _start(stack, place, DATA), None if config is None else _start(stack, config, CONFIG))

    @property
    def roots(self) -> Sequence[bytes]:
        return [DATA] if self.config is None else [CONFIG, DATA]

    def entries(self) -> Iterator[Entry | Missed | Listing]:
        names, tally = Names(), Tally()
        if self.config is not None:
            yield from Walker(self.config, Rules(), names, tally).entries()
        for item in rekeyed(Walker(self.blocks, Rules(), names, tally).entries(), KEY_LINK):
            self.seen += isinstance(item, Entry) and item.path.endswith(b"/meta.json")
            yield item

    def verify(self) -> None:
        if not self.seen:
            raise SourceError("the snapshot of Prometheus holds no block", advice="Is there any data in it yet?")


def _start(stack: ExitStack, directory: Path, path: bytes) -> Start:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(
            f"{directory}: cannot be read: {error.strerror}", advice="Correct data_dir or config_dir of the job."
        ) from error
    stack.callback(os.close, fd)
    return Start(fd, b".", path)
