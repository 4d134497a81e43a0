"""The dashboards: the JSON is what the code writes, and every query has data where real agents are scraped."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pra_agent.model.runs import Operation, Outcome
from tests.support.agent import AGENT, Agent
from tests.support.process import ServerProcess, wait_until
from tests.support.prometheus import GRAFANA, Prometheus, program, read_yaml, stopping

DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
INSTANCE = "web-1:9807"
#: What an agent can only tell once it happened: a series without a number is all that can be asked for here.
NEVER_HAPPENED = (
    "drill_last_success",
    "drill_duration",
    "recover_last_success",
    "repository_oldest_lock",
)


def boards():
    return [(path.stem, json.loads(path.read_text())) for path in DASHBOARDS]


def queries():
    for name, board in boards():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield pytest.param(
                    target["expr"], bool(target.get("instant")), id=f"{name}-{panel['id']}-{target['refId']}"
                )


# ---------------------------------------------------------------- as files
def test_they_are_what_the_code_writes(tmp_path):
    pytest.importorskip("grafana_foundation_sdk", reason="pip install -r grafana/requirements.txt")
    env = {**os.environ, "PYTHONPATH": str(GRAFANA / "src")}
    subprocess.run([sys.executable, "-m", "pra_dashboards", str(tmp_path)], env=env, check=True, timeout=60)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in DASHBOARDS}, (
        "run: PYTHONPATH=grafana/src python -m pra_dashboards grafana/dashboards"
    )


@pytest.mark.parametrize(("name", "board"), boards(), ids=[path.stem for path in DASHBOARDS])
def test_their_form(name, board):
    panels = board["panels"]
    assert board["uid"] == name
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places)
    names = {variable["name"] for variable in board["templating"]["list"]}
    for panel in panels:
        position = panel["gridPos"]
        assert position["x"] + position["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= names | {"__rate_interval", "__range"} | {"1"}


def test_provisioning_finds_them():
    provider = read_yaml(GRAFANA / "provisioning" / "dashboards" / "pra-agent.yml")["providers"][0]
    assert provider["type"] == "file"
    source = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
    assert source["type"] == "prometheus"


# ---------------------------------------------------------------- on what is live
@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A Prometheus that scrapes an agent with two jobs and a copy, and an observer; all had something to do."""
    program("prometheus")
    root = tmp_path_factory.mktemp("fleet")
    agent = _agent(root / "host")
    with stopping(agent):
        observer = _observer(root, agent)
        with stopping(observer):
            targets = [
                ("pra-agent", INSTANCE, _listening(agent.log, "exporter_listening", r"port=(\d+)")),
                ("pra-observer", "monitor:9808", _listening(observer.log, "metrics are served at", r":(\d+)\n")),
            ]
            expected = [(INSTANCE, "app", 14400), (INSTANCE, "second", 14400)]
            prometheus = Prometheus(root / "prometheus", targets, expected)
            with stopping(prometheus):
                prometheus.process.wait_for(prometheus.ready)
                prometheus.wait_for("pra:rpo_compliance_ratio:30d")
                # A rate takes two scrapes of a counter; the agent counts while it is scraped.
                _work(agent)
                prometheus.wait_for("rate(pra_storage_requests_total[15s]) > 0")
                prometheus.wait_for('increase(pra_runs_total{outcome="success"}[1h]) > 0')
                prometheus.wait_for("pra_observed_newest_snapshot_timestamp_seconds > 0")
                prometheus.wait_for("pra_check_last_success_timestamp_seconds > 0")
                prometheus.wait_for("sum(rate(pra_run_duration_seconds_count[1m])) > 0")
                yield prometheus


