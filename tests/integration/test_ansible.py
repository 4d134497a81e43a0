"""The Ansible part: what it renders is what the agent and Prometheus take, and on a bare host it does what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from ruamel.yaml import YAML

from pra_agent import config
from tests.support import hosts, packages
from tests.support.docker_engine import TESTBED, Dockerd
from tests.support.elasticsearch import opensearch_node
from tests.support.hosts import Host

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
rendering = pytest.mark.xdist_group("ansible")
ROOT = Path(__file__).parents[2]
HOME = TESTBED / "ansible"
PLAYBOOKS = ("playbook", "recover", "failover", "rotate-keys", "upgrade", "retire")
PASSWORD = "/etc/pra-agent/repository-password"


def on_a_host(test: Any) -> Any:
    """Mark a test that needs a container with systemd."""
    for mark in (pytest.mark.docker, pytest.mark.systemd, pytest.mark.xdist_group("docker")):
        test = mark(test)
    return test


class Ansible:
    """ansible-playbook with an inventory of the test's own."""

    def __init__(self, inventory: Path, env: Mapping[str, str] | None = None) -> None:
        self.inventory = inventory
        self._env = dict(env or os.environ)

    def playbook(self, name: str | Path, *argv: str, check: bool = True) -> str:
        """Run a playbook from the root of the checkout; returns what it printed."""
        done = tool("ansible-playbook", "-i", str(self.inventory), str(name), *argv, env=self._env)
        if check and done.returncode != 0:
            raise AssertionError(f"{name} {argv}: {done.stdout[-6000:]}\n{done.stderr[-2000:]}")
        return done.stdout + done.stderr


