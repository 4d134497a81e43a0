"""The exporter on a real port: what Prometheus and a browser get, over TLS and with passwords too."""

import asyncio
import base64
import gzip
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from socket import create_connection
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as open_parser

from pra_agent.daemon.journal import Journal
from pra_agent.errors import ConfigError
from pra_agent.exporter.auth import hash_password
from pra_agent.exporter.gate import Doorkeeper
from pra_agent.exporter.server import ExporterServer
from pra_agent.exporter.settings import ExporterSettings, TlsSettings
from pra_agent.model.jobs import DaemonStatus, JobFact
from pra_agent.model.runs import JobState, JournalReader, Operation, Outcome, RunRecord
from tests.support.clock import FakeClock
from tests.support.daemons import START, LoopThread, MemoryJournal, eventually

parse_open = cast("Callable[[str], Iterable[Metric]]", open_parser.text_string_to_metric_families)
FACTS = [JobFact("app", "files", "0 * * * *", 14400.0, 7200.0)]
STATUS = DaemonStatus("web-1", "1.0", START)


@contextmanager
def exporting(
    journal: JournalReader | None = None,
    *,
    settings: ExporterSettings | None = None,
    facts: list[JobFact] | None = None,
    status: Callable[[], DaemonStatus] = lambda: STATUS,
    keeper: Doorkeeper | None = None,
) -> Iterator[ExporterServer]:
    loop = LoopThread()
    used = FACTS if facts is None else facts
    where = settings or ExporterSettings(listen="127.0.0.1:0")
    server = ExporterServer(where, journal or MemoryJournal(), lambda: used, status, FakeClock(), keeper=keeper)
    try:
        loop.run(server.start())
        yield server
    finally:
        loop.run(server.stop())
        loop.close()


def ask(
    server: ExporterServer, path: str, method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    host, port = server.address
    connection = HTTPConnection(host, port, timeout=60)
    if tls is not None:
        connection = HTTPSConnection(host, port, timeout=60, context=tls)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.fixture
def server() -> Iterator[ExporterServer]:
    with exporting() as made:
        yield made


# ---------------------------------------------------------------- what is served
def test_plain_text_and_open_metrics(server: ExporterServer) -> None:
    answer, body = ask(server, "/metrics")
    assert answer.status == 200
    assert str(answer.headers["Content-Type"]).startswith("text/plain; version=")
    assert b'pra_job_rpo_seconds{backup_job="app"} 14400.0' in body

    answer, body = ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert str(answer.headers["Content-Type"]).startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert list(parse_open(body.decode()))


def test_compressed_when_asked(server: ExporterServer) -> None:
    gzipped = {"Accept-Encoding": "gzip"}
    answer, body = ask(server, "/metrics", "GET", None, **gzipped)

    assert answer.headers["Content-Encoding"] == "gzip"
    assert b"pra_build_info" in gzip.decompress(body)


def test_health_and_readiness() -> None:
    status = [replace(STATUS, ready=False)]
    with exporting(status=lambda: status[0]) as server:
        assert ask(server, "/-/healthy")[0].status == 200
        assert ask(server, "/-/ready")[0].status == 503
        status[0] = STATUS
        assert ask(server, "/-/ready")[0].status == 200


def test_the_page_and_its_headers(server: ExporterServer) -> None:
    answer, body = ask(server, "/")

    assert answer.status == 200
    assert b"Backups of web-1" in body
    policy = str(answer.headers["Content-Security-Policy"])
    assert policy.startswith("default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Server"] == "pra-agent"


@pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy"])
def test_head_is_get_without_body(server: ExporterServer, path: str) -> None:
    answer, body = ask(server, path, "HEAD")

    assert (answer.status, body) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/metrics", "/", "/none"])
def test_it_only_shows(server: ExporterServer, method: str, path: str) -> None:
    answer, _ = ask(server, path, method)

    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/none", "/metrics/", "/../etc/passwd", "/%00"])
def test_other_paths(server: ExporterServer, path: str) -> None:
    assert ask(server, path)[0].status == 404


def test_a_failing_journal_is_an_error_of_that_request_alone() -> None:
    class Broken(MemoryJournal):
        def job_state(self, job: str) -> JobState:
            raise RuntimeError(f"secret {job}")

    with exporting(Broken()) as server:
        answer, body = ask(server, "/metrics")
        assert answer.status == 500
        assert b"secret" not in body
        assert ask(server, "/-/healthy")[0].status == 200


def test_series_follow_the_jobs() -> None:
    facts = list(FACTS)
    with exporting(facts=facts) as server:
        assert b'backup_job="app"' in ask(server, "/metrics")[1]
        facts[:] = [JobFact("db", "dump")]
        body = ask(server, "/metrics")[1]
        assert b'backup_job="app"' not in body
        assert b'backup_job="db"' in body


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01", b"GET /metrics\r\n\r\n", b"X" * 100_000, b"GET / HTTP/9\r\n\r\n"]
)
def test_noise_is_survived(server: ExporterServer, data: bytes) -> None:
    with create_connection(server.address, timeout=60) as sock:
        sock.sendall(data)
    assert ask(server, "/-/healthy")[0].status == 200


