"""Prometheus and Grafana as sources: the real Prometheus; Grafana's database with a stand-in for its health address."""

import http.server
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager

import pytest

from pra_agent.errors import RefusedError, SourceError
from pra_agent.sources import web
from pra_agent.sources.grafana import GrafanaSettings
from pra_agent.sources.prometheus import PrometheusSettings
from tests.support.captures import MemoryState, put_back, take
from tests.support.process import free_port

pytestmark = [pytest.mark.xdist_group("prometheus"), pytest.mark.timeout(180)]


class _Prometheus:
    def __init__(self, home):
        self.home, self.port = home, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        argv = ["prometheus", f"--config.file={self.home}/etc/prometheus.yml", f"--storage.tsdb.path={self.home}/data"]
        argv += [f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-admin-api", "--log.level=error"]
        self.process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(300):
            if not web.is_well(f"{self.url}/-/ready"):
                return
            time.sleep(0.1)
        raise AssertionError("Prometheus does not start")

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def points(self):
        told = web.ask_json(f"{self.url}/api/v1/query?query=count_over_time(prometheus_build_info[1d])")
        found = told["data"]["result"]
        return int(found[0]["value"][1]) if found else 0


@pytest.fixture
def prometheus(tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus (make testbed as root)")
    server = _Prometheus(tmp_path / "prometheus")
    (server.home / "etc").mkdir(parents=True)
    (server.home / "etc/prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: self, static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]}}]\n"
    )
    server.start()
    yield server
    server.stop()


def test_prometheus_comes_back(prometheus, tmp_path):
    settings = PrometheusSettings(
        url=prometheus.url, data_dir=prometheus.home / "data", config_dir=prometheus.home / "etc"
    )
    for _ in range(300):
        if prometheus.points() >= 3:
            break
        time.sleep(0.1)
    before, state = prometheus.points(), MemoryState()
    take(settings.build(), tmp_path / "out", state=state)
    assert not state.pending()
    assert list((prometheus.home / "data/snapshots").iterdir()) == []
    with pytest.raises(RefusedError, match="something in it"):
        put_back(settings.build(), tmp_path / "out")
    with pytest.raises(SourceError, match="is running"):
        put_back(settings.build(), tmp_path / "out", force=True)
    prometheus.stop()
    shutil.rmtree(prometheus.home / "data")
    (prometheus.home / "etc/prometheus.yml").write_text("broken")
    put_back(settings.build(), tmp_path / "out", force=True)
    prometheus.start()
    assert prometheus.points() >= before


def test_prometheus_that_refuses(prometheus, tmp_path):
    wrong = PrometheusSettings(url=prometheus.url, data_dir=tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="cannot be read"):
        take(wrong.build(), tmp_path / "out")
    prometheus.stop()
    with pytest.raises(SourceError, match="refused"):
        take(PrometheusSettings(url=prometheus.url, data_dir=prometheus.home / "data").build(), tmp_path / "out")


@contextmanager
def _health(answers):
    """An address that answers like Grafana's health check does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if answers() else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_grafana_comes_back(tmp_path):
    home, scratch = tmp_path / "grafana", tmp_path / "scratch"
    (home / "provisioning").mkdir(parents=True)
    scratch.mkdir()
    (home / "provisioning/datasource.yml").write_text("apiVersion: 1\n")
    database = home / "grafana.db"
    with closing(sqlite3.connect(database)) as made, made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE dashboard (title TEXT)")
        made.execute("INSERT INTO dashboard VALUES ('RPO fleet')")
    running = True
    with _health(lambda: running) as url:
        settings = GrafanaSettings(url=url, database=database, directories=(home / "provisioning",))
        take(settings.build(), tmp_path / "out", scratch=str(scratch))
        assert list(scratch.iterdir()) == []
        with pytest.raises(RefusedError, match="exists"):
            put_back(settings.build(), tmp_path / "out")
        with pytest.raises(SourceError, match="is running"):
            put_back(settings.build(), tmp_path / "out", force=True)
        running = False
        database.with_name("grafana.db-wal").write_bytes(b"an old journal")
        with closing(sqlite3.connect(tmp_path / "new.db")) as other, other:
            other.execute("CREATE TABLE empty (a)")
        shutil.move(tmp_path / "new.db", database)
        put_back(settings.build(), tmp_path / "out", force=True)
    with closing(sqlite3.connect(database)) as back:
        assert back.execute("SELECT title FROM dashboard").fetchall() == [("RPO fleet",)]
    assert (home / "provisioning/datasource.yml").read_text() == "apiVersion: 1\n"
    assert not [path.name for path in home.iterdir() if "pra-" in path.name]


def test_requests_say_what_is_wrong():
    with pytest.raises(SourceError, match="only http"):
        web.ask("file:///etc/passwd")
    with _health(lambda: False) as url, pytest.raises(SourceError, match="503"):
        web.ask(url)
    with _health(lambda: True) as url, pytest.raises(SourceError, match="JSON"):
        web.ask_json(url)
