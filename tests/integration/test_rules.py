"""The alerts: by promtool, by the documents that they link to, and as they arrive from real agents."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pra_agent.errors import PraError
from pra_agent.exporter.metrics import TABLE
from pra_agent.exporter.observed import OBSERVED
from tests.support.agent import Agent
from tests.support.process import wait_until
from tests.support.prometheus import (
    GRAFANA,
    RULE_FILES,
    RULES,
    RUNBOOKS,
    Alertmanager,
    Prometheus,
    Webhook,
    alerts,
    program,
    read_yaml,
    stopping,
)

ROOT = Path(__file__).parents[2]
TESTS = sorted((RULES / "tests").glob("*_test.yml"))
ALERTS = alerts()


def run(*argv):
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, cwd=RULES / "tests", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- by their tools
def test_rules_are_rules():
    run(program("promtool"), "check", "rules", *RULE_FILES, RULES / "examples" / "expected.rules.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_what_fires_and_what_does_not(path):
    run(program("promtool"), "test", "rules", path)


def test_every_alert_is_seen_firing_and_not_firing():
    fires: set[str] = set()
    quiet: set[str] = set()
    for path in TESTS:
        for case in read_yaml(path)["tests"]:
            bystanders = any("good" in one["series"] for one in case["input_series"])
            for check in case.get("promql_expr_test", ()):
                named = re.search(r'alertname=~"(\w+)"', check["expr"])
                if named is not None:
                    (fires if check["exp_samples"] else quiet).add(named[1])
                    if bystanders:
                        quiet.add(named[1])
    assert fires >= ALERTS.keys()
    assert quiet >= ALERTS.keys() - {"Watchdog"}


def test_the_example_configurations_are_good(tmp_path):
    run(program("amtool"), "check-config", RULES / "alertmanager.yml")
    place = tmp_path / "rules"
    place.mkdir()
    for path in (*RULE_FILES, RULES / "examples" / "expected.rules.yml"):
        (place / path.name).write_text(path.read_text())
    (tmp_path / "prometheus.yml").write_text((RULES / "prometheus.yml").read_text())
    run(program("promtool"), "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=Watchdog severity=none", "dead-man-switch"),
        ("alertname=PraRpoBreached severity=critical", "on-call"),
        ("alertname=PraRpoAtRisk severity=warning", "people"),
        ("alertname=PraComplianceLow severity=info", "people"),
    ],
)
def test_who_is_told(labels, receiver):
    config = f"--config.file={RULES / 'alertmanager.yml'}"
    run(program("amtool"), "config", "routes", "test", config, f"--verify.receivers={receiver}", *labels.split())


# ---------------------------------------------------------------- by their words
@pytest.mark.parametrize("name", ALERTS)
def test_each_has_a_severity_words_and_a_runbook(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    anchor = rule["annotations"]["runbook_url"].rpartition("#")[2]
    assert anchor == name.lower()
    assert f"\n### {name}\n" in (ROOT / "docs" / "alerts.md").read_text()


def test_no_runbook_is_left_of_an_alert_that_is_gone():
    sections = re.findall(r"^### (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)


def test_they_use_only_what_is_exported():
    exported = {metric.exported for metric in (*TABLE, *OBSERVED)}
    texts = [path.read_text() for path in (*RULE_FILES, GRAFANA / "provisioning" / "alerting" / "pra-rpo.yml")]
    used = {name for text in texts for name in re.findall(r"\bpra_[a-z_]+", text)}
    pruner = (ROOT / "agent" / "pra_agent" / "cli" / "pruning_report.py").read_text()
    unknown = {name for name in used - exported if f'"{name.removeprefix("pra_pruner_")}"' not in pruner}
    assert unknown == set()


def test_grafana_managed_rules_are_those_of_prometheus():
    groups = read_yaml(GRAFANA / "provisioning" / "alerting" / "pra-rpo.yml")["groups"]
    found = {}
    for rule in groups[0]["rules"]:
        queries = {one["refId"]: one for one in rule["data"]}
        assert rule["condition"] in queries
        assert queries["fires"]["datasourceUid"] == "__expr__"
        found[rule["annotations"]["runbook_url"].rpartition("#")[2]] = (queries["found"]["model"]["expr"], rule)
    shipped = {name.lower(): rule for name, rule in ALERTS.items()}
    for anchor, (expr, rule) in found.items():
        assert re.sub(r"[\s()]+", "", expr) == re.sub(r"[\s()]+", "", shipped[anchor]["expr"]), anchor
        assert rule["for"] == shipped[anchor].get("for")
        assert rule["labels"] == shipped[anchor]["labels"]


# ---------------------------------------------------------------- as they arrive
RPO = 10
WEB, DB = "web-1:9807", "db-1:9807"


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.xdist_group("prometheus")
def test_from_a_broken_store_to_the_webhook_and_back(tmp_path):
    program("prometheus"), program("prometheus-alertmanager", "alertmanager")
    web, db = _agent(tmp_path / "web"), _agent(tmp_path / "db")
    hook = Webhook()
    with stopping(hook, web, db):
        targets = [("pra-agent", WEB, _address(web)), ("pra-agent", DB, _address(db))]
        router = Alertmanager(tmp_path / "alertmanager", hook.port)
        with stopping(router):
            router.process.wait_for(router.ready)
            expected = [(WEB, "app", RPO), (DB, "app", RPO)]
            prometheus = Prometheus(tmp_path / "prometheus", targets, expected, f"127.0.0.1:{router.port}")
            with stopping(prometheus):
                prometheus.process.wait_for(prometheus.ready)
                _backup(web, db)
                prometheus.wait_for(f'pra:rpo_met{{instance="{WEB}"}}')
                wait_until(lambda: bool(hook.of("Watchdog")), "the dead-man switch's beat")
                _breach_and_repair(web, prometheus, hook)
                _death_in_mid_breach(db, prometheus, hook)
                _promises_taken_back(web, prometheus, hook)
                assert prometheus.failing() == []


def _breach_and_repair(web, prometheus, hook):
    away = web.repository.with_name("away")
    web.repository.rename(away)
    _backup(web)
    prometheus.wait_for(f'ALERTS{{alertname="PraRpoBreached", instance="{WEB}", alertstate="firing"}}')
    wait_until(lambda: bool(hook.of("PraRpoBreached", WEB, "firing")), "the alert in the webhook")
    alert = hook.of("PraRpoBreached", WEB, "firing")[0]
    data = float(prometheus.query(f'pra:backup_data_timestamp_seconds{{instance="{WEB}"}}')[0]["value"][1])
    took = alert["received"] - (data + RPO)
    print(f"\nbreach to webhook: {took:.1f} s")  # noqa: T201 - asked for, with pytest -s
    assert alert["labels"] == {
        "alertname": "PraRpoBreached",
        "instance": WEB,
        "backup_job": "app",
        "destination": "repository",
        "severity": "critical",
    }
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}#prarpobreached"
    assert alert["annotations"]["summary"] == f"RPO breached: app of {WEB} at repository"
    assert any(path == "/on-call" for path, one in hook.told if one is alert)
    away.rename(web.repository)

    def repaired():
        _backup(web)
        return bool(hook.of("PraRpoBreached", WEB, "resolved"))

    wait_until(repaired, "the end of the alert")


def _death_in_mid_breach(db, prometheus, hook):
    wait_until(lambda: bool(hook.of("PraRpoBreached", DB, "firing")), "the other's breach")
    db.process.kill()
    prometheus.wait_for(f'up{{instance="{DB}"}} == 0')
    wait_until(lambda: bool(hook.of("PraAgentSilent", DB, "firing")), "the silent agent")
    assert prometheus.holds(f'ALERTS{{alertname="PraRpoBreached", instance="{DB}", alertstate="firing"}}')
    assert not prometheus.holds(f'pra_backup_data_timestamp_seconds{{instance="{DB}"}}')
    assert hook.of("PraRpoBreached", DB)[-1]["status"] == "firing"


def _promises_taken_back(web, prometheus, hook):
    jobs = web.settings["jobs"]
    web.configure(jobs={"app": {**jobs["app"], "rpo": "8h"}})
    web.process.signal(signal.SIGHUP)
    wait_until(lambda: bool(hook.of("PraRpoWeakerThanAgreed", WEB, "firing")), "the weaker RPO")
    web.configure(jobs={"other": jobs["app"]})
    web.process.signal(signal.SIGHUP)
    wait_until(lambda: bool(hook.of("PraExpectedJobMissing", WEB, "firing")), "the job that is gone")
    wait_until(lambda: bool(hook.of("PraRpoWeakerThanAgreed", WEB, "resolved")), "no RPO is weaker any more")
    assert prometheus.holds(f'up{{instance="{WEB}"}} == 1')


def _agent(root):
    agent = Agent(root)
    settings: Any = agent.settings
    repository = {**settings["repository"], "timeouts": {"give_up": "1s"}}
    agent.configure(
        repository=repository,
        exporter={"listen": "127.0.0.1:0"},
        jobs={"app": {**settings["jobs"]["app"], "rpo": f"{RPO}s"}},
    )
    agent.init()
    agent.fill(2, 1000)
    agent.start()
    return agent


def _address(agent):
    agent.says("exporter_listening")
    line = next(line for line in agent.log.read_text().splitlines() if "exporter_listening" in line)
    port = re.search(r"port=(\d+)", line)
    assert port is not None
    return f"127.0.0.1:{port[1]}"


def _backup(*agents):
    for agent in agents:
        try:
            with agent.client() as client:
                client.run_job("app")
        except PraError:
            pass  # a broken store is part of the test
