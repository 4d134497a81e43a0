"""A real Prometheus and a real Alertmanager with the shipped rules and routes, sped up; and who they notify."""

import contextlib
import http.server
import json
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from ruamel.yaml import YAML

from tests.support.process import ServerProcess, free_port, wait_until

GRAFANA = Path(__file__).parents[2] / "grafana"
RULES = GRAFANA / "prometheus"
RULE_FILES = sorted(RULES.glob("*.rules.yml"))
RUNBOOKS = "https://wiki.example.org/alerts"


def program(*names: str) -> str:
    """A program of the test bed, by one of its names; without it the test is skipped."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip(f"{names[0]} is not installed: make testbed")


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def write_yaml(path: Path, value: object) -> None:
    YAML(typ="safe", pure=True).dump(value, path)


def alerts() -> Mapping[str, Mapping[str, Any]]:
    """All alerts that are shipped, by name."""
    groups = [group for path in RULE_FILES for group in read_yaml(path)["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


class Prometheus:
    """Scrapes and evaluates every second. Targets are (job, instance, address); expected (instance, job, seconds)."""

    def __init__(
        self,
        root: Path,
        targets: Sequence[tuple[str, str, str]],
        expected: Sequence[tuple[str, str, float]],
        alertmanager: str = "",
    ) -> None:
        self.root = root
        self.port = free_port()
        self._rules(expected)
        write_yaml(root / "prometheus.yml", self._config(targets, alertmanager))
        argv = [
            program("prometheus"),
            f"--config.file={root / 'prometheus.yml'}",
            f"--storage.tsdb.path={root / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self.process = ServerProcess(argv, root / "prometheus.log")

    def _rules(self, expected: Sequence[tuple[str, str, float]]) -> None:
        place = self.root / "rules"
        place.mkdir(parents=True)
        for path in RULE_FILES:
            shipped = read_yaml(path)
            for group in shipped["groups"]:
                group["interval"] = "1s"
                for rule in group["rules"]:
                    rule.pop("for", None)
            write_yaml(place / path.name, shipped)
        series = [
            {
                "record": "pra:expected_job_rpo_seconds",
                "expr": f"vector({seconds})",
                "labels": {"instance": instance, "backup_job": job},
            }
            for instance, job, seconds in expected
        ]
        group = {"name": "pra-expected", "interval": "1s", "rules": series}
        write_yaml(place / "expected.rules.yml", {"groups": [group]})

    def _config(self, targets: Sequence[tuple[str, str, str]], alertmanager: str) -> Mapping[str, object]:
        scrapes: dict[str, list[object]] = {}
        for job, instance, address in targets:
            scrapes.setdefault(job, []).append({"targets": [address], "labels": {"instance": instance}})
        shipped = read_yaml(RULES / "prometheus.yml")
        return {
            "global": {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
                "external_labels": {"runbooks": RUNBOOKS},
            },
            "rule_files": [str(self.root / "rules" / "*.rules.yml")],
            "scrape_configs": [{"job_name": job, "static_configs": those} for job, those in scrapes.items()],
            "alerting": {
                "alert_relabel_configs": shipped["alerting"]["alert_relabel_configs"],
                "alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else [],
            },
        }

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self._get("/-/ready") is not None
        return False

    def query(self, expr: str) -> list[Any]:
        """The vector that an expression has now."""
        return cast("list[Any]", self._ask("query", query=expr))

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Any]:
        """The matrix that it has over time."""
        return cast("list[Any]", self._ask("query_range", query=expr, start=start, end=end, step=step))

    def holds(self, expr: str) -> bool:
        """Whether an expression has any series now."""
        return bool(self.query(expr))

    def wait_for(self, expr: str, seconds: float = 60) -> None:
        wait_until(lambda: self.holds(expr), f"{expr}; {self.process.tail()}", seconds)

    def failing(self) -> list[str]:
        """Rules that do not evaluate."""
        groups = json.loads(self._get("/api/v1/rules"))["data"]["groups"]
        return [f"{rule['name']}: {rule['lastError']}" for g in groups for rule in g["rules"] if rule.get("lastError")]

    def stop(self) -> None:
        self.process.stop()

    def _ask(self, what: str, **parameters: object) -> object:
        answer = json.loads(self._get(f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def _get(self, path: str) -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return cast("bytes", answer.read())
        except urllib.error.HTTPError as error:
            if path.startswith("/-/"):
                raise
            raise AssertionError(f"{path}: {error.read().decode()}") from error


class Webhook:
    """A receiver that keeps all alerts that it is told of, the newest last, with the path that they came by."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        told = self.told

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.extend((self.path, {**alert, "received": time.time()}) for alert in body["alerts"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.port = self._server.server_address[1]

    def of(self, name: str, instance: str = "", status: str = "") -> list[Mapping[str, Any]]:
        """What was told of an alert so far."""
        return [
            alert
            for _, alert in list(self.told)
            if alert["labels"]["alertname"] == name
            and (not instance or alert["labels"].get("instance") == instance)
            and (not status or alert["status"] == status)
        ]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Alertmanager:
    """The shipped routes and inhibitions, without their patience, to one webhook."""

    def __init__(self, root: Path, webhook: int) -> None:
        config = read_yaml(RULES / "alertmanager.yml")
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "0s", "group_interval": "1s"}
        for receiver in config["receivers"]:
            for hook in receiver["webhook_configs"]:
                hook["url"] = hook["url"].replace("127.0.0.1:9095", f"127.0.0.1:{webhook}")
        root.mkdir(parents=True)
        write_yaml(root / "alertmanager.yml", config)
        self.port = free_port()
        argv = [
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={root / 'alertmanager.yml'}",
            f"--storage.path={root / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        self.process = ServerProcess(argv, root / "alertmanager.log")

    def ready(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        self.process.stop()


@contextmanager
def stopping(*things: Any) -> Generator[None]:
    """Stop them all at the end, whatever happens."""
    with contextlib.ExitStack() as stack:
        for thing in things:
            stack.callback(thing.stop)
        yield
