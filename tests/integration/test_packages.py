"""Packages: built alike, of what the lock names, signed; installed, upgraded, downgraded and removed on real hosts."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pra_agent import __version__
from tests.support import hosts, packages
from tests.support.docker_engine import Dockerd
from tests.support.hosts import Host

pytestmark = [pytest.mark.docker, pytest.mark.systemd, pytest.mark.slow, pytest.mark.xdist_group("docker")]
BEFORE = "0.0.9"
PASSWORD = "/etc/pra-agent/repository-password"


@pytest.fixture(scope="module")
def built() -> Path:
    packages.can_build()
    return packages.packages("debian12", "debian13")


@pytest.fixture(scope="module")
def built_before() -> Path:
    packages.can_build()
    return packages.packages("debian12", version=BEFORE)


@pytest.fixture
def host(dockerd: Dockerd, built: Path, built_before: Path) -> Iterator[Host]:
    with hosts.running(dockerd, "host12", f"{built}:/packages:ro", f"{built_before}:/before:ro") as started:
        yield started


def install(host: Host, directory: str, target: str = "debian12", *options: str) -> str:
    return host.sh(f"dpkg --force-unsafe-io {' '.join(options)} -i {directory}/*~{target}_*.deb 2>&1")


@pytest.mark.timeout(600)
def test_two_builds_are_equal(built, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    # Nothing but the downloaded wheels is shared.
    for wheels in built.parent.glob("wheels-*"):
        (cache / wheels.name).symlink_to(wheels)
    shutil.copytree(built / "sources", tmp_path / "elsewhere")
    packages.build(tmp_path / "elsewhere", tmp_path / "out", "debian12", cache=cache)
    one, two = (digests(directory) for directory in (built, tmp_path / "out"))
    assert len(two) == 4
    assert two.items() <= one.items()


def digests(directory: Path) -> dict[str, str]:
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_the_bill_of_materials_names_what_is_inside(built):
    package = packages.deb(built, "debian12")
    listed = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    inside = {
        tuple(part.split("/site-packages/")[1].split(".dist-info")[0].rsplit("-", 1))
        for part in listed.splitlines()
        if part.endswith(".dist-info/METADATA")
    }
    bill = json.loads(package.with_suffix(".cdx.json").read_text())
    told = {(part["name"].replace("-", "_"), part["version"]) for part in bill["components"]}
    assert {(name.lower().replace(".", "_"), version) for name, version in inside} == told | {
        ("pra_agent", __version__)
    }
    assert all(part["licenses"] for part in bill["components"])
    assert all(part["properties"] for part in bill["components"])
    assert "__pycache__" not in listed


def test_a_signature_is_verified(built, tmp_path, monkeypatch):
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "packages@pra-agent.invalid", "ed25519", "sign"], check=True)
    try:
        package = packages.deb(built, "debian12")
        signature = tmp_path / "package.sig"
        subprocess.run([*gpg, "--detach-sign", "--output", signature, package], check=True)
        subprocess.run([*gpg, "--output", tmp_path / "key.gpg", "--export"], check=True)
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=True)
    verify = ["gpgv", "--quiet", "--keyring", str(tmp_path / "key.gpg"), str(signature)]
    assert subprocess.run([*verify, package], capture_output=True).returncode == 0
    tampered = tmp_path / "tampered.deb"
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    tampered.write_bytes(data)
    assert subprocess.run([*verify, tampered], capture_output=True).returncode != 0


def works(host: Host) -> None:
    """All that a package brings is there and runs on this system's Python."""
    assert host.run("pra-agent", "--version") == f"pra-agent {__version__}"
    # Real files, a real daemon, destroyed and restored.
    assert "verify" in host.run("pra-agent", "demo")
    # The driver's event loop: Python 3.12 took away the one that it used to fall back to.
    host.run("/opt/pra-agent/bin/python3", "-Ic", "from cassandra.io.libevreactor import LibevConnection")
    host.run("/opt/pra-agent/bin/python3", "-Ic", "import elasticsearch, docker, boto3, numpy, pyrage")
    assert "PRA-AGENT-RESTORE(1)" in host.sh("MANPAGER=cat man pra-agent-restore")
    host.sh("bash -n /usr/share/bash-completion/completions/pra-agent")
    words = "COMP_WORDS='pra-agent resto' COMP_CWORD=1 _PRA_AGENT_COMPLETE=complete_bash pra-agent"
    assert host.sh(words).split() == ["restore"]
    assert host.sh("find /opt/pra-agent -perm /022 ! -type l") == ""
    assert host.sh("stat -c %U:%G:%a /run/pra-agent") == "pra-agent:pra-agent:750"


@pytest.mark.timeout(600)
def test_it_works_on_debian_13(dockerd, built):
    with hosts.running(dockerd, "host13", f"{built}:/packages:ro") as host:
        install(host, "/packages", "debian13")
        works(host)
        assert host.run("systemctl", "is-enabled", "pra-agent.service", check=False) == "disabled"
        told = host.run("systemd-analyze", "security", "--no-pager", "pra-agent.service")
        print(told.splitlines()[-1])  # noqa: T201 - newer tests of systemd


