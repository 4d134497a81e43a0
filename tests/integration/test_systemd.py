"""The hardened unit on a real systemd: it reads everything, writes nothing, is watched, starts by its socket."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.support import hosts, packages
from tests.support.cassandra import LIB, Node, require_cassandra
from tests.support.docker_engine import Dockerd
from tests.support.hosts import Host

pytestmark = [
    pytest.mark.docker,
    pytest.mark.systemd,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("docker"),
]
UNIT = "pra-agent.service"
DROP_INS = f"/etc/systemd/system/{UNIT}.d"
EXPOSURE = 2.3
CONFIG = """
node: host
repository:
  url: /srv/backup
  password: {credential: repository-password}
defaults: {schedule: null}
jobs:
  host: {source: {type: files, paths: [/home, /root, /tmp/seen, /var/tmp/seen, /dev/seen, /srv/app]}}
  volume: {source: {type: docker_volume, volume: data, quiesce: pause}}
exporter: {listen: "127.0.0.1:9807"}
"""


@pytest.fixture(scope="module")
def host(dockerd: Dockerd) -> Iterator[Host]:
    """A host where the agent is installed, configured and running."""
    packages.can_build()
    built = packages.packages("debian12", "debian13")
    # Java and Cassandra's jars are this machine's.
    shared = [
        f"{path}:{path}:ro" for path in ("/usr/lib/jvm", "/etc/java-17-openjdk", LIB.parent) if Path(path).exists()
    ]
    with hosts.running(dockerd, "host12", f"{built}:/packages:ro", *shared) as started:
        started.sh("dpkg --force-unsafe-io -i /packages/*~debian12_*.deb")
        started.put("/etc/pra-agent/config.yaml", CONFIG)
        started.put(f"{DROP_INS}/repository.conf", "[Service]\nReadWritePaths=/srv/backup\n")
        started.sh(
            """
            useradd --create-home alice
            mkdir -p /tmp/seen /var/tmp/seen /dev/seen /srv/app/deep
            for file in /home/alice/key /root/key /tmp/seen/key /var/tmp/seen/key /dev/seen/key /srv/app/deep/key; do
                echo "secret of $file" >$file
                chmod 600 $file
            done
            mknod /srv/app/null c 1 3
            chmod 0 /srv/app/deep
            chown -R alice: /home/alice /tmp/seen /srv/app/deep
            """
        )
        started.run("pra-agent", "init")
        started.run("systemctl", "enable", "--now", "pra-agent.socket", UNIT)
        yield started


def exposure(host: Host) -> float:
    told = host.run("systemd-analyze", "security", "--no-pager", UNIT)
    print(f"\n{told}")  # noqa: T201 - the table is to be seen
    return float(told.rsplit("level for", 1)[1].split(":")[1].split()[0])


def test_its_exposure(host):
    assert exposure(host) <= EXPOSURE


def test_it_runs_as_it_should(host):
    assert host.shown(UNIT, "User") == "pra-agent"
    assert host.shown(UNIT, "StatusText") == "2 jobs, waiting"
    status = host.sh(f"cat /proc/{host.shown(UNIT, 'MainPID')}/status")
    masks = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNew"))}
    assert masks == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0000000000000004"),
        "NoNewPrivs": "1",
    }


def test_it_saves_what_belongs_to_others_and_root_restores_it(host):
    before = listing(host)
    host.run("pra-agent", "backup", "host")
    host.sh("rm -r /home/alice/key /root/key /tmp/seen /var/tmp/seen /dev/seen /srv/app/deep /srv/app/null")
    host.run("pra-agent", "restore", "host", "--in-place", "--force")
    assert listing(host) == before
    assert len(before.splitlines()) == 18


def listing(host: Host) -> str:
    """Everything that is to be saved, with owners, modes, times and contents."""
    return host.sh(
        """
        cd /
        find home/alice/key root/key tmp/seen var/tmp/seen dev/seen srv/app -printf '%p %y %u %g %m %T@\\n' | sort
        sha256sum home/alice/key root/key tmp/seen/key var/tmp/seen/key dev/seen/key srv/app/deep/key
        """
    )


def test_it_cannot_write(host):
    pid = host.shown(UNIT, "MainPID")
    for path in ("/usr/x", "/etc/pra-agent/x", "/home/x", "/root/x", "/srv/app/x", "/boot/x", "/var/x"):
        # Root's rights, in its view of the file systems.
        done = host.done("nsenter", "-m", "-t", pid, "touch", path)
        assert "Read-only file system" in done.stderr, path
    assert host.done("nsenter", "-m", "-t", pid, "touch", "/srv/backup/x", "/var/lib/pra-agent/x").returncode == 0
    host.run("rm", "/srv/backup/x", "/var/lib/pra-agent/x")


def test_the_socket_is_roots(host):
    assert host.sh("stat -c %U:%G:%a /run/pra-agent /run/pra-agent/control.sock").split() == [
        "pra-agent:pra-agent:750",
        "root:pra-agent:660",
    ]
    done = host.done("pra-agent", "snapshots", user="alice")
    assert done.returncode != 0
    assert "/run/pra-agent/control.sock" in done.stderr
    assert host.done("cat", "/etc/pra-agent/repository-password", user="alice").returncode != 0


def test_a_connection_starts_it(host):
    host.run("systemctl", "stop", UNIT)
    assert host.run("systemctl", "is-active", "pra-agent.socket") == "active"
    assert host.run("systemctl", "is-active", UNIT, check=False) == "inactive"
    status = cast("dict[str, object]", host.asked("/v1/status"))
    assert status["node"] == "host"
    assert host.run("systemctl", "is-active", UNIT) == "active"


def test_a_reload_takes_a_new_configuration_and_refuses_a_bad_one(host):
    try:
        host.put("/etc/pra-agent/conf.d/more.yaml", "jobs: {more: {source: {type: files, paths: [/etc]}}}\n")
        host.run("systemctl", "reload", UNIT)
        host.until(lambda: host.shown(UNIT, "StatusText").startswith("3 jobs"), "the reload", UNIT)
        host.put("/etc/pra-agent/conf.d/more.yaml", "jobz: {}\n")
        host.run("systemctl", "reload", UNIT)
        host.until(lambda: "configuration was refused" in host.shown(UNIT, "StatusText"), "the refusal", UNIT)
        assert host.run("systemctl", "is-active", UNIT) == "active"
    finally:
        host.run("rm", "-f", "/etc/pra-agent/conf.d/more.yaml")
        host.run("systemctl", "reload", UNIT)
    host.until(lambda: host.shown(UNIT, "StatusText") == "2 jobs, waiting", "the first one again", UNIT)


def test_the_watchdog_ends_what_hangs(host):
    host.put(f"{DROP_INS}/watchdog.conf", "[Service]\nWatchdogSec=4\nRestartSec=100ms\n")
    try:
        host.sh(f"systemctl daemon-reload; systemctl restart {UNIT}")
        hanging = host.shown(UNIT, "MainPID")
        host.run("kill", "-STOP", hanging)
        host.until(lambda: host.shown(UNIT, "NRestarts") != "0", "the restart", UNIT)
        host.until(lambda: host.shown(UNIT, "ActiveState") == "active", "the new one", UNIT)
        assert host.shown(UNIT, "MainPID") != hanging
        assert "Watchdog timeout" in host.journal(UNIT)
    finally:
        host.sh(f"rm {DROP_INS}/watchdog.conf; systemctl daemon-reload; systemctl restart {UNIT}")


def test_what_cannot_run_is_told(host):
    few = "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=100ms\n"
    host.put(f"{DROP_INS}/few.conf", few)
    try:
        host.sh("mv /etc/pra-agent/repository-password /etc/pra-agent/elsewhere; systemctl daemon-reload")
        host.sh(f"systemctl reset-failed; systemctl restart {UNIT} || true")
        told = "nothing is saved; the reason is told by: journalctl -u pra-agent"
        crit = ("journalctl", "--no-pager", "-o", "cat", "-p", "crit", "-t", "pra-agent")
        host.until(lambda: told in host.run(*crit), "the message", UNIT)
        # It is tried again later.
        assert host.shown("pra-agent-failed.service", "ActiveState") == "activating"
    finally:
        host.sh("mv /etc/pra-agent/elsewhere /etc/pra-agent/repository-password; systemctl stop pra-agent-failed")
        host.sh(f"rm {DROP_INS}/few.conf; systemctl daemon-reload; systemctl reset-failed; systemctl start {UNIT}")


def test_a_docker_volume_takes_the_drop_in(host, dockerd):
    del dockerd
    host.sh("systemctl start docker.service; docker volume create data")
    host.sh("cd /var/lib/docker/volumes/data/_data; echo content >file; chmod 600 file; chown 999:999 file")
    refused = host.done("pra-agent", "backup", "volume")
    assert refused.returncode == 1
    host.sh(f"cp /usr/share/doc/pra-agent/drop-ins/docker.conf {DROP_INS}/; systemctl daemon-reload")
    host.run("systemctl", "restart", UNIT)
    try:
        host.run("pra-agent", "backup", "volume")
        host.run("pra-agent", "restore", "volume", "--target", "/root/volume")
        assert host.sh("find /root/volume -name file -exec cat {} + -exec stat -c %u:%g:%a {} +").split() == [
            "content",
            "999:999:600",
        ]
        assert exposure(host) <= EXPOSURE
    finally:
        host.sh(f"systemctl stop docker.service docker.socket; rm {DROP_INS}/docker.conf; systemctl daemon-reload")
        host.run("systemctl", "restart", UNIT)


_ROWS = """
from cassandra.cluster import Cluster
from cassandra.io.libevreactor import LibevConnection
cluster = Cluster(["127.0.0.1"], connection_class=LibevConnection, connect_timeout=30)
session = cluster.connect()
session.execute("CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
session.execute("CREATE TABLE shop.orders (id int PRIMARY KEY, what text)")
for number in range(100):
    session.execute("INSERT INTO shop.orders (id, what) VALUES (%s, %s)", (number, "x" * 100))
cluster.shutdown()
"""


def test_cassandra_through_nodetool_takes_the_drop_in(host, tmp_path):
    require_cassandra()
    node = Node(home=tmp_path, base="/srv/cassandra", address="127.0.0.1", native=9042, storage=7000, jmx=7199)
    host.sh("mkdir -p /srv/cassandra/conf")
    for file in (tmp_path / "conf").iterdir():
        host.put(f"/srv/cassandra/conf/{file.name}", file.read_text())
    # As root, in its own directory of mode 0700: the agent reads it by its capability.
    host.sh(f"chmod 700 /srv/cassandra; systemd-run --quiet --unit cassandra {shlex.join(node.server())}")
    try:
        listens = "ss -Hltn sport = 9042 | grep . || systemctl is-failed cassandra >&2"
        host.until(lambda: host.sh(listens, check=False) != "", "Cassandra", "cassandra", 240)
        host.run("/opt/pra-agent/bin/python3", "-I", "-", text=_ROWS)
        job = json.dumps({"source": node.settings(keyspaces=["shop"])})
        host.put("/etc/pra-agent/conf.d/cassandra.yaml", f"jobs: {{cassandra: {job}}}\n")
        host.run("systemctl", "restart", UNIT)
        refused = host.done("pra-agent", "backup", "cassandra")
        assert refused.returncode == 1
        host.sh(f"cp /usr/share/doc/pra-agent/drop-ins/nodetool.conf {DROP_INS}/; systemctl daemon-reload")
        host.run("systemctl", "restart", UNIT)
        host.run("pra-agent", "backup", "cassandra")
        assert int(host.sh("pra-agent ls --recursive cassandra | grep -c 'orders.*-Data.db'")) >= 1
        assert host.sh("find /srv/cassandra -path '*/snapshots/*' -name '*.db'") == ""
        assert exposure(host) <= EXPOSURE
    finally:
        host.sh(f"rm -f /etc/pra-agent/conf.d/cassandra.yaml {DROP_INS}/nodetool.conf; systemctl daemon-reload")
        host.sh(f"systemctl kill -s KILL cassandra || true; systemctl restart {UNIT}")
