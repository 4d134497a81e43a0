"""demo: the whole story in a temporary directory, on this host, without any set-up and without root."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pra_agent.cli.example import Example, ExampleDaemon, free_port, read_metrics
from pra_agent.cli.options import options
from pra_agent.cli.output import Output, age, duration
from pra_agent.cli.samples import describe_tree, destroy, difference, make_sample
from pra_agent.clock import SystemClock
from pra_agent.config import load
from pra_agent.control.client import Client
from pra_agent.daemon.composition import new_repository
from pra_agent.errors import PraError, RestoreError
from pra_agent.model.runs import Outcome
from pra_agent.restorer import RestoreRequest, execute, plan
from pra_agent.units import human_size

JOB = "demo-data"
METRICS = (
    "pra_backup_last_success_timestamp_seconds{",
    "pra_backup_last_size_bytes{",
    "pra_backup_last_stored_bytes{",
    "pra_job_rpo_seconds{",
    'pra_runs_total{backup_job="demo-data",operation="backup",outcome="success"}',
)


class _Steps:
    """Numbered lines; with --json each is an object."""

    def __init__(self, output: Output, total: int) -> None:
        self._output = output
        self._total = total
        self._done = 0

    def __call__(self, name: str, text: str) -> None:
        self._done += 1
        self._output.data({"type": "step", "step": name, "message": text})
        self._output.line(f"[{self._done}/{self._total}] {name:<9} {text}")


def command(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the directory for a look around.")] = False,
) -> None:
    """Back up, destroy, restore and verify, all in a temporary directory.

    Real files, a real repository, a real daemon: it starts, saves the files through its socket, they are destroyed,
    come back through the socket, and are compared byte for byte. Nothing outside of the directory is touched.
    """
    output = Output.of(options(context))
    root = Path(tempfile.mkdtemp(prefix="pra-agent-demo-"))
    try:
        _tell_the_story(Example(root, free_port()), output, keep=keep)
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
    output.line("")
    output.line("It works. Next: write /etc/pra-agent/config.yaml (see packaging/config.yaml), then pra-agent init.")


def _tell_the_story(example: Example, output: Output, *, keep: bool) -> None:
    clock, step = SystemClock(), _Steps(output, 9)
    make_sample(example.data)
    before = describe_tree(example.data)
    size = sum(facts.size for facts in before.values())
    step("files", f"{len(before):,} files and directories, {human_size(size)}, in {example.data}")
    _make_repository(example, clock)
    step("init", f"an encrypted repository in {example.repository}")
    with ExampleDaemon(example, clock) as daemon, Client(example.socket) as client:
        step("daemon", f"runs as process {daemon.pid}, listens at {example.socket}")
        record = client.run_job(JOB)
        if record.outcome is not Outcome.SUCCESS or record.finished is None:
            raise PraError(f"the backup ended as {record.outcome}: {record.error}")
        took = duration((record.finished - record.started).total_seconds())
        step("backup", f"{record.files:,} files, {human_size(record.bytes_stored)} stored in {took}, as {_of(record)}")
        destroy(example.data)
        step("disaster", f"{example.data} is gone")
        started = clock.monotonic()
        size = _restore(client, record.snapshot)
        step("restore", f"{human_size(size)} through the socket in {duration(clock.monotonic() - started)}")
        changed = difference(before, describe_tree(example.data))
        if changed:
            raise RestoreError(f"{len(changed)} files are not as they were: {', '.join(changed[:3])}")
        step("verify", "every name, byte, mode and time is as it was")
        status = client.jobs()[0]
        step(
            "status", f"{JOB} is {status.health}, its data is {age(status.age)} old, the RPO is {age(status.fact.rpo)}"
        )
        samples = read_metrics(example, METRICS)
    step("metrics", f"{len(samples)} of those at http://127.0.0.1:{example.port}/metrics:")
    for sample in samples:
        output.line(f"      {sample}")
    output.data({"type": "demo", "ok": True, "directory": str(example.root) if keep else None})
    if keep:
        output.line(f"kept: {example.root}; try pra-agent --direct --config {example.config} snapshots")


def _of(record: object) -> str:
    return f"snapshot {getattr(record, 'snapshot', '')[:8]}"


def _make_repository(example: Example, clock: SystemClock) -> None:
    password = example.root / "password"
    password.touch(mode=0o600)
    password.write_text("a password of the demo, and of nothing else\n", encoding="utf-8")
    example.write_config()
    with new_repository(load(example.config), clock):
        pass


def _restore(client: Client, snapshot_id: str) -> int:
    with client.session("the demo's restore") as reader:
        snapshot = next(one for one in reader.snapshots() if one.id == snapshot_id)
        request = RestoreRequest(target=Path("/"), in_place=True)
        restored = execute(plan(reader, snapshot, request), reader)
    if restored.failures:
        failure = restored.failures[0]
        raise RestoreError(f"{len(restored.failures)} files failed; {failure.path}: {failure.reason}")
    return restored.bytes
