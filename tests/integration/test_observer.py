"""pra-agent observe on real stores: a directory, and a bucket of which it may do nothing but list."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

from tests.support.agent import AGENT, Agent
from tests.support.process import ServerProcess

ENV = {"PYTHONPATH": str(AGENT)}


@pytest.fixture
def agent(tmp_path):
    agent = Agent(tmp_path / "host")
    agent.configure()
    agent.init()
    agent.fill(3, 1000)
    backup = run("--config", agent.config, "--direct", "backup", home=tmp_path)
    assert backup.returncode == 0, backup.stderr
    return agent


def run(*words, home):
    argv = [sys.executable, "-m", "pra_agent", *map(str, words)]
    env = {**os.environ, **ENV, "XDG_STATE_HOME": str(home / "state")}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


def configure(tmp_path, *repositories, **more):
    path = tmp_path / "observer.yaml"
    path.write_text(json.dumps({"repositories": repositories, "exporter": {"listen": "127.0.0.1:0"}, **more}))
    return path


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def test_once_prints_and_writes_a_textfile(tmp_path, agent):
    textfile = tmp_path / "observed.prom"
    config = configure(tmp_path, {"node": "web-1", "url": str(agent.repository)}, textfile=str(textfile), timeouts=None)
    assert run("observe", config, "--once", home=tmp_path).returncode == 2  # timeouts is no key of it
    config = configure(tmp_path, {"node": "web-1", "url": str(agent.repository)}, textfile=str(textfile))
    done = run("observe", config, "--once", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["observation"]
    snapshot = next((agent.repository / "snapshots").iterdir())
    assert seen["tallies"]["snapshots"] == {"objects": 1, "bytes": snapshot.stat().st_size}
    assert 'pra_observed_objects{destination="repository",kind="snapshots",node="web-1"} 1.0' in textfile.read_text()


def test_one_that_fails_is_told_and_keeps_no_other_from_its_turn(tmp_path, agent):
    config = configure(
        tmp_path,
        {"node": "gone", "url": str(tmp_path / "nowhere"), "timeouts": {"give_up": "1s"}},
        {"node": "web-1", "url": str(agent.repository)},
    )
    done = run("observe", config, "--once", home=tmp_path)
    assert done.returncode == 1
    assert "gone (repository):" in done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("web-1"))
    assert row[1] == "repository"
    assert row[4] == "1"


def test_it_serves_until_it_is_stopped(tmp_path, agent):
    log = tmp_path / "observer.log"
    config = configure(tmp_path, {"node": "web-1", "url": str(agent.repository)}, interval="1s")
    server = ServerProcess([sys.executable, "-m", "pra_agent", "observe", str(config)], log, ENV)
    try:
        server.wait_for(lambda: "metrics are served at" in log.read_text())
        port = int(log.read_text().split("metrics are served at ")[1].split()[0].rpartition(":")[2])
        newest = 'pra_observed_newest_snapshot_timestamp_seconds{destination="repository",node="web-1"}'
        server.wait_for(lambda: newest in scrape(port))
        snapshot = next((agent.repository / "snapshots").iterdir())
        line = next(line for line in scrape(port).splitlines() if line.startswith(newest))
        assert float(line.split()[-1]) == pytest.approx(snapshot.stat().st_mtime, abs=1)
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    finally:
        server.stop()


def test_a_list_is_all_that_it_asks_of_a_bucket(tmp_path):
    """The oracle is the wire: a server that knows ListObjectsV2, refuses everything else, and remembers."""
    asked = []
    key = "ab" * 32

    class Bucket(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            objects = {"host/config": 155, f"host/snapshots/{key}": 300, f"host/data/ab/{key}": 9000}
            prefix = self.path.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
            listed = "".join(
                f"<Contents><Key>{name}</Key><LastModified>2026-03-01T12:00:00.000Z</LastModified>"
                f"<Size>{size}</Size></Contents>"
                for name, size in objects.items()
                if name.startswith(prefix)
            )
            good = "list-type=2" in self.path
            body = (
                f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
                if good
                else "<Error><Code>AccessDenied</Code></Error>"
            ).encode()
            self.send_response(200 if good else 403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815 - the names of http.server

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as bucket:
        threading.Thread(target=bucket.serve_forever, daemon=True).start()
        credentials = tmp_path / "observer.ini"
        credentials.write_text("[default]\naws_access_key_id = observer\naws_secret_access_key = nothing\n")
        credentials.chmod(0o600)
        place = {
            "node": "web-1",
            "url": "s3://backups/host",
            "endpoint": f"http://127.0.0.1:{bucket.server_address[1]}",
            "credentials": {"file": str(credentials)},
        }
        done = run("observe", configure(tmp_path, place), "--once", "--json", home=tmp_path)
        bucket.shutdown()
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["observation"]
    assert seen["newest"] == "2026-03-01T12:00:00Z"
    assert seen["tallies"]["data"] == {"objects": 1, "bytes": 9000}
    assert asked
    assert all("list-type=2" in path for path in asked), asked