def tool(name: str, *argv: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    if not (HOME / "venv" / "bin" / name).exists():
        pytest.skip(f"no {name} in the test bed (make testbed)")
    added = {
        "PATH": f"{HOME}/venv/bin:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": f"{HOME}/collections",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [name, *argv], env={**(env or os.environ), **added}, cwd=ROOT, capture_output=True, text=True, check=False
    )


def changed(printed: str) -> list[str]:
    """What a run changed or failed at, task by task."""
    assert re.search(r"^\S+ +: ok=\d+ ", printed, re.MULTILINE)
    tasks = re.split(r"^(?=TASK |RUNNING HANDLER |PLAY )", printed, flags=re.MULTILINE)
    return [task for task in tasks if re.search(r"^(changed|failed|fatal): ", task, re.MULTILINE)]


def written(path: Path, content: object) -> Path:
    """JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def inventory(directory: Path, **groups: Mapping[str, object]) -> Path:
    """An inventory file with groups of hosts and their variables."""
    return written(
        directory / "hosts.yml", {"all": {"children": {name: {"hosts": hosts} for name, hosts in groups.items()}}}
    )


# ---------------------------------------------------------------- as it is written
@pytest.mark.parametrize("name", PLAYBOOKS)
def test_playbooks_with_the_example_inventory(name):
    Ansible(ROOT / "ansible/inventory").playbook(ROOT / f"ansible/{name}.yml", "--syntax-check")


@pytest.mark.parametrize(
    ("command", "task"),
    [
        ("-i ansible/inventory ansible/playbook.yml -u ubuntu --become", "backup : Validating"),
        ("-i ansible/inventory ansible/playbook.yml --tags deploy,monitoring,backup", "monitoring : Directories"),
        ("-i ansible/inventory playbook.yml -e s3_bucket=b --tags elastic", "elastic : The repository"),
    ],
)
def test_commands_of_the_plan(command, task):
    done = tool("ansible-playbook", *command.split(), "--list-tasks")
    assert done.returncode == 0, done.stderr
    assert task in done.stdout


def test_lint():
    done = tool("ansible-lint", "--nocolor", "--offline", "ansible", "playbook.yml")
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- what is rendered
JOBS = {
    "app": {
        "source": {"type": "files", "paths": ["/etc", "/usr/lib"], "exclude": ["*.tmp"]},
        "rpo": "1h30m",
        "schedule": {"every": "1h"},
    },
    "home": {"source": {"type": "files", "paths": ["/root"]}},
    "by-hand": {"source": {"type": "files", "paths": ["/root"]}, "schedule": None},
    "volume": {"source": {"type": "docker_volume", "volume": "glpi_data", "quiesce": "pause"}, "rpo": "2d"},
}
PROTECTED: Mapping[str, Any] = {
    "web-1": {
        "backup_jobs": JOBS,
        "backup_docker_access": True,
        "backup_defaults": {"rpo": "6h"},
        "backup_copies": [{"name": "dr-site", "url": "s3://dr-backups/backups/web-1", "region": "eu-central-1"}],
        "backup_s3_access_key": "AKIAEXAMPLE",
        "backup_s3_secret_key": "a'secret%",
        "ansible_host": "192.0.2.1",
    },
    "db-1": {"backup_jobs": {"etc": JOBS["home"]}, "backup_exporter_port": 9900},
}
HERE = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
RENDER = [
    {
        "hosts": "protected",
        "connection": "local",
        "vars": HERE,
        "gather_facts": True,
        "tasks": [
            {"include_role": {"name": f"{ROOT}/ansible/roles/backup", "tasks_from": "document", "public": True}},
            {
                "template": {
                    "src": f"{ROOT}/ansible/roles/backup/templates/{{{{ item }}}}.j2",
                    "mode": "0600",
                    "dest": "{{ out }}/{{ inventory_hostname }}.{{ item }}",
                },
                "loop": ["config.yaml", "unit.conf"],
            },
        ],
    }
]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the configurations of two hosts, as the role renders them."""
    out = tmp_path_factory.mktemp("rendered")
    play = written(out / "render.yml", RENDER)
    ansible = Ansible(
        inventory(out / "inventory", protected=PROTECTED), {**os.environ, "S3_BACKUP_BUCKET": "my-backups"}
    )
    ansible.playbook(play, "-e", f"out={out}", "-e", "s3_region=eu-west-3")
    return out


@rendering
def test_the_agent_takes_what_is_rendered(rendered, tmp_path):
    for name in ("repository-password", "s3"):
        (tmp_path / name).write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    done = subprocess.run(
        [sys.executable, "-m", "pra_agent", "--config", str(rendered / "web-1.config.yaml"), "config", "check"],
        env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path), "PYTHONPATH": str(ROOT / "agent")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = config.load(rendered / "web-1.config.yaml")
    assert loaded.node == "web-1"
    assert (loaded.repository.url, loaded.repository.region) == ("s3://my-backups/backups/web-1", "eu-west-3")
    assert list(loaded.jobs) == list(JOBS)
    assert loaded.jobs["by-hand"].schedule is None
    assert loaded.copies[0].url == "s3://dr-backups/backups/web-1"


@rendering
def test_no_secret_is_in_what_everybody_reads(rendered):
    for path in rendered.glob("*.*"):
        assert "secret%" not in path.read_text()
    assert "LoadCredential=s3:/etc/pra-agent/credentials/s3" in (rendered / "web-1.unit.conf").read_text()


@rendering
def test_the_pruning_host_has_the_policies_of_the_inventory(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("files are given to root")
    role = {"name": f"{ROOT}/ansible/roles/pruner", "tasks_from": "files"}
    document = {"name": f"{ROOT}/ansible/roles/backup", "tasks_from": "document"}
    common = {"connection": "local", "vars": HERE}
    play = written(
        tmp_path / "pruner.yml",
        [
            {"hosts": "protected", "gather_facts": True, **common, "tasks": [{"include_role": document}]},
            {"hosts": "pruner", "gather_facts": False, **common, "tasks": [{"include_role": role}]},
        ],
    )
    (tmp_path / "filter_plugins").symlink_to(ROOT / "ansible/filter_plugins")
    protected = {name: {**PROTECTED[name], "backup_repository_password": f"of {name}"} for name in PROTECTED}
    keys = {"access_key": "A", "secret_key": "S%"}
    settings = {
        "pruner_access_key": "A",
        "pruner_secret_key": "S%",
        "pruner_copy_keys": {"dr-site": keys},
        "pruner_config": {"quarantine": "2d"},
    }
    ansible = Ansible(inventory(tmp_path / "inventory", protected=protected, pruner={"prune-1": settings}))
    out = tmp_path / "out"
    argv = ("-e", f"pruner_dir={out}", "-e", "s3_bucket=b-1")
    (out / "hosts").mkdir(parents=True)
    (out / "hosts" / "gone.yaml").write_text("")
    assert "S%" not in ansible.playbook(play, *argv)
    assert changed(ansible.playbook(play, *argv)) == []
    assert not (out / "hosts" / "gone.yaml").exists()
    # The first by name is the one that is called, and names the others.
    first = config.load(out / "hosts" / "db-1.yaml")
    assert first.pruner is not None
    assert first.pruner.hosts == (out / "hosts" / "web-1.yaml",)
    assert set(first.pruner.copies) == {"dr-site"}
    assert (out / "copy-dr-site.ini").read_text().splitlines()[1:] == [
        "aws_access_key_id = A",
        "aws_secret_access_key = S%",
    ]
    other = config.load(out / "hosts" / "web-1.yaml")
    assert other.pruner is None
    assert other.repository.url == "s3://b-1/backups/web-1"
    assert other.repository.password.file is not None
    assert other.repository.password.file.read_text() == "of web-1\n"
    assert list(other.jobs) == list(JOBS)


# ---------------------------------------------------------------- the monitoring host
@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ansible, Path, tuple[str, ...]]:
    """The role monitoring, its files into a directory, without packages and services."""
    for name in ("promtool", "amtool"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} (make testbed as root)")
    if os.geteuid() != 0:
        pytest.skip("files are given to root")
    base = tmp_path_factory.mktemp("monitoring")
    common = {"hosts": "monitoring", "connection": "local", "vars": HERE, "gather_facts": False}
    role = f"{ROOT}/ansible/roles/monitoring"
    play = written(base / "monitoring.yml", [{**common, "roles": [role]}])
    expected = {"include_role": {"name": role, "tasks_from": "expected"}}
    written(base / "expected.yml", [{**common, "tasks": [expected]}])
    # Filters lie beside playbooks.
    (base / "filter_plugins").symlink_to(ROOT / "ansible/filter_plugins")
    settings = {
        "monitoring_services": False,
        "monitoring_etc": f"{base}/etc",
        "monitoring_group": "root",
        "monitoring_grafana_etc": f"{base}/grafana",
        "monitoring_grafana_dashboard_dir": f"{base}/dashboards",
        "monitoring_receivers": {"on-call": {"webhook_configs": [{"url": "http://127.0.0.1:1/alerts"}]}},
        "monitoring_cassandra": ["db-1:9042"],
        "monitoring_grafana_alerts": True,
        "monitoring_endpoints": ["https://app.example.org/"],
        "monitoring_observers": {"watch-1:9808": "127.0.0.1:9808"},
        "monitoring_runbooks": "https://example.org/alerts.md",
        "monitoring_secrets": {"scrape": "secret"},
        "monitoring_agent_scrape": {
            "basic_auth": {"username": "prometheus", "password_file": f"{base}/etc/secrets/scrape"}
        },
    }
    ansible = Ansible(inventory(base / "inventory", protected=PROTECTED, monitoring={"watch-1": settings}))
    argv = (str(play),)
    ansible.playbook(*argv)
    return ansible, base, argv


@rendering
def test_expected_jobs_are_what_the_agents_are_configured_for(monitored, rendered):
    rules = YAML(typ="safe").load((monitored[1] / "etc/rules/expected.rules.yml").read_text())["groups"][0]["rules"]
    assert {rule["record"] for rule in rules} == {"pra:expected_job_rpo_seconds"}
    told = {tuple(rule["labels"].values()): rule["expr"] for rule in rules}
    assert all(list(rule["labels"]) == ["instance", "backup_job"] for rule in rules)
    scheduled = {
        (f"{host}:{PROTECTED[host].get('backup_exporter_port', 9807)}", name): f"vector({int(job.rpo.total_seconds())})"
        for host in PROTECTED
        for name, job in config.load(rendered / f"{host}.config.yaml").jobs.items()
        if job.schedule is not None
    }
    assert told == scheduled
    assert scheduled["web-1:9807", "home"] == "vector(21600)"


@rendering
def test_prometheus_takes_it_and_a_second_run_changes_nothing(monitored):
    ansible, base, argv = monitored
    done = subprocess.run(
        ["promtool", "check", "config", str(base / "etc/prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((base / "etc/rules").glob("*.rules.yml"))) > 1
    targets = YAML(typ="safe").load((base / "etc/targets/agents.yml").read_text())
    assert [(one["targets"], one["labels"]["instance"]) for one in targets] == [
        (["192.0.2.1:9807"], "web-1:9807"),
        (["db-1:9900"], "db-1:9900"),
    ]
    assert changed(ansible.playbook(*argv)) == []
    # A host that leaves is neither scraped nor expected.
    ansible.playbook(base / "expected.yml", "-e", '{"monitoring_without": ["web-1"]}')
    for name in ("targets/agents.yml", "targets/nodes.yml", "rules/expected.rules.yml"):
        text = (base / "etc" / name).read_text()
        assert "web-1" not in text
        assert "db-1" in text


# ---------------------------------------------------------------- Elasticsearch's own repository
@pytest.mark.elasticsearch
@pytest.mark.xdist_group("elasticsearch")
def test_a_cluster_gets_its_repository_in_s3(versitygw, tmp_path):
    s3 = {"endpoint": versitygw.endpoint, "access_key": versitygw.access_key, "secret_key": versitygw.secret_key}
    node = opensearch_node("os-ansible", s3=s3)
    play = written(
        tmp_path / "elastic.yml",
        [
            {
                "hosts": "elastic",
                "connection": "local",
                "vars": HERE,
                "gather_facts": False,
                "roles": [f"{ROOT}/ansible/roles/elastic"],
            }
        ],
    )
    settings = {"elastic_url": node.url, "elastic_s3_endpoint": versitygw.endpoint, "elastic_s3_path_style": True}
    ansible = Ansible(inventory(tmp_path / "inventory", elastic={"search-1": settings}))
    try:
        node.start()
        node.wait()
        argv = (play, "-e", f"s3_bucket={versitygw.new_bucket()} s3_region=us-east-1", "--tags", "all")
        assert "failed=1" in ansible.playbook(play, check=False)
        assert len(changed(ansible.playbook(*argv))) == 1
        assert changed(ansible.playbook(*argv)) == []
        told = node.ask("GET", "/_snapshot/_all")["my_s3_repo"]
        assert (told["type"], told["settings"]["base_path"]) == ("s3", "elasticsearch/my_s3_repo")
        assert len(changed(ansible.playbook(*argv, "-e", "elastic_base_path=elsewhere"))) == 1
    finally:
        node.stop()


# ---------------------------------------------------------------- a bare host
class Fleet:
    """Hosts without the agent, and an inventory that has them; they share a directory as another site."""

    def __init__(self, engine: Dockerd, directory: Path, built: Path) -> None:
        self._directory = directory
        self._groups: dict[str, dict[str, object]] = {}
        self.dist, keyring = _signed(built, directory)
        self._common: dict[str, object] = {
            "ansible_connection": "community.docker.docker",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "backup_package_dir": str(self.dist),
            "backup_package_keyring": str(keyring),
        }
        self.shared = directory / "shared"
        self.shared.mkdir()
        (directory / "inventory" / "group_vars").mkdir(parents=True)
        (directory / "inventory" / "group_vars" / "dr.yml").symlink_to(ROOT / "ansible/inventory/group_vars/dr.yml")
        self.ansible = Ansible(directory / "inventory", engine.env)

    def add(self, group: str, name: str, host: Host, **variables: object) -> None:
        """Put a host into the inventory."""
        self._groups[group] = {name: {**self._common, "ansible_host": host.name, **variables}}
        inventory(self._directory / "inventory", **self._groups)


@pytest.fixture(scope="module")
def fleet(dockerd: Dockerd, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    packages.can_build()
    return Fleet(dockerd, tmp_path_factory.mktemp("fleet"), packages.packages("debian12", "debian13"))


@pytest.fixture(scope="module")
def bare(dockerd: Dockerd, fleet: Fleet) -> Iterator[tuple[Ansible, Host]]:
    """A bare host, web-1, and the inventory that has it."""
    with hosts.running(dockerd, "host12", f"{fleet.shared}:/mnt/dr") as host:
        host.sh("mkdir -p /srv/app/deep; echo one >/srv/app/deep/file; chown 4242:4243 /srv/app/deep/file")
        fleet.add(
            "protected",
            "web-1",
            host,
            backup_jobs={"app": {"source": {"type": "files", "paths": ["/srv/app"]}}},
            backup_copies=[{"name": "dr-site", "url": "/mnt/dr/web-1"}],
            backup_repository_password="correct horse battery staple",
            backup_credentials={"other": "not seen"},
        )
        yield fleet.ansible, host


def set_up(ansible: Ansible, host: Host) -> None:
    """Let each test run alone, too."""
    if host.done("test", "-e", "/usr/bin/pra-agent").returncode != 0:
        ansible.playbook("ansible/playbook.yml", "--tags", "backup")
        host.run("pra-agent", "backup")


def _signed(built: Path, directory: Path) -> tuple[Path, Path]:
    """The packages with signatures beside them, and the keyring that they are verified by."""
    here, gnupg = directory / "dist", directory / "gnupg"
    here.mkdir()
    gnupg.mkdir(mode=0o700)
    found = [packages.deb(built, target) for target in ("debian12", "debian13")]
    for package in found:
        (here / package.name).symlink_to(package)
    gpg = ["gpg", "--homedir", str(gnupg), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    try:
        for argv in (
            ["--quick-generate-key", "packages@example.org", "ed25519", "sign"],
            *(["--output", f"{here / each.name}.sig", "--detach-sign", str(each)] for each in found),
            ["--output", str(directory / "signer.gpg"), "--export"],
        ):
            subprocess.run([*gpg, *argv], check=True, capture_output=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(gnupg), "--kill", "all"], check=False, capture_output=True)
    return here, directory / "signer.gpg"


@on_a_host
def test_a_bare_host_becomes_a_protected_one(bare, fleet):
    ansible, host = bare
    playbook = ("ansible/playbook.yml", "--tags", "deploy,backup")
    ansible.playbook(*playbook, "--check")
    assert host.done("test", "-e", "/usr/bin/pra-agent").returncode != 0

    first = ansible.playbook(*playbook)
    assert "not seen" not in first
    assert host.run("pra-agent", "status", "--json") != ""
    assert host.sh(f"stat -c '%a %U' {PASSWORD} /etc/pra-agent/credentials/other").split() == ["600", "root"] * 2
    host.run("pra-agent", "backup")

    assert changed(ansible.playbook(*playbook)) == []

    # Another file than the one that was signed is not installed.
    (signature,) = fleet.dist.glob("*~debian12_*.sig")
    whole = signature.read_bytes()
    signature.write_bytes(whole[:-8] + bytes(8))
    refused = ansible.playbook(*playbook, check=False)
    signature.write_bytes(whole)
    assert "gpgv" in refused
    assert "failed=1" in refused

    ansible.playbook("ansible/upgrade.yml")


@on_a_host
def test_files_come_back_as_they_were(bare):
    ansible, host = bare
    set_up(ansible, host)
    instant = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    host.sh("rm /srv/app/deep/file; echo other >/srv/app/deep/new; pra-agent backup")
    # No snapshot is that old: nothing is touched.
    refused = ansible.playbook("ansible/recover.yml", "-e", "recover_at=2020-01-01T00:00", check=False)
    assert "no snapshot is that old" in refused
    ansible.playbook("ansible/recover.yml", "-e", f"recover_at={instant}", "-e", '{"recover_options": ["--delete"]}')
    assert host.sh("cat /srv/app/deep/file; stat -c %u:%g /srv/app/deep/file; ls /srv/app/deep").split() == [
        "one",
        "4242:4243",
        "file",
    ]
    status = cast("dict[str, Any]", host.json("pra-agent", "--json", "status")[0])
    assert not status["jobs"][0]["on_hold"]


@on_a_host
def test_another_password_and_then_the_end(bare):
    ansible, host = bare
    set_up(ansible, host)
    before = host.run("cat", PASSWORD)
    assert before == "correct horse battery staple"
    slot = cast("Any", host.json("pra-agent", "--direct", "--json", "key", "list")[0])["keys"][0]["id"]
    printed = ansible.playbook("ansible/rotate-keys.yml")
    after = host.run("cat", PASSWORD)
    assert after != before
    assert before not in printed
    assert after not in printed
    left = cast("Any", host.json("pra-agent", "--direct", "--json", "key", "list")[0])["keys"]
    assert [one["current"] for one in left] == [True]
    assert left[0]["id"] != slot
    host.run("pra-agent", "backup")

    refused = ansible.playbook("ansible/retire.yml", "-e", "retire=web-1", check=False)
    assert "retire_kit_is_safe" in refused
    kept = host.run("pra-agent", "--json", "snapshots")
    ansible.playbook("ansible/retire.yml", "-e", "retire=web-1", "-e", "retire_kit_is_safe=true")
    assert host.sh("find /etc/pra-agent -type f | sort").split() == [
        "/etc/pra-agent/config.yaml",
        "/etc/pra-agent/staged/config.yaml",
    ]
    assert host.done("systemctl", "is-enabled", "pra-agent.service").stdout.strip() == "disabled"
    # With the kit's password, everything is still there, and a snapshot more.
    host.put(PASSWORD, after, 0o600)
    there = host.run("pra-agent", "--direct", "--json", "snapshots")
    assert there.count('"tree"') == kept.count('"tree"') + 1


@on_a_host
def test_another_host_takes_over_at_the_other_site(bare, fleet, dockerd):
    ansible, lost = bare
    set_up(ansible, lost)
    # Since the last test, it is the rotated one.
    password = lost.run("cat", PASSWORD)
    lost.sh("chmod -R a+rwX /mnt/dr")
    instant = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    argv = (
        "ansible/failover.yml",
        "-e",
        f"recover_at={instant}",
        "-e",
        json.dumps({"backup_repository_password": password}),
    )
    with hosts.running(dockerd, "host13", f"{fleet.shared}:/mnt/dr") as host:
        fleet.add("dr", "standby-1", host, failover_of="web-1")
        assert "failover_confirm" in ansible.playbook(*argv, check=False)
        printed = ansible.playbook(*argv, "-e", "failover_confirm=true")
        assert password not in printed
        assert host.sh("stat -c %u:%g /srv/app/deep/file").strip() == "4242:4243"
        status = cast("dict[str, Any]", host.json("pra-agent", "--json", "status")[0])
        assert status["daemon"]["node"] == "web-1"
        assert not status["jobs"][0]["on_hold"]
        # It goes on in the lost one's name.
        host.run("pra-agent", "backup")