def _agent(root):
    agent = Agent(root)
    copy = root / "copy"
    settings: Any = agent.settings
    job = settings["jobs"]["app"]
    agent.configure(
        repository={**settings["repository"], "off_host": True},
        copies=[{"name": "dr", "url": str(copy), "off_host": True}],
        exporter={"listen": "127.0.0.1:0"},
        jobs={"app": job, "second": job},
    )
    agent.init()
    agent.init(copy)
    agent.fill(3, 20_000)
    agent.start()
    _work(agent)
    return agent


def _work(agent):
    with agent.client() as client:
        for job in ("app", "second"):
            assert client.run_job(job).outcome is Outcome.SUCCESS
        for operation in (Operation.FORGET, Operation.CHECK, Operation.PRUNE):
            assert client.operate(operation).outcome is Outcome.SUCCESS


def _observer(root, agent):
    config = root / "observer.yaml"
    repositories = [
        {"node": "web-1", "url": str(agent.repository)},
        {"node": "web-1", "destination": "dr", "url": str(agent.root / "copy")},
    ]
    document = {"repositories": repositories, "exporter": {"listen": "127.0.0.1:0"}, "interval": "2s"}
    config.write_text(json.dumps(document))
    argv = [sys.executable, "-m", "pra_agent", "observe", str(config)]
    return ServerProcess(argv, root / "observer.log", {"PYTHONPATH": str(AGENT)})


def _listening(log: Path, words, pattern):
    wait_until(lambda: words in log.read_text(), words)
    found = re.search(pattern, log.read_text().partition(words)[2])
    assert found is not None
    return f"127.0.0.1:{found[1]}"


@pytest.mark.xdist_group("prometheus")
@pytest.mark.parametrize(("expr", "instant"), list(queries()))
def test_every_query_has_data(prometheus, expr, instant):
    for name, value in {"$__rate_interval": "15s", "$__range": "15m", "$instance": ".+", "$backup_job": ".+"}.items():
        expr = expr.replace(name, value)
    now = time.time()
    # What was there a moment ago is there: a rate may have nothing new in its last seconds.
    found = prometheus.query(expr) if instant else prometheus.query_range(expr, now - 120, now, 2)
    assert found, expr
    numbers = [value for one in found for _, value in ([one["value"]] if "value" in one else one["values"])]
    if not any(name in expr for name in NEVER_HAPPENED):
        assert any(value != "NaN" for value in numbers), expr


@pytest.mark.xdist_group("prometheus")
def test_choices_are_filled_and_tables_have_a_row_for_each_job(prometheus):
    wanted = {(INSTANCE, "app"), (INSTANCE, "second")}
    fleet = dict(boards())["pra-fleet"]
    table = next(panel for panel in fleet["panels"] if panel["type"] == "table")
    for target in table["targets"]:
        expr = target["expr"].replace("$instance", ".+").replace("$backup_job", ".+")
        rows = {(one["metric"]["instance"], one["metric"]["backup_job"]) for one in prometheus.query(expr)}
        assert rows == wanted, target["expr"]
    for _, board in boards():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
                assert asked is not None
                selector, label = asked.groups()
                values = {one["metric"].get(label) for one in prometheus.query(selector.replace("$instance", ".+"))}
                assert values
                assert None not in values


@pytest.mark.xdist_group("prometheus")
def test_shipped_rules_evaluate_and_nothing_is_wrong_with_a_good_fleet(prometheus):
    assert prometheus.failing() == []
    firing = {one["metric"]["alertname"] for one in prometheus.query('ALERTS{alertstate="firing"}')}
    # Nobody has drilled yet, but there was no time to; this Prometheus has no Alertmanager.
    assert firing <= {"Watchdog", "AlertmanagerUnreachable", "PraSnapshotsVanishing"}


@pytest.mark.xdist_group("prometheus")
def test_grafana_managed_rules_evaluate(prometheus):
    for rule in read_yaml(GRAFANA / "provisioning" / "alerting" / "pra-rpo.yml")["groups"][0]["rules"]:
        assert prometheus.query(rule["data"][0]["model"]["expr"]) == []
