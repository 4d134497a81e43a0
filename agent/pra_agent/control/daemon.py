"""What the control socket needs of the daemon; `daemon.service` implements it.

The server calls every method in a worker thread (never on its event loop), several at once: they must be
thread-safe, may block for some seconds, and raise `PraError` for what the client is to be told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import socket
from typing import Protocol

from pra_agent.model.events import Event
from pra_agent.model.jobs import DaemonStatus, JobFact
from pra_agent.model.runs import JournalReader, Operation, RunRecord

#: Gets each event of a run, at last its finished record; called from any thread, returns at once, never raises.
RunListener = Callable[[Event | RunRecord], None]


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """An operation that is asked for. `job` is the name of a configured job, "" for the whole repository.

    `read_data_subset` is "" or what `check --read-data-subset` takes (5%, n/t); it was checked for its form only.
    """

    operation: Operation
    job: str = ""
    dry_run: bool = False
    read_data_subset: str = ""


class ReaderProcess(Protocol):
    """A process that serves one restore session (see `control.worker`)."""

    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait for its end at most so many seconds, and reap it; tell whether it has ended."""
        ...

    def kill(self) -> None:
        """End it at once (SIGKILL). Harmless when it has ended already."""
        ...


class Daemon(Protocol):
    """The daemon, as the socket sees it."""

    @property
    def journal(self) -> JournalReader:
        """The journal's reading half."""
        ...

    def status(self) -> DaemonStatus:
        """The daemon itself."""
        ...

    def jobs(self) -> Sequence[JobFact]:
        """The configured jobs, in the order of the configuration."""
        ...

    def run_job(self, job: str, *, full: bool = False) -> str:
        """Ask for a backup of the job now, and return the run's id at once; the run may wait for its lane.

        A job that is queued or running already: its run's id. Raises `UsageError` for an unknown job and
        `RefusedError` while the daemon stops.
        """
        ...

    def start(self, request: OperationRequest) -> str:
        """Ask for another operation, and return the run's id at once.

        Raises `UsageError` for what this daemon cannot do (unknown job, no pruner's credentials ...).
        """
        ...

    def subscribe(self, run_id: str, listener: RunListener) -> Callable[[], None]:
        """Let the listener hear of the run from now on; what is returned ends that.

        A run that has ended already: the listener gets its record at once. Raises `NotFound` for an unknown run.
        """
        ...

    def pause_run(self, run_id: str) -> None:
        """Let a run stand still. Raises `NotFound` when it neither runs nor waits, `RefusedError` when it waits."""
        ...

    def resume_run(self, run_id: str) -> None:
        """Let a paused run go on. Raises `NotFound`."""
        ...

    def stop_run(self, run_id: str) -> None:
        """Ask a run to stop, or take it out of the queue. Raises `NotFound`."""
        ...

    def escrow_proven(self, slot: str) -> None:
        """Remember that this escrow slot (hex id) was proven to open the repository just now."""
        ...

    def hold(self, jobs: Sequence[str], reason: str) -> None:
        """Start no scheduled run of these jobs (none named: of all) until `release`."""
        ...

    def release(self, jobs: Sequence[str]) -> None:
        """End the hold of these jobs (none named: of all)."""
        ...

    def accept(self, job: str) -> None:
        """Take the job's suspect snapshot for good, so that forget goes on and the data instant advances."""
        ...

    def start_reader(self, channel: socket) -> ReaderProcess:
        """Start the child process of a restore session, and return without waiting for it to be ready.

        The child calls `control.worker.serve(channel, open_reader)`, where `open_reader()` is a context manager
        that opens the repository, takes the shared lock, loads the index and gives a `SnapshotReader`; it ends
        when `serve` returns. The child's memory is thus gone with the session. This method does not close
        `channel` in the parent; the server does, as soon as the method has returned.
        """
        ...