@pytest.mark.parametrize("data", [b"", b"GET /metr", b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\nGET /"])
def test_who_never_finishes_is_shown_out(data: bytes) -> None:
    with exporting(keeper=Doorkeeper(header=0.2, idle=0.3)) as server:
        with create_connection(server.address, timeout=60) as sock:
            sock.sendall(data)
            with suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
        assert ask(server, "/-/healthy")[0].status == 200


def test_connections_are_bounded() -> None:
    with exporting(keeper=Doorkeeper(connections=3)) as server, ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(create_connection(server.address, timeout=60))
            sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536)
        with pytest.raises(ConnectionError):
            ask(server, "/-/healthy")
        stack.close()
        eventually(lambda: answers(server), "room again")


def answers(server: ExporterServer) -> bool:
    try:
        return ask(server, "/-/healthy")[0].status == 200
    except ConnectionError:
        return False


def test_promtool_agrees(server: ExporterServer) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here")
    _, body = ask(server, "/metrics")

    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False, timeout=60)
    told = [line for line in done.stderr.decode().splitlines() if "pra_" in line]
    assert told == []


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_a_browser_takes_the_page_and_its_style(server: ExporterServer, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not here")
    host, port = server.address
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}")

    done = subprocess.run(
        [chromium, *options, "--dump-dom", f"http://{host}:{port}/"], capture_output=True, check=True, timeout=100
    )

    assert b"Backups of web-1" in done.stdout
    # The policy allows this style sheet alone, by its checksum; a browser that refuses it says so on its console.
    assert b"Content Security Policy" not in done.stderr


# ---------------------------------------------------------------- the real journal
def test_from_the_real_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    record = RunRecord("r1", Operation.BACKUP, "app", START)
    journal.start(record)
    journal.finish(
        replace(
            record,
            finished=START + timedelta(seconds=30),
            outcome=Outcome.SUCCESS,
            data_instant=START,
            bytes=1000,
            stages={"read": 20.0},
        ),
        advances=True,
    )
    journal.set_gauge("snapshots", 1, "app")
    journal.close()
    # A restart: the values survive.
    journal = Journal(path)
    try:
        with exporting(journal) as server:
            body = ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].decode()
            page = ask(server, "/")[1].decode()
    finally:
        journal.close()

    families = parse_open(body)
    found = {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert found["pra_backup_data_timestamp_seconds", "app", "repository"] == START.timestamp()
    assert found["pra_runs_total", "app", "backup", "success"] == 1
    assert found["pra_snapshots", "app"] == 1
    assert found["pra_backup_awaiting_first", "app"] == 0
    assert found["pra_run_duration_seconds_count", "backup", "read"] == 1
    assert "Last 1 runs: 1 success" in page


# ---------------------------------------------------------------- TLS and passwords
@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsSettings:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    place = tmp_path_factory.mktemp("tls")
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TlsSettings(certificate=place / "cert.pem", key=place / "key.pem", client_ca=None)


def trusting(certificate: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate.certificate))
    context.check_hostname = False
    return context


def test_tls(certificate: TlsSettings) -> None:
    with exporting(settings=ExporterSettings(listen="127.0.0.1:0", tls=certificate)) as server:
        assert ask(server, "/metrics", tls=trusting(certificate))[0].status == 200
        old = trusting(certificate)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert ask(server, "/metrics", tls=old)[0].status == 200


def test_clients_without_the_wanted_certificate_are_refused(certificate: TlsSettings) -> None:
    wanting = certificate.model_copy(update={"client_ca": certificate.certificate})
    with exporting(settings=ExporterSettings(listen="127.0.0.1:0", tls=wanting)) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(server, "/metrics", tls=trusting(certificate))
        own = trusting(certificate)
        own.load_cert_chain(certificate.certificate, certificate.key)
        assert ask(server, "/metrics", tls=own)[0].status == 200


def test_passwords(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"prom:{hash_password('sesame')}\n")
    with exporting(settings=ExporterSettings(listen="127.0.0.1:0", users=users)) as server:
        answer, body = ask(server, "/metrics")
        assert answer.status == 401
        assert str(answer.headers["WWW-Authenticate"]).startswith("Basic")
        assert b"pra_" not in body
        assert ask(server, "/")[0].status == 401
        for word, status in (("sesame", 200), ("wrong", 401)):
            token = base64.b64encode(f"prom:{word}".encode()).decode()
            assert ask(server, "/metrics", Authorization=f"Basic {token}")[0].status == status
        assert ask(server, "/-/healthy")[0].status == 200


def refused(settings: ExporterSettings) -> None:
    server = ExporterServer(settings, MemoryJournal(), lambda: FACTS, lambda: STATUS, FakeClock())

    async def attempt() -> None:
        try:
            await server.start()
        finally:
            await server.stop()

    asyncio.run(attempt())


def test_what_cannot_be_served_is_told(server: ExporterServer, tmp_path: Path, certificate: TlsSettings) -> None:
    with pytest.raises(ConfigError, match=r"exporter\.listen"):
        refused(ExporterSettings(listen=f"127.0.0.1:{server.address[1]}"))
    (tmp_path / "key.pem").write_text("no key")
    broken = certificate.model_copy(update={"key": tmp_path / "key.pem"})
    with pytest.raises(ConfigError, match=r"exporter\.tls"):
        refused(ExporterSettings(listen="127.0.0.1:0", tls=broken))
    with pytest.raises(ConfigError, match="users"):
        refused(ExporterSettings(listen="127.0.0.1:0", users=tmp_path / "users"))