def configure(host: Host, rate: str = "1MiB/s") -> None:
    host.put(
        "/etc/pra-agent/config.yaml",
        f"""
node: host
repository:
  url: /srv/backup
  password: {{credential: repository-password}}
  limits: {{upload: {rate}}}
  tuning: {{pack_size: 4194304}}
jobs:
  app: {{source: {{type: files, paths: [/srv/app]}}}}
""",
    )
    host.put("/etc/systemd/system/pra-agent.service.d/repository.conf", "[Service]\nReadWritePaths=/srv/backup\n")


def runs(host: Host) -> list[dict[str, object]]:
    """The backups that the daemon knows, the newest first."""
    told = cast("list[dict[str, object]]", host.asked("/v1/runs"))
    return [run for run in told if run["operation"] == "backup"]


@pytest.mark.timeout(900)
def test_the_life_of_an_installation(host):
    # A fresh installation runs nothing before it is configured.
    install(host, "/before")
    assert host.run("systemctl", "is-enabled", "pra-agent.service", check=False) == "disabled"
    configure(host)
    host.sh("mkdir -p /srv/app; head -c 24M /dev/urandom >/srv/app/blob; sha256sum /srv/app/blob >/root/sum")
    host.run("pra-agent", "init")
    host.run("systemctl", "enable", "--now", "pra-agent.socket", "pra-agent.service")

    # An upgrade in the middle of a backup.
    host.sh("setsid pra-agent backup app >/dev/null 2>&1 </dev/null &")
    host.until(lambda: host.sh("find /srv/backup/data -type f | wc -l") != "0", "a first pack", "pra-agent")
    begun = time.monotonic()
    install(host, "/packages")
    took = time.monotonic() - begun
    log = host.journal("pra-agent", 200)
    print(f"\nthe upgrade took {took:.1f} s in the middle of a backup")  # noqa: T201 - a measurement
    assert "killing" not in log.lower()
    assert "timed out" not in log
    assert host.run("systemctl", "is-active", "pra-agent.service", "pra-agent.socket").split() == ["active"] * 2
    assert host.run("pra-agent", "--version") == f"pra-agent {__version__}"
    works(host)
    host.until(lambda: "success" in outcomes(host), "the backup goes on", "pra-agent", 120)
    assert outcomes(host)[:2] == ["success", "failed"]
    host.sh("rm /srv/app/blob; pra-agent restore app --in-place --force; sha256sum -c /root/sum")
    host.run("pra-agent", "check", "--read-data-subset", "100%")

    # A configuration that was edited stays; the daemon goes on over a downgrade while the journal is the same.
    install(host, "/before", "debian12", "--force-confold")
    assert host.run("systemctl", "is-active", "pra-agent.service") == "active"
    assert outcomes(host)[:2] == ["success", "failed"]
    assert "1MiB/s" in host.run("cat", "/etc/pra-agent/config.yaml")

    # A journal of a later version is refused clearly, and the package manager is not stuck.
    host.run("systemctl", "stop", "pra-agent.socket", "pra-agent.service")
    version(host, 99)
    host.run("systemctl", "start", "pra-agent.service", check=False)
    assert "journal version 99" in host.journal("pra-agent")
    assert "Install the newer pra-agent again" in host.journal("pra-agent")
    version(host, 1)
    host.run("systemctl", "restart", "pra-agent.service")
    assert outcomes(host)[0] == "success"

    # Removal leaves what is configured and known; purge leaves the repository and its password.
    host.run("dpkg", "--remove", "pra-agent")
    assert host.sh("ls -A /opt/pra-agent 2>/dev/null || true") == ""
    assert host.sh("systemctl is-active pra-agent.service pra-agent.socket || true").split() == ["inactive"] * 2
    host.sh(f"test -s {PASSWORD} && test -s /var/lib/pra-agent/journal.db && test -s /etc/pra-agent/config.yaml")
    host.run("dpkg", "--purge", "pra-agent")
    assert host.sh("ls -A /var/lib/pra-agent /etc/systemd/system/pra-agent.service.d 2>/dev/null || true") == ""
    assert host.sh("ls /etc/pra-agent/config.yaml 2>/dev/null || true") == ""
    host.sh(f"test -s {PASSWORD} && test -s /srv/backup/config")
    assert host.sh("getent passwd pra-agent")


def outcomes(host: Host) -> list[object]:
    """How the backups ended, the newest first."""
    return [run["outcome"] for run in runs(host)]


def version(host: Host, number: int) -> None:
    """Give the journal another version."""
    path = "/var/lib/pra-agent/journal.db"
    host.run("python3", "-c", f"import sqlite3; sqlite3.connect('{path}').execute('PRAGMA user_version = {number}')")
