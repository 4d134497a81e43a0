"""restore --in-place of what is no plain file: restored to scratch, then put into service by the job's source."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import cast

from pra_agent.cli.asking import ask_secret
from pra_agent.cli.directly import private_state, stoppable
from pra_agent.cli.options import Options
from pra_agent.cli.output import Output, duration
from pra_agent.cli.progress import showing
from pra_agent.cli.reaching import configuration
from pra_agent.config import Config, Job
from pra_agent.config.secrets import Resolver
from pra_agent.daemon.composition import build_source
from pra_agent.daemon.journal import Journal
from pra_agent.errors import Interrupted, UsageError
from pra_agent.model.runs import RunRecord
from pra_agent.model.snapshots import Snapshot, SnapshotReader
from pra_agent.operations.reinstate import ReinstateRequest, reinstate
from pra_agent.sources.scratch import Room


def choices(texts: Sequence[str]) -> dict[str, str]:
    """Take --option KEY=VALUE apart. Raises `UsageError`."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--option {text!r} is not of the form KEY=VALUE")
        found[key] = value
    return found


def service_of(options: Options, snapshot: Snapshot) -> tuple[Config, Job] | None:
    """The snapshot's job, when its source is one that puts things into service; None for plain files."""
    if not snapshot.job:
        return None
    config = configuration(options)
    job = config.jobs.get(snapshot.job)
    if job is not None:
        return None if job.source.type == "files" else (config, job)
    if all(not path.startswith(("/dump/", "/docker/", "/cassandra/", "/elasticsearch/")) for path in snapshot.paths):
        return None
    raise UsageError(
        f"the job {snapshot.job} is not in the configuration, so nobody knows how to put it back",
        advice="Add the job, or restore its files with --target DIR.",
    )


def put_back(  # noqa: PLR0913 - what a restore in place consists of
    options: Options,
    service: tuple[Config, Job],
    snapshot: Snapshot,
    reader: SnapshotReader,
    chosen: Mapping[str, str],
    *,
    force: bool,
    dry_run: bool,
) -> RunRecord:
    """Put a job's snapshot back into service, and say what was done. Raises what its source raises."""
    config, job = service
    output = Output.of(options)
    state = private_state()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = Room(
        config.limits.scratch.path or state / "scratch", config.limits.scratch.quota, config.limits.free_bytes
    )
    with closing(Journal(state / "journal.sqlite")) as journal:
        request = ReinstateRequest(
            run=f"r{secrets.token_hex(4)}",
            snapshot=snapshot,
            source=build_source(job, Resolver(ask=ask_secret)),
            state=journal.state_before(job.name),
            scratch=scratch,
            force=force,
            dry_run=dry_run,
            options=chosen,
        )
        try:
            with showing(output) as report, stoppable() as stop:
                record = reinstate(request, reader, report=report, stop=stop)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted; what was there before is in service") from error
    took = (record.finished - record.started).total_seconds() if record.finished else 0.0
    output.data({"type": "run", "run": record})
    done = cast("Sequence[str]", record.detail.get("done", ()))
    for line in done or ("nothing was to be put into service",):
        output.line(line)
    output.line(f"{'looked at' if dry_run else 'put back'}: {job.name} in {duration(took)}")
    return record
