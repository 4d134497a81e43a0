"""The control socket on real sockets and processes: who is let in, what is served, and what nothing can break."""

import hashlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pra_agent.control import protocol
from pra_agent.control.client import Client
from pra_agent.control.connection import Connection
from pra_agent.control.daemon import OperationRequest
from pra_agent.control.gate import Limits
from pra_agent.control.peers import Role
from pra_agent.control.reader import SessionReader
from pra_agent.control.routes import ROUTES, Route
from pra_agent.control.server import ControlServer
from pra_agent.control.settings import ControlSettings
from pra_agent.errors import (
    AccessDenied,
    DaemonUnreachable,
    DamagedError,
    Locked,
    NotFound,
    PraError,
    RefusedError,
    UsageError,
    WrongKey,
)
from pra_agent.model.events import Event, FileFailed, Progress
from pra_agent.model.ids import BlobHandle, BlobType
from pra_agent.model.jobs import Health
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import Snapshot
from tests.support.daemons import START, FakeDaemon, as_user, blob, eventually, serving

STRANGER, RUN_GID, READ_GID = 64321, 64301, 64302
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root to act as another user")


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pra-") as place:
        yield Path(place) / "run" / "control.sock"


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
def server(daemon: FakeDaemon, path: Path) -> Iterator[ControlServer]:
    with serving(daemon, path) as made:
        yield made


@pytest.fixture
def client(server: ControlServer, path: Path) -> Iterator[Client]:
    with Client(path) as made:
        yield made


def ask(path: Path, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = Connection(path)
    try:
        answer = connection.ask(method, target, body, headers)
        return answer.status, answer.read()
    finally:
        connection.close()


# ---------------------------------------------------------------- jobs and runs
def test_status_jobs_and_runs(client: Client, daemon: FakeDaemon) -> None:
    record = RunRecord("r1", Operation.BACKUP, "app", START, START + timedelta(seconds=4), Outcome.SUCCESS, bytes=7)
    daemon.journal.records.append(record)
    daemon.journal.instants["app"] = {"": START}

    assert client.status() == daemon.state
    (job,) = client.jobs()
    assert (job.fact, job.last_success, job.health) == (daemon.facts[0], record, Health.BREACHED)
    assert client.runs() == [record]
    assert client.runs(job="other") == []
    assert client.run("r1") == record
    with pytest.raises(NotFound):
        client.run("r2")


def test_a_run_is_followed_to_its_end(client: Client, daemon: FakeDaemon) -> None:
    done = RunRecord("run-1", Operation.BACKUP, "app", START, START, Outcome.PARTIAL)
    seen: list[Event] = []

    def work() -> None:
        eventually(lambda: daemon.listeners.get("run-1"), "a listener")
        daemon.emit("run-1", Progress("read", 1))
        daemon.emit("run-1", FileFailed("/a", "gone"))
        eventually(lambda: len(seen) == 2, "both events")
        daemon.emit("run-1", done)

    worker = threading.Thread(target=work)
    worker.start()
    assert client.run_job("app", seen.append, full=True) == done
    worker.join()

    assert daemon.told == [("run", "app", True)]
    assert set(seen) == {Progress("read", 1), FileFailed("/a", "gone")}
    eventually(lambda: not daemon.listeners["run-1"], "the listener leaves")


def test_a_follower_that_goes_away_stops_nothing(client: Client, daemon: FakeDaemon, path: Path) -> None:
    run_id = client.start_job("app")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: daemon.listeners.get(run_id), "a listener")

    def gone() -> bool:
        daemon.emit(run_id, Progress("read"))
        return not daemon.listeners[run_id]

    eventually(gone, "the listener leaves")
    assert client.run(run_id).outcome is None


def test_runs_are_paused_resumed_and_stopped(client: Client, daemon: FakeDaemon) -> None:
    run = client.start_job("app")
    for steer in (client.pause, client.resume, client.stop):
        steer(run)
        with pytest.raises(NotFound):
            steer("no-such-run")
    assert daemon.told[1:] == [("pause", run), ("resume", run), ("stop", run)]


