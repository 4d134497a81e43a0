"""restore: bring files back."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.asking import confirm
from pra_agent.cli.choosing import AsOf, At, Which, choose
from pra_agent.cli.directly import stoppable
from pra_agent.cli.options import Options, options
from pra_agent.cli.output import Output, age, count, duration, instant
from pra_agent.cli.progress import showing
from pra_agent.cli.reaching import daemon, reader
from pra_agent.cli.reinstating import choices, put_back, service_of
from pra_agent.clock import SystemClock
from pra_agent.config import Config, Job
from pra_agent.control.client import Client
from pra_agent.errors import AccessDenied, Interrupted, UsageError
from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.operations.restore import RestoreRun, raise_for, restore
from pra_agent.restorer import Action, Plan, RestoreRequest, plan
from pra_agent.units import human_size

_LOSES = (Action.REPLACE, Action.DELETE)


def command(  # noqa: PLR0913, PLR0917 - one parameter per option is what typer wants
    context: typer.Context,
    which: Which,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH]...", help="Only these paths of the snapshot.")
    ] = None,
    at: At = None,
    target: Annotated[
        Path | None, typer.Option("--target", "-t", metavar="DIR", help="Restore below this directory.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Restore to where the files were.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be done.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what the snapshot does not have, in restored directories.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Do not ask before files are replaced or removed in place.")
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option("--include", "-i", metavar="PATTERN", help="Only what matches (as gitignore).")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", "-e", metavar="PATTERN", help="Not what matches (as gitignore).")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read and compare files that look the same by size and time.")
    ] = False,
    sparse: Annotated[
        bool, typer.Option("--sparse/--no-sparse", help="Leave holes where there are long zeros.")
    ] = True,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="A choice of the job's source (see docs/sources.md)."),
    ] = None,
    as_of: AsOf = None,
) -> None:
    """Bring files back: below a directory, or in place, with the rights of who calls this.

    Only what differs is read and written, so that the same command again goes on where it was interrupted. In place the
    job is held while its files are half restored. A database, volume or cluster is put into service by its source,
    which replaces live data only with --force, and keeps what was there. With --direct no daemon is needed. Exit code 1
    when a file could not be restored; the others are.
    """
    if (target is None) == (not in_place):
        raise UsageError("say where to: --target DIR, or --in-place", advice="--dry-run shows what would be done.")
    request = RestoreRequest(
        target=Path("/") if target is None else target.absolute(),
        in_place=in_place,
        paths=[os.fsencode(path) for path in paths or ()],
        include=include or (),
        exclude=exclude or (),
        delete=delete,
        verify=verify,
        sparse=sparse,
    )
    chosen = choices(option or ())
    if chosen and not in_place:
        raise UsageError("--option goes with --in-place")
    call = _Call(options(context), request, which, (at, as_of), chosen, dry_run=dry_run, force=force)
    raise typer.Exit(call.run())


@dataclass(frozen=True, slots=True)
class _Call:
    options: Options
    request: RestoreRequest
    which: str
    moments: tuple[datetime | None, datetime | None]
    chosen: dict[str, str]
    dry_run: bool
    force: bool

    def run(self) -> int:
        output = Output.of(self.options)
        at, as_of = self.moments
        with reader(self.options, f"restore of {self.which}", as_of) as source:
            snapshot = choose(self.options, source.snapshots(), self.which, at)
            old = age((SystemClock().now() - snapshot.time).total_seconds())
            name = snapshot.job or snapshot.hostname
            output.note(f"snapshot {snapshot.id[:8]} of {name}, {instant(snapshot.time)} UTC, {old} old")
            if (service := self._service(snapshot)) is not None:
                with self._held(snapshot, output):
                    put_back(
                        self.options, service, snapshot, source, self.chosen, force=self.force, dry_run=self.dry_run
                    )
                return 0
            planned = plan(source, snapshot, self.request)
            if self.dry_run:
                return _show_plan(output, planned, snapshot)
            self._ask(planned)
            with self._held(snapshot, output):
                record = self._execute(planned, source, snapshot, output)
                output.data({"type": "run", "run": record})
                _tell(output, record, self.request)
                raise_for(record)
        return 0

    def _service(self, snapshot: Snapshot) -> tuple[Config, Job] | None:
        request = self.request
        if not request.in_place or request.paths or request.include or request.exclude:
            return None
        return service_of(self.options, snapshot)

    def _ask(self, planned: Plan) -> None:
        counts = planned.counts()
        lost = [
            f"{count(counts[action], 'file')} {word}"
            for action, word in zip(_LOSES, ("replaced", "deleted"), strict=True)
            if counts[action]
        ]
        if self.request.in_place and lost and not self.force:
            confirm(f"In place, {' and '.join(lost)}. Go on?", option="--force")

    def _execute(self, planned: Plan, source: SnapshotReader, snapshot: Snapshot, output: Output) -> RunRecord:
        run = RestoreRun(f"restore-{secrets.token_hex(4)}", snapshot)
        try:
            with showing(output) as report, stoppable() as stop:
                return restore(run, planned, source, report=report, stop=stop)
        except (Interrupted, KeyboardInterrupt) as error:
            raise Interrupted(
                f"interrupted; what was restored to {self.request.target} stays",
                advice="Run the same command again to go on from there.",
            ) from error

    @contextmanager
    def _held(self, snapshot: Snapshot, output: Output) -> Generator[None]:
        """Keep the daemon from saving a half-restored job as good. It stays held when the restore fails."""
        if self.options.direct or not self.request.in_place:
            yield
            return
        with daemon(self.options) as client:
            known = next((job for job in client.jobs() if job.fact.name == snapshot.job), None)
            ours = known is not None and not known.on_hold and _hold(client, snapshot.job, output)
            try:
                yield
            except BaseException:
                if ours:
                    output.warn(
                        f"{snapshot.job} stays on hold; when its files are well: pra-agent release {snapshot.job}"
                    )
                raise
            if ours:
                client.release([snapshot.job])


def _hold(client: Client, job: str, output: Output) -> bool:
    """Hold the job; who may only read goes on without."""
    try:
        client.hold([job], "a restore in place is under way")
    except AccessDenied as error:
        output.warn(f"{job} is not held while it is restored: {error.message}")
        return False
    return True


def _show_plan(output: Output, planned: Plan, snapshot: Snapshot) -> int:
    for action, path, size in planned.lines():
        output.data({"type": "planned", "action": action.value, "path": path, "size": size})
        output.line(f"{action.value:<9}{human_size(size):>12}  {path}")
    counts = dict(planned.counts())
    output.data({"type": "plan", "snapshot": snapshot.id, "counts": counts, "bytes": planned.size})
    words = ", ".join(f"{number:,} {action}" for action, number in counts.items() if number)
    output.line(f"plan: {words or 'nothing to do'}; at most {human_size(planned.size)} are written")
    return 0


def _tell(output: Output, record: RunRecord, request: RestoreRequest) -> None:
    took = (record.finished - record.started).total_seconds() if record.finished is not None else 0.0
    place = "in place" if request.in_place else f"to {request.target}"
    output.line(
        f"restored {place}: {record.files:,} files, {human_size(record.bytes)} in {duration(took)}"
        f" ({record.files_unmodified:,} were as they should be)"
    )
