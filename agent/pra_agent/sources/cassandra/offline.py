"""Plan A: a whole node of the same ring, while it stands still.

Commit log, hints and saved caches are taken away (what they hold is newer than the snapshot), the data directories'
keyspaces are exchanged, and what was there is kept beside as `*.pra-before-<run>`.
"""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pra_agent.errors import RefusedError, SourceError
from pra_agent.model.references import SecretRef
from pra_agent.sources import command
from pra_agent.sources.cassandra.nodetool import Nodetool
from pra_agent.sources.cassandra.places import Places, find_places
from pra_agent.sources.cassandra.restored import Choice, Restored
from pra_agent.sources.cassandra.session import connect
from pra_agent.sources.cassandra.settings import CassandraSettings
from pra_agent.sources.cassandra.yaml import put_tokens_back, write_tokens
from pra_agent.sources.exchange import Exchange, Service, swap, undo
from pra_agent.sources.service import Probe, service_for
from pra_agent.sources.source import ReinstateContext, StateBefore

Resolve = Callable[[SecretRef], str] | None
_OWN = ".pra-"
_CLEARED = ("commitlog", "hints", "saved_caches", "cdc_raw")
_COPY_SECONDS = 24 * 3600


def plan_a(
    settings: CassandraSettings, resolve: Resolve, restored: Restored, choice: Choice, context: ReinstateContext
) -> Sequence[str]:
    """Exchange the node's data; a line for each thing done and left to do."""
    _is_whole(restored)
    places = find_places(settings, restored.facts["directories"])
    if len(places.data) < len(restored.host_data):
        raise SourceError(
            f"the snapshot is of {len(restored.host_data)} data directories, the job has {len(places.data)}",
            advice="Name as many in data_dirs, in the same order; or use plan=b.",
        )
    exchanges = _data(places, restored, context.run)
    live = [place for place in places.data if _directories(place.host)]
    if live and not context.force:
        raise RefusedError(
            f"{live[0].host}: there is data in it",
            advice="--force renames it to *.pra-before-* and puts the snapshot there.",
        )
    if choice.of("tokens") == "write" and settings.config is None:
        raise RefusedError("tokens=write needs config in the job", advice="Name the path of cassandra.yaml there.")
    if context.dry_run:
        return [f"would {'replace' if one.live.exists() else 'make'} {one.live}" for one in exchanges]
    service = _service(settings, resolve, context.stop)
    if not service.facts():
        # Nobody stops it for us: refuse before anything is copied.
        service.stop()
    lines: list[str] = []
    with ExitStack() as undoing:
        if choice.of("tokens") == "write" and settings.config is not None:
            lines.append(write_tokens(settings.config, restored.identity.tokens, context.run))
            undoing.callback(put_tokens_back, settings.config, context.run)
        taken = {one.live for one in exchanges}
        swap(exchanges, service, context, keep=True, late=lambda: _taken_away(places, taken, context.run))
        undoing.pop_all()
    return [*lines, *_told(settings, restored, choice, places, service)]


def undo_plan_a(settings: CassandraSettings, resolve: Resolve, state: StateBefore) -> None:
    """After a crash amid the exchange: what was there before is put back."""
    undo(state, lambda _facts: _service(settings, resolve, Event()))


def _is_whole(restored: Restored) -> None:
    keyspaces = {table.keyspace for table in restored.tables()}
    lost = {"system", "system_schema"} - keyspaces
    if lost:
        raise RefusedError(
            f"the snapshot lacks {', '.join(sorted(lost))}: plan=a needs a snapshot of the whole node",
            advice="The job saves some keyspaces only; use plan=b.",
        )


@dataclass(frozen=True)
class _Owned(Exchange):
    """An exchange whose new files belong to whom the data directory belongs to."""

    like: Path

    def copy_beside(self) -> None:
        Exchange.copy_beside(self)
        if os.geteuid() == 0 and self.new.exists():
            command.run(["chown", "-R", f"--reference={self.like}", "--", str(self.new)], timeout=_COPY_SECONDS)


def _data(places: Places, restored: Restored, run: str) -> list[Exchange]:
    """One exchange for each keyspace's directory: a data directory itself may be a mount, which cannot be renamed."""
    return [
        _Owned(place.host / name, there / name, run, place.host)
        for place, there in zip(places.data, restored.data, strict=False)
        for name in sorted(_directories(there))
    ]


def _directories(path: Path) -> set[str]:
    if not path.is_dir():
        return set()
    return {one.name for one in path.iterdir() if one.is_dir() and _OWN not in one.name}


def _taken_away(places: Places, taken: set[Path], run: str) -> list[Exchange]:
    """What is taken away: other keyspaces, and all that is newer than the snapshot.

    File by file, since the commit log's directory and the like may be mounts as well. Asked when the node stands
    still: it writes there until its end.
    """
    others = [place.host / name for place in places.data for name in sorted(_directories(place.host))]
    newer = [
        path
        for kind in _CLEARED
        if kind in places.others and places.others[kind].host.is_dir()
        for path in sorted(places.others[kind].host.iterdir())
        if _OWN not in path.name
    ]
    return [Exchange(path, None, run) for path in [*others, *newer] if path not in taken]


def _service(settings: CassandraSettings, resolve: Resolve, stopped: Event) -> Service:
    def ask() -> str:
        try:
            with connect(settings, resolve) as session:
                session.identity()
        except SourceError as error:
            return error.message
        return ""

    managed = settings.unit is not None or settings.container is not None
    probe = Probe(ask if managed else lambda: _silent(settings), settings.up_within.total_seconds(), stopped)
    return service_for(
        "Cassandra", unit=settings.unit, container=settings.container, docker=settings.docker, probe=probe
    )


def _silent(settings: CassandraSettings) -> str:
    """Return "" when something listens at the node's ports: it runs, whether it takes clients or not."""
    ports = [(host, settings.port) for host in settings.hosts]
    ports += [(settings.jmx_host or "127.0.0.1", settings.jmx_port or 7199)]
    for host, port in ports:
        try:
            with socket.create_connection((host, port), timeout=5):
                return ""
        except OSError:
            continue
    return "it does not run"


def _told(
    settings: CassandraSettings, restored: Restored, choice: Choice, places: Places, service: Service
) -> list[str]:
    directories = {place.host for place in [*places.data, *places.others.values()] if place.host.is_dir()}
    kept = [path for directory in directories for path in directory.iterdir() if ".pra-before-" in path.name]
    node = restored.identity
    lines = [
        f"the node {node.host_id} of cluster {node.cluster} has its data back ({len(restored.tables())} tables)",
        f"{len(kept)} directories and files of before are kept as *.pra-before-*; remove them when all is well",
    ]
    if choice.of("tokens") == "report":
        lines.append(f"initial_token: {','.join(node.tokens)}")
    if service.facts():
        status = Nodetool(settings).run("status").splitlines()
        lines += [line for line in status if line[:2] in {"UN", "DN", "UJ", "UL", "UM"}]
    else:
        lines.append("left to do: start Cassandra when all nodes of the ring have their data; then nodetool status")
    lines.append("left to do when all nodes are up: nodetool repair -pr, on one node after the other")
    return lines