@needs_root
def test_only_root_says_that_an_escrow_slot_was_proven(server: ControlServer, path: Path, daemon: FakeDaemon) -> None:
    slot = "ab" * 32
    with Client(path) as client:
        client.escrow_proven(slot)
        with pytest.raises(UsageError, match="slot"):
            client.escrow_proven("abc")
    assert daemon.told == [("escrow_proven", slot)]
    (route,) = [one for one in ROUTES if not one.roles]
    assert route.name == "escrow_proven"


def test_operations_hold_release_accept(client: Client, daemon: FakeDaemon) -> None:
    client.start(Operation.CHECK, read_data_subset="5%")
    client.hold(["app"], "after a restore")
    client.release()
    client.accept("app")

    assert daemon.told == [
        ("start", OperationRequest(Operation.CHECK, read_data_subset="5%")),
        ("hold", ("app",), "after a restore"),
        ("release", ()),
        ("accept", "app"),
    ]


def test_only_configured_jobs_and_known_options_come_in(client: Client, daemon: FakeDaemon) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: client.start_job("other"),
        lambda: client.accept("other"),
        lambda: client.hold(["other"]),
        lambda: client.start(Operation.DRILL, job="other"),
        lambda: client.start(Operation.CHECK, command="id"),
        lambda: client.start(Operation.CHECK, read_data_subset="$(id)"),
        lambda: client.start(Operation.BACKUP),
        lambda: client.start_job("../../etc"),
    ]
    for attempt in attempts:
        with pytest.raises(UsageError):
            attempt()
    assert daemon.told == []


def test_the_daemons_error_arrives_as_itself(client: Client, daemon: FakeDaemon) -> None:
    daemon.refuses = Locked("host b holds the lock", advice="Wait.")

    with pytest.raises(Locked, match="host b") as caught:
        client.start_job("app")
    assert caught.value.advice == "Wait."


def test_nobody_at_the_socket(path: Path) -> None:
    with Client(path) as client, pytest.raises(DaemonUnreachable):
        client.status()


def test_a_restarted_daemon_is_found_again(daemon: FakeDaemon, path: Path) -> None:
    with Client(path) as client:
        for _ in range(2):
            with serving(daemon, path):
                assert client.status().node == "web-1"


