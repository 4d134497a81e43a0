"""Reinstate: a database, volume or cluster, restored to scratch and put back into service by its source."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from pra_agent.clock import Clock, SystemClock
from pra_agent.errors import RestoreError
from pra_agent.model.events import Reporter, ignore
from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.operations.restore import RestoreRun, raise_for, restore
from pra_agent.restorer import RestoreRequest, plan
from pra_agent.sources.scratch import Room
from pra_agent.sources.source import ReinstateContext, Source, StateBefore


@dataclass(frozen=True, slots=True)
class ReinstateRequest:
    """What is put back, by which source, and how.

    `scratch` is a directory with room for the whole snapshot; what is restored there is gone in the end. `options` are
    the source's own. `force` lets live data be replaced.
    """

    run: str
    snapshot: Snapshot
    source: Source
    state: StateBefore
    scratch: Room
    force: bool = False
    dry_run: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())


def reinstate(
    request: ReinstateRequest,
    reader: SnapshotReader,
    *,
    clock: Clock | None = None,
    report: Reporter = ignore,
    stop: Event | None = None,
) -> RunRecord:
    """Restore to scratch, then let the source put it into service; `detail["done"]` are its lines.

    Raises what the restore and the source raise; then the source has put back what was there before. `StorageFull`
    when scratch has no room for it, before anything is restored.
    """
    clock, stop = clock or SystemClock(), stop or Event()
    request.source.undo(request.state)
    start = clock.monotonic()
    with _place(request) as place:
        planned = plan(reader, request.snapshot, RestoreRequest(target=place))
        request.scratch.claim(sum(planned.room.values()))
        run = RestoreRun(request.run, request.snapshot)
        record = restore(run, planned, reader, clock=clock, report=report, stop=stop)
        raise_for(record)
        restored = clock.monotonic()
        context = ReinstateContext(
            run=request.run,
            job=request.snapshot.job,
            restored=str(place),
            state=request.state,
            force=request.force,
            dry_run=request.dry_run,
            options=request.options,
            report=report,
            stop=stop,
        )
        done = list(request.source.reinstate(context))
    stages = {"restore": restored - start, "reinstate": clock.monotonic() - restored}
    return replace(record, finished=clock.now(), stages=stages, detail={**record.detail, "done": done})


@contextmanager
def _place(request: ReinstateRequest) -> Generator[Path]:
    with ExitStack() as held:
        try:
            place = held.enter_context(request.scratch.held(f"reinstate-{request.run}.restored", directory=True))
        except OSError as error:
            raise RestoreError(
                f"{request.scratch.directory}: cannot be used: {error.strerror}",
                advice="Give another place with limits.scratch.path.",
            ) from error
        yield place
