"""Elasticsearch and OpenSearch nodes of the tests' own, below temporary directories, run by the user esrun."""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import free_port

TESTBED = Path(os.environ.get("TESTBED", "/var/tmp/pra-testbed"))
JDK17 = Path("/usr/lib/jvm/java-17-openjdk-amd64")
_HEAP = ("-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
_DROPPED = ("Xlog:gc", "-XX:ErrorFile", "-XX:HeapDump", "UseG1GC")
PASSWORD = "s3cretpw-of-admin"


def _user() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        pytest.skip("these servers refuse root, and only root can become their user")
    try:
        return pwd.getpwnam("esrun")
    except KeyError:
        pytest.skip("no user esrun (make testbed as root)")


def _own(directory: Path, user: pwd.struct_passwd) -> None:
    for root, directories, files in os.walk(directory):
        for name in (".", *directories, *files):
            os.chown(Path(root) / name, user.pw_uid, user.pw_gid, follow_symlinks=False)


@dataclass
class Node:
    """One node of either product."""

    home: Path
    name: str
    port: int
    transport: int
    repo: Path
    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    scheme: str = "http"
    login: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; `wait` waits for it."""
        user = _user()
        _own(self.home, user)
        argv = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
        argv += ["--pdeathsig", "KILL", *self.argv]
        with (self.home / "stdout.log").open("wb") as log:
            self.process = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env, cwd=self.home
            )

    def ask(self, method: str, path: str, body: Any = None, *, lines: bool = False) -> Any:
        """Make a request; the JSON of the answer."""
        import ssl

        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        kind = "application/x-ndjson" if lines else "application/json"
        request = urllib.request.Request(self.url + path, data=data, method=method, headers={"Content-Type": kind})
        if self.login:
            import base64

            request.add_header("Authorization", "Basic " + base64.b64encode(self.login.encode()).decode())
        context = ssl._create_unverified_context() if self.scheme == "https" else None
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.code} {error.read()[:800]!r}") from None

    def wait(self, nodes: int = 1) -> None:
        """Until the cluster has so many nodes and a master."""
        deadline = time.monotonic() + 400  # a machine may be busy with other things
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, AssertionError, ValueError):
                if self.ask("GET", f"/_cluster/health?wait_for_nodes={nodes}&timeout=1s")["number_of_nodes"] >= nodes:
                    return
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.2)
        raise AssertionError(f"{self.name} does not start: {(self.home / 'stdout.log').read_text()[-3000:]}")

    def stop(self) -> None:
        """End it and remove its files."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def fill(self, index: str, count: int, batch: int = 10_000) -> None:
        """Index so many small documents."""
        for start in range(0, count, batch):
            lines = []
            for number in range(start, min(start + batch, count)):
                lines += [json.dumps({"index": {"_id": str(number)}}), json.dumps({"n": number, "t": f"text {number}"})]
            self.ask("POST", f"/{index}/_bulk?filter_path=errors", "\n".join([*lines, ""]), lines=True)
        self.ask("POST", f"/{index}/_refresh")

    def count(self, index: str) -> int:
        return int(self.ask("GET", f"/{index}/_count")["count"])


def _directory(name: str) -> Path:
    home = Path(tempfile.mkdtemp(prefix=f"pra-{name}-", dir="/var/tmp"))
    home.chmod(0o755)
    for part in ("data", "logs", "config", "repo", "tmp"):
        (home / part).mkdir()
    return home


def _yaml(home: Path, name: str, port: int, transport: int, repo: Path, more: dict[str, Any]) -> str:
    settings: dict[str, Any] = {
        "cluster.name": "pra-tests",
        "node.name": name,
        "path.data": str(home / "data"),
        "path.logs": str(home / "logs"),
        "path.repo": [str(repo), str(home / "repo")],
        "network.host": "127.0.0.1",
        "http.port": port,
        "transport.port": transport,
        "cluster.routing.allocation.disk.threshold_enabled": False,
        **more,
    }
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in settings.items()) + "\n"


def elasticsearch_node(
    name: str, *, repo: Path | None = None, version: str = "8.7.1", secure: bool = False, **more: Any
) -> Node:
    """Lay out (not start) a node; keys of `more` are settings with __ for dots."""
    server = TESTBED / "elasticsearch" / f"elasticsearch-{version}"
    user = _user()
    if not (server / ".complete").exists() or not JDK17.exists():
        pytest.skip("no Elasticsearch (make testbed as root)")
    home = _directory(name)
    shutil.copytree(server / "config", home / "config", dirs_exist_ok=True)
    port, transport = free_port(), free_port()
    settings = {key.replace("__", "."): value for key, value in more.items()} or {"discovery.type": "single-node"}
    node = Node(home, name, port, transport, repo or home / "repo")
    # Otherwise it would make itself certificates at its first start.
    settings |= {"xpack.security.enabled": False}
    if secure:
        settings |= _secured(home, server, user)
        node.scheme, node.login = "https", f"admin:{PASSWORD}"
    (home / "config/elasticsearch.yml").write_text(_yaml(home, name, port, transport, node.repo, settings))
    options = (home / "config/jvm.options").read_text().splitlines()
    kept = [line for line in options if not any(word in line for word in _DROPPED)]
    (home / "config/jvm.options").write_text("\n".join([*kept, *_HEAP, ""]))
    node.env = {"HOME": "/tmp", "PATH": os.environ["PATH"], "ES_JAVA_HOME": str(JDK17)}
    node.env |= {"ES_PATH_CONF": str(home / "config"), "ES_TMPDIR": str(home / "tmp")}
    node.argv = ["bash", str(server / "bin/elasticsearch")]
    return node