# ---------------------------------------------------------------- restore sessions
def filled(daemon: FakeDaemon, *sizes: int) -> list[BlobHandle]:
    return [daemon.reader.add(hashlib.sha256(b"%d" % at).digest() * (size // 32)) for at, size in enumerate(sizes)]


def test_a_session_reads_all(client: Client, server: ControlServer, daemon: FakeDaemon) -> None:
    handles = filled(daemon, 32, 64_000, 8 * 1024 * 1024, *range(320, 320 * 200, 320))
    handles.append(daemon.reader.add(b'{"nodes":[]}', BlobType.TREE))
    daemon.reader.listed.append(Snapshot(START, bytes(32), ("/srv",), "web-1", id="ab" * 32, nanoseconds=5))

    with client.session("a test") as reader:
        assert reader.snapshots() == daemon.reader.listed
        absent = blob(b"absent")
        assert reader.sizes([*handles, absent]) == {handle: len(daemon.reader.blobs[handle]) for handle in handles}
        assert dict(reader.read(handles * 2)) == daemon.reader.blobs
        assert list(reader.read([])) == []
        assert server.sessions == 1
        assert daemon.opened[0].alive()
    eventually(lambda: server.sessions == 0, "the session ends")
    assert not daemon.opened[0].alive()


def test_reads_may_run_side_by_side(client: Client, daemon: FakeDaemon) -> None:
    handles = filled(daemon, *[1024 * 1024] * 24)

    with client.session() as reader:
        first, second = reader.read(handles), reader.read(reversed(handles))
        pairs = list(zip(first, second, strict=True))
    assert [pair[0][0] for pair in pairs] == handles


def test_a_read_may_be_left_early(client: Client, daemon: FakeDaemon) -> None:
    handles = filled(daemon, *[1024 * 1024] * 24)

    with client.session() as reader:
        for _ in range(20):
            stream = iter(reader.read(handles))
            assert next(stream)[0] == handles[0]
            del stream
        assert len(list(reader.read(handles))) == len(handles)


def test_a_refusal_arrives_before_the_question_is_read(client: Client) -> None:
    reader = SessionReader(client._connections, "x" * 30)

    with pytest.raises(NotFound, match="no such restore session"):
        reader.sizes(BlobHandle(BlobType.DATA, number.to_bytes(32, "big")) for number in range(100_000))


def test_a_missing_blob_is_named(client: Client, daemon: FakeDaemon) -> None:
    handles = filled(daemon, 32, 64)
    absent = blob(b"absent")

    with client.session() as reader:
        seen = []
        with pytest.raises(DamagedError, match=str(absent)):
            for handle, _ in reader.read([*handles, absent]):
                seen.append(handle)
        assert seen == handles
        assert len(list(reader.read(handles))) == 2


def test_a_changed_blob_is_refused_by_the_client(client: Client, daemon: FakeDaemon) -> None:
    (handle,) = filled(daemon, 64)
    daemon.reader.blobs[handle] = b"forged"

    with client.session() as reader, pytest.raises(DamagedError, match="not the one"):
        list(reader.read([handle]))


def test_an_error_of_opening_is_the_clients(client: Client, server: ControlServer, daemon: FakeDaemon) -> None:
    daemon.refuses = WrongKey("no slot opens")

    with pytest.raises(WrongKey), client.session():
        pytest.fail("there is no session")
    eventually(lambda: server.sessions == 0, "nothing stays")


def test_a_bug_while_opening_is_told_without_details(client: Client, daemon: FakeDaemon) -> None:
    daemon.refuses = ZeroDivisionError("secret")  # type: ignore[assignment]

    with pytest.raises(PraError, match="log tells why"), client.session():
        pytest.fail("there is no session")


def test_a_reader_that_is_killed_in_the_middle(client: Client, server: ControlServer, daemon: FakeDaemon) -> None:
    handles = filled(daemon, *[1024 * 1024] * 64)

    with pytest.raises(DaemonUnreachable), client.session() as reader:
        for number, _ in enumerate(reader.read(handles)):
            if number == 3:
                os.kill(daemon.opened[0].pid, signal.SIGKILL)
    eventually(lambda: server.sessions == 0, "the session is gone")
    assert client.status().node == "web-1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_client_that_dies_in_mid_restore(daemon: FakeDaemon, path: Path) -> None:
    handles = filled(daemon, *[1024 * 1024] * 64)

    def restore() -> None:
        with Client(path) as client, client.session() as reader:
            for number, _ in enumerate(reader.read(handles)):
                if number == 3:
                    os.kill(os.getpid(), signal.SIGKILL)

    with serving(daemon, path, lease=0.5) as server:
        with pytest.raises(EOFError):
            as_user(os.getuid(), os.getgroups(), restore)
        eventually(lambda: server.sessions == 0 and daemon.opened and not daemon.opened[0].alive(), "the lease ends")
        with Client(path) as client, client.session() as reader:
            assert len(list(reader.read(handles))) == len(handles)


def test_a_lease_ends_without_use_and_is_renewed_by_the_client(daemon: FakeDaemon, path: Path) -> None:
    (handle,) = filled(daemon, 64)
    ended = threading.Event()
    with serving(daemon, path, lease=0.4) as server, Client(path) as client:
        with client.session() as reader:
            # Several leases long: the client's own renewal keeps it.
            assert not ended.wait(1.5)
            assert len(list(reader.read([handle]))) == 1
        _, data = ask(path, "POST", "/v1/restores")
        left = SessionReader(client._connections, orjson.loads(data)["restore"])
        assert len(list(left.read([handle]))) == 1
        eventually(lambda: server.sessions == 0, "the lease ends")
        with pytest.raises(NotFound, match="no such restore session"):
            list(left.read([handle]))


def test_a_session_that_is_used_does_not_end(daemon: FakeDaemon, path: Path) -> None:
    handles = filled(daemon, *[1024 * 1024] * 8)
    with serving(daemon, path, lease=0.2), Client(path) as client:
        _, data = ask(path, "POST", "/v1/restores")
        reader = SessionReader(client._connections, orjson.loads(data)["restore"])
        pause = threading.Event()
        seen = []
        for handle, _ in reader.read(handles):
            seen.append(handle)
            pause.wait(0.1)
        assert seen == handles


def test_sessions_are_bounded(daemon: FakeDaemon, path: Path) -> None:
    with serving(daemon, path, limits=Limits(sessions=2)), Client(path) as client:
        with (
            client.session(),
            client.session(),
            pytest.raises(RefusedError, match="2 restore sessions"),
            client.session(),
        ):
            pytest.fail("one too many")
        with client.session():
            pass


def test_a_child_that_ends_before_it_is_ready(client: Client, server: ControlServer, daemon: FakeDaemon) -> None:
    daemon.refuses = SystemExit()  # type: ignore[assignment]

    with pytest.raises(PraError, match="before it was ready"), client.session():
        pytest.fail("there is no session")


def test_a_child_that_does_not_end_is_killed(
    client: Client, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pra_agent.control.sessions.CLOSING", 0.2)
    with client.session() as reader:
        reader.snapshots()
        os.kill(daemon.opened[0].pid, signal.SIGSTOP)
    assert not daemon.opened[0].alive()


def test_no_session_is_opened_while_the_server_stops(daemon: FakeDaemon, path: Path) -> None:
    with serving(daemon, path) as server, Client(path) as client:
        assert server._sessions is not None
        server._sessions._stopping = True
        with pytest.raises(RefusedError, match="stops"), client.session():
            pytest.fail("there is no session")


def test_a_stopping_server_ends_its_sessions(daemon: FakeDaemon, path: Path) -> None:
    with Client(path) as client:
        with serving(daemon, path), client.session() as reader:
            reader.snapshots()
        assert not daemon.opened[0].alive()
    assert not path.exists()


def test_single_requests_share_a_session(client: Client, server: ControlServer, daemon: FakeDaemon, path: Path) -> None:
    daemon.reader.listed += [Snapshot(START, bytes(32), ("/srv",), "web-1", id=two * 32) for two in ("ab", "ac")]
    tree = daemon.reader.add(b'{"nodes":[]}', BlobType.TREE)

    status, data = ask(path, "GET", "/v1/snapshots")
    assert (status, [item["id"] for item in orjson.loads(data)]) == (200, ["ab" * 32, "ac" * 32])
    assert orjson.loads(ask(path, "GET", "/v1/snapshots/abab")[1])["id"] == "ab" * 32
    assert ask(path, "GET", "/v1/snapshots/adad")[0] == 404
    assert ask(path, "GET", "/v1/snapshots/ab")[0] == 400
    assert ask(path, "GET", f"/v1/trees/{tree.id.hex()}") == (200, b'{"nodes":[]}')
    assert ask(path, "GET", f"/v1/trees/{'00' * 32}")[0] == 404
    assert server.sessions == 1
    assert len(daemon.opened) == 1


def test_blobs_by_json(client: Client, daemon: FakeDaemon, path: Path) -> None:
    (handle,) = filled(daemon, 64)
    tree = daemon.reader.add(b"{}", BlobType.TREE)
    lists = {
        "/v1/blobs": (orjson.dumps([["data", handle.id.hex()]]), handle),
        "/v1/trees": (orjson.dumps([tree.id.hex()]), tree),
    }
    for target, (body, wanted) in lists.items():
        status, data = ask(path, "POST", target, body, **{"Content-Type": "application/json"})
        assert status == 200
        (length,) = protocol.LENGTH.unpack_from(data)
        frames = list(protocol.parse_batch(memoryview(data)[4 : 4 + length]))
        assert frames == [(wanted, daemon.reader.blobs[wanted]), (None, b"")]


# ---------------------------------------------------------------- who is let in
def opened_to_all(path: Path) -> None:
    """Let everybody connect, as a careless socket unit might: the server must decide alone."""
    path.chmod(0o666)
    path.parent.chmod(0o755)
    path.parent.parent.chmod(0o755)


def status_for(uid: int, gids: list[int], path: Path, route: Route) -> int:
    target = route.path.replace("{job}", "app").replace("{operation}", "check").replace("{id}", "ab" * 32)
    target = target.replace("{run}", "r1").replace("{restore}", "x" * 30)

    def work() -> int:
        return ask(path, route.method, target)[0]

    status = as_user(uid, gids, work)
    assert isinstance(status, int)
    return status


@needs_root
def test_a_stranger_cannot_even_connect(server: ControlServer, path: Path) -> None:
    def work() -> None:
        with Client(path) as client:
            client.status()

    path.parent.parent.chmod(0o755)
    with pytest.raises(AccessDenied, match="may not talk"):
        as_user(STRANGER, [], work)


@needs_root
def test_a_stranger_who_can_connect_is_refused_everywhere(server: ControlServer, path: Path) -> None:
    opened_to_all(path)

    assert {status_for(STRANGER, [], path, route) for route in ROUTES} == {403}


@needs_root
@pytest.mark.parametrize("role", list(Role))
def test_a_group_gets_what_it_was_given_and_no_more(
    daemon: FakeDaemon, path: Path, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    gids = {"pra-test-run": RUN_GID, "pra-test-read": READ_GID}
    monkeypatch.setattr("pra_agent.control.peers._gids", lambda names: frozenset(gids[name] for name in names))
    settings_ = ControlSettings(socket=path, run=("pra-test-run",), read=("pra-test-read",))
    with serving(daemon, path, settings=settings_):
        path.parent.parent.chmod(0o755)
        member = [RUN_GID if role is Role.RUN else READ_GID]
        for route in ROUTES:
            if route.name == "events":
                continue
            refused = status_for(STRANGER, member, path, route) == 403
            assert refused == (role not in route.roles), route.path


@needs_root
def test_a_session_is_its_owners(
    server: ControlServer, client: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_to_all(path)

    def steal(restore: str) -> int:
        return ask(path, "PUT", f"/v1/restores/{restore}")[0]

    _, data = ask(path, "POST", "/v1/restores")
    restore = orjson.loads(data)["restore"]
    monkeypatch.setattr(server._access, "roles", lambda _peer: frozenset(Role))
    assert as_user(STRANGER, [], lambda: steal(restore)) == 404
    assert steal(restore) == 200


# ---------------------------------------------------------------- what nothing can break
def raw(path: Path, data: bytes, *, close: bool = True) -> bytes:
    """Send bytes and read until the server closes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        try:
            sock.sendall(data)
            if close:
                sock.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            return b""
        return answer


MALFORMED = {
    "nothing": b"",
    "noise": bytes(range(256)) * 10,
    "no version": b"GET /v1/status\r\n\r\n",
    "old version": b"GET /v1/status HTTP/0.9\r\n\r\n",
    "no blobs by HTTP/1.0": b"POST /v1/blobs HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
    "half a header": b"GET /v1/status HTTP/1.1\r\nHo",
    "half a body": b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "negative length": b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": b"POST /v1/hold HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
    "bad chunk": b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "long target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "long header": b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": b"GET /v1/status HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "upgrade": b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT": b"CONNECT example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": b"GET http://example/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "zip bomb": b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "pipelined": b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests(client: Client, path: Path, data: bytes) -> None:
    answer = raw(path, data)

    assert answer == b"" or answer.startswith(b"HTTP/1.")
    assert b"Traceback" not in answer
    assert client.status().node == "web-1"


BAD_REQUESTS: list[tuple[str, str, bytes, int]] = [
    ("GET", "/", b"", 404),
    ("GET", "/v2/status", b"", 404),
    ("DELETE", "/v1/status", b"", 405),
    ("PATCH", "/v1/jobs/app/run", b"", 405),
    ("GET", "/v1/status?x=1", b"", 400),
    ("GET", "/v1/runs?limit=0", b"", 400),
    ("GET", "/v1/runs?limit=99999999", b"", 400),
    ("GET", "/v1/runs?job=../x", b"", 400),
    ("POST", "/v1/hold", b"{", 400),
    ("POST", "/v1/hold", b"[]", 400),
    ("POST", "/v1/hold", b'{"jobs": "app"}', 400),
    ("POST", "/v1/hold", b'{"odd": 1}', 400),
    ("POST", "/v1/hold", b'{"reason": "' + b"x" * 600 + b'"}', 400),
    ("POST", "/v1/hold", b"[" * 60_000, 400),
    ("POST", "/v1/hold", b" " * 70_000, 413),
    ("POST", "/v1/jobs/app/run", b'{"full": "perhaps"}', 400),
    ("POST", "/v1/operations/restore", b"", 400),
    ("GET", "/v1/trees/xyz", b"", 400),
    ("GET", "/v1/trees/" + "ab" * 32 + "?restore=short", b"", 400),
    ("POST", "/v1/blobs?restore=" + "x" * 30, b"", 404),
    ("POST", "/v1/blobs", b"odd", 400),
    ("POST", "/v1/sizes", b"x" * 33, 400),
    ("POST", "/v1/trees", b"d" + bytes(32), 400),
    ("PUT", "/v1/restores/" + "x" * 30, b"", 404),
    ("DELETE", "/v1/restores/short", b"", 400),
]


@pytest.mark.parametrize(("method", "target", "body", "status"), BAD_REQUESTS)
def test_bad_requests_are_told(client: Client, path: Path, method: str, target: str, body: bytes, status: int) -> None:
    got, data = ask(path, method, target, body)

    assert got == status
    assert set(orjson.loads(data)) == {"error", "kind", "exit_code", "advice"}


def test_a_body_that_does_not_come(daemon: FakeDaemon, path: Path) -> None:
    with serving(daemon, path, limits=Limits(body=0.2)):
        answer = raw(path, b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", close=False)
        assert answer.startswith(b"HTTP/1.1 408")
        answer = raw(path, b"POST /v1/blobs HTTP/1.1\r\nHost: x\r\nContent-Length: 33\r\n\r\nd", close=False)
        assert answer.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("data", [b"", b"GET /v1/sta", b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/"])
def test_a_header_that_does_not_come(daemon: FakeDaemon, path: Path, data: bytes) -> None:
    with serving(daemon, path, limits=Limits(header=0.2, idle=0.4)):
        assert raw(path, data, close=False).count(b"HTTP/1.1") == data.count(b"\r\n\r\n")


@needs_root
def test_one_users_connections_do_not_lock_others_out(daemon: FakeDaemon, path: Path) -> None:
    def crowd() -> int:
        socks = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for sock in socks:
            sock.settimeout(60)
            sock.connect(str(path))
        refused = 0
        for sock in socks[4:]:
            try:
                refused += sock.recv(1) == b""
            except ConnectionResetError:
                refused += 1
        return refused

    with serving(daemon, path, limits=Limits(connections_per_user=4)):
        opened_to_all(path)
        assert as_user(STRANGER, [], crowd) == 16
        assert ask(path, "GET", "/v1/status")[0] == 200


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)
PARTS = st.one_of(TEXT, st.sampled_from(["app", "check", "ab" * 32, "..", "%2e%2e", "*", "a" * 300]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A request that the table of routes suggests, more or less."""
    from urllib.parse import quote, urlencode

    route = draw(st.sampled_from(ROUTES))
    target = "/".join(quote(draw(PARTS), safe="%") if part.startswith("{") else part for part in route.path.split("/"))
    known = [parameter.name for parameter in route.parameters] + ["odd"]
    query = draw(st.dictionaries(st.sampled_from(known), PARTS, max_size=2))
    body = draw(st.one_of(st.just(b""), st.binary(max_size=100), JSON.map(orjson.dumps)))
    return route.method, f"{target}?{urlencode(query)}" if query else target, body


def test_whatever_the_table_suggests_is_answered(client: Client, daemon: FakeDaemon, path: Path) -> None:
    connection: HTTPConnection = Connection(path)

    @settings(max_examples=200)
    @given(requests(), st.sampled_from(["application/json", "application/octet-stream", "text/plain"]))
    def fuzz(request: tuple[str, str, bytes], content_type: str) -> None:
        method, target, body = request
        if target.endswith("/events") or "wait" in target:
            return
        connection.request(method, target, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status < 500, (request, data)
        if answer.status >= 400:
            assert set(orjson.loads(data)) == {"error", "kind", "exit_code", "advice"}

    try:
        fuzz()
    finally:
        connection.close()
    assert client.status().node == "web-1"


def test_any_bytes_are_answered_or_closed(client: Client, path: Path) -> None:
    @settings(max_examples=150)
    @given(st.binary(max_size=300), st.sampled_from([b"", b"GET /v1/jobs HTTP/1.1\r\n", b"POST /v1/hold HTTP/1.1\r\n"]))
    def fuzz(data: bytes, start: bytes) -> None:
        answer = raw(path, start + data)
        assert answer == b"" or answer.startswith(b"HTTP/1.")

    fuzz()
    assert client.status().node == "web-1"
