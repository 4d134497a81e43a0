"""The client of the control socket, synchronous.

    client = Client(Path("/run/pra-agent/control.sock"))
    client.status(); client.jobs(); client.runs(job=...); client.run(id)
    record = client.run_job("app-data", on_event=print)     # waits; without on_event and wait: returns the run's id
    with client.session("restore of app-data") as reader:   # a model.snapshots.SnapshotReader
        reader.snapshots(); reader.sizes(handles); reader.read(handles)

Every error that the daemon tells is raised as its class of `errors`; nobody at the socket is `DaemonUnreachable`.
A client may be used from several threads.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import orjson

from pra_agent.control.connection import Connection, Connections
from pra_agent.control.protocol import JSON_TYPE, RENEW, error_of
from pra_agent.control.reader import SessionReader
from pra_agent.control.wire import event_of, job_of, run_of, status_of
from pra_agent.errors import DaemonUnreachable, PraError
from pra_agent.model.events import Event
from pra_agent.model.jobs import DaemonStatus, JobStatus
from pra_agent.model.runs import Operation, RunRecord

#: Gets each event of a run that is waited for.
OnEvent = Callable[[Event], None]


class Client:
    """Talks to the daemon that listens at a path."""

    def __init__(self, path: Path) -> None:
        self._connections = Connections(path)

    def close(self) -> None:
        """Close idle connections; the client can be used again."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ status
    def status(self) -> DaemonStatus:
        """Ask for the daemon itself."""
        return status_of(self._ask("GET", "/v1/status"))

    def jobs(self) -> list[JobStatus]:
        """Ask for all jobs as they stand."""
        return [job_of(item) for item in self._ask("GET", "/v1/jobs")]

    def runs(self, *, job: str | None = None, limit: int = 100) -> list[RunRecord]:
        """Ask for runs, the newest first."""
        query = {"limit": str(limit)} | ({"job": job} if job else {})
        return [run_of(item) for item in self._ask("GET", f"/v1/runs?{urlencode(query)}")]

    def run(self, run_id: str) -> RunRecord:
        """Ask for one run; raises `NotFound`."""
        return run_of(self._ask("GET", f"/v1/runs/{quote(run_id, safe='')}"))

    # ------------------------------------------------------------ runs
    def start_job(self, job: str, *, full: bool = False) -> str:
        """Start a backup of the job and return the run's id at once."""
        return str(self._ask("POST", f"/v1/jobs/{quote(job, safe='')}/run", {"full": full})["run"])

    def run_job(self, job: str, on_event: OnEvent | None = None, *, full: bool = False) -> RunRecord:
        """Start a backup of the job, tell its events, and return its record. Losing the connection stops no run."""
        return self._follow("POST", f"/v1/jobs/{quote(job, safe='')}/run?wait", {"full": full}, on_event)

    def start(self, operation: Operation, **options: object) -> str:
        """Start another operation (`job`, `dry_run`, `read_data_subset`) and return the run's id at once."""
        return str(self._ask("POST", f"/v1/operations/{operation.value}", options)["run"])

    def operate(self, operation: Operation, on_event: OnEvent | None = None, **options: object) -> RunRecord:
        """Start another operation, tell its events, and return its record."""
        return self._follow("POST", f"/v1/operations/{operation.value}?wait", options, on_event)

    def follow(self, run_id: str, on_event: OnEvent | None = None) -> RunRecord:
        """Tell the events of a run from now on, and return its record."""
        return self._follow("GET", f"/v1/runs/{quote(run_id, safe='')}/events", None, on_event)

    def pause(self, run_id: str) -> None:
        """Let a run stand still."""
        self._steer(run_id, "pause")

    def resume(self, run_id: str) -> None:
        """Let a paused run go on."""
        self._steer(run_id, "resume")

    def stop(self, run_id: str) -> None:
        """Ask a run to stop, or take it out of the queue."""
        self._steer(run_id, "stop")

    def escrow_proven(self, slot: str) -> None:
        """Tell that this escrow slot (hex id) was proven to open the repository just now; root only."""
        self._ask("POST", "/v1/escrow/proven", {"slot": slot})

    def hold(self, jobs: Sequence[str] = (), reason: str = "") -> None:
        """Start no scheduled run of these jobs (none named: of all) until the release."""
        self._ask("POST", "/v1/hold", {"jobs": list(jobs), "reason": reason})

    def release(self, jobs: Sequence[str] = ()) -> None:
        """End the hold."""
        self._ask("POST", "/v1/release", {"jobs": list(jobs)})

    def accept(self, job: str) -> None:
        """Accept the job's suspect snapshot."""
        self._ask("POST", f"/v1/jobs/{quote(job, safe='')}/accept")

    # ------------------------------------------------------------ restores
    @contextmanager
    def session(self, purpose: str = "") -> Generator[SessionReader, None, None]:
        """Open a restore session, which holds the repository's shared lock, and end it on exit.

        The lease is renewed in a thread. Opening takes as long as the repository takes to open.
        """
        told = self._ask("POST", "/v1/restores", {"purpose": purpose[:500]})
        path = f"/v1/restores/{told['restore']}"
        ended = threading.Event()
        pause = min(RENEW, float(told["lease_seconds"]) / 3)
        keeper = threading.Thread(target=self._renew, args=(path, pause, ended), daemon=True)
        keeper.start()
        reader = SessionReader(self._connections, str(told["restore"]))
        try:
            yield reader
        finally:
            ended.set()
            keeper.join()
            self._end(path)

    def _renew(self, path: str, pause: float, ended: threading.Event) -> None:
        while not ended.wait(pause):
            try:
                self._ask("PUT", path)
            except PraError:
                # The next read tells the caller; here nobody listens.
                return

    def _end(self, path: str) -> None:
        try:
            self._ask("DELETE", path)
        except PraError:
            # The session ended by itself, or the daemon did: there is nothing left to end.
            return

    # ------------------------------------------------------------ helpers
    def _steer(self, run_id: str, verb: str) -> None:
        self._ask("POST", f"/v1/runs/{quote(run_id, safe='')}/{verb}")

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 - JSON
        with self._connections.lend() as connection:
            response = _send(connection, method, path, body)
            data = response.read()
        if response.status >= 400:
            raise _error(response, data)
        return _json(data) if data else None

    def _follow(self, method: str, path: str, body: Mapping[str, object] | None, on_event: OnEvent | None) -> RunRecord:
        with self._connections.lend() as connection:
            response = _send(connection, method, path, body)
            if response.status >= 400:
                raise _error(response, response.read())
            for line in _lines(response):
                event = event_of(line)
                if isinstance(event, RunRecord):
                    response.read()
                    return event
                if event is not None and on_event is not None:
                    on_event(event)
        raise DaemonUnreachable(
            "the daemon closed the connection before the run ended",
            advice="The run goes on if the daemon does; pra-agent status shows it.",
        )


def _send(connection: Connection, method: str, path: str, body: Mapping[str, object] | None) -> HTTPResponse:
    if body is None:
        return connection.ask(method, path, b"", {})
    return connection.ask(method, path, orjson.dumps(body), {"Content-Type": JSON_TYPE})


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while line := response.readline():
            yield line
    except (OSError, HTTPException) as error:
        raise DaemonUnreachable(
            f"the connection to the daemon broke: {error}",
            advice="The run goes on if the daemon does; pra-agent status shows it.",
        ) from error


def _json(data: bytes) -> Any:  # noqa: ANN401 - whatever JSON can say
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise PraError("the daemon gave an answer that is not JSON") from error


def _error(response: HTTPResponse, data: bytes) -> PraError:
    try:
        return error_of(orjson.loads(data))
    except orjson.JSONDecodeError:
        return PraError(f"the daemon refused the request: {response.status} {response.reason}")