def _secured(home: Path, server: Path, user: pwd.struct_passwd) -> dict[str, Any]:
    certs = home / "config/certs"
    certs.mkdir()
    files = ["-keyout", str(certs / "k.pem"), "-out", str(certs / "c.pem")]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *subject, *files],
        check=True,
        capture_output=True,
    )
    env = {**os.environ, "ES_PATH_CONF": str(home / "config"), "ES_JAVA_HOME": str(JDK17)}
    argv = ["bash", str(server / "bin/elasticsearch-users"), "useradd", "admin", "-p", PASSWORD, "-r", "superuser"]
    subprocess.run(argv, check=True, capture_output=True, env=env)
    _own(home, user)
    return {
        "discovery.type": "single-node",
        "xpack.security.enabled": True,
        "xpack.security.http.ssl.enabled": True,
        "xpack.security.http.ssl.key": "certs/k.pem",
        "xpack.security.http.ssl.certificate": "certs/c.pem",
        "xpack.security.autoconfiguration.enabled": False,
    }


def opensearch_node(name: str, *, version: str = "3.8.0", s3: dict[str, str] | None = None) -> Node:
    """Lay out (not start) an OpenSearch node with repository-s3; `s3`: endpoint, access key and secret key."""
    server = TESTBED / "opensearch" / version
    _user()
    java = next(iter(sorted(Path("/usr/lib/jvm").glob("temurin-2[1-9]*/bin/java"))), None)
    if not (server / ".complete").exists() or java is None:
        pytest.skip("no OpenSearch (make testbed as root), or no JDK 21 for it")
    home = _directory(name)
    port, transport = free_port(), free_port()
    settings: dict[str, Any] = {"discovery.type": "single-node"}
    node = Node(home, name, port, transport, home / "repo")
    jvm = ["-Dopensearch.networkaddress.cache.ttl=60", "-Dio.netty.noUnsafe=true", "-Dlog4j2.disable.jmx=true"]
    if s3 is not None:
        settings |= {
            "s3.client.default.endpoint": s3["endpoint"],
            "s3.client.default.region": "us-east-1",
        }
    (home / "config/opensearch.yml").write_text(_yaml(home, name, port, transport, node.repo, settings))
    (home / "config/log4j2.properties").write_text(
        "status = error\nappender.console.type = Console\nappender.console.name = console\n"
        "appender.console.layout.type = PatternLayout\nappender.console.layout.pattern = %m%n\n"
        "rootLogger.level = warn\nrootLogger.appenderRef.console.ref = console\n"
    )
    node.env = {"HOME": "/tmp", "PATH": os.environ["PATH"], "OPENSEARCH_TMPDIR": str(home / "tmp")}
    if s3 is not None:
        _keystore(home, server, java, s3)
    node.argv = [str(java), *_HEAP, f"-Djava.io.tmpdir={home}/tmp", *jvm, "-Dlog4j.shutdownHookEnabled=false"]
    node.argv += ["--add-modules=jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED"]
    node.argv += ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-Dopensearch.allow_insecure_settings=true"]
    node.argv += [f"-Dopensearch.path.home={server}", f"-Dopensearch.path.conf={home}/config"]
    node.argv += ["-Dopensearch.distribution.type=zip", "-Dopensearch.bundled_jdk=false", "-cp", f"{server}/lib/*"]
    node.argv += ["org.opensearch.bootstrap.OpenSearch"]
    return node


_KEYSTORE = """
package org.opensearch.common.settings;

public class MakeKeystore {
    public static void main(String[] words) throws Exception {
        KeyStoreWrapper store = KeyStoreWrapper.create();
        store.setString("s3.client.default.access_key", System.getenv("ACCESS_KEY").toCharArray());
        store.setString("s3.client.default.secret_key", System.getenv("SECRET_KEY").toCharArray());
        store.save(java.nio.file.Path.of(words[0]), new char[0]);
    }
}
"""


def _keystore(home: Path, server: Path, java: Path, s3: dict[str, str]) -> None:
    """Write the secure settings as opensearch-keystore would, which is not among the published jars."""
    source = home / "tmp/MakeKeystore.java"
    source.write_text(_KEYSTORE)
    env = {**os.environ, "ACCESS_KEY": s3["access_key"], "SECRET_KEY": s3["secret_key"]}
    classes = home / "tmp/classes"
    jars = f"{server}/lib/*"
    javac = [str(java.with_name("javac")), "-cp", jars, "-d", str(classes), str(source)]
    subprocess.run(javac, check=True, capture_output=True)
    argv = [str(java), "-cp", f"{classes}:{jars}", f"-Dopensearch.path.conf={home}/config"]
    argv += ["org.opensearch.common.settings.MakeKeystore", str(home / "config")]
    subprocess.run(argv, check=True, capture_output=True, env=env)


@pytest.fixture(scope="module")
def elasticsearch() -> Iterator[Node]:
    """One node for the tests of a module."""
    node = elasticsearch_node("es1")
    try:
        node.start()
        node.wait()
        yield node
    finally:
        node.stop()
