"""Cassandra nodes of the tests' own, run from the test bed's jars; they end with the test process."""

import contextlib
import importlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import TESTBED, free_port

VERSION = "5.0.9"
LIB = TESTBED / "cassandra" / VERSION / "lib"
JAVA = Path("/usr/lib/jvm/java-17-openjdk-amd64/bin/java")
#: The ranges of three nodes with one token each.
TOKENS = ("-9223372036854775808", "-3074457345618258603", "3074457345618258602")
OTHER_TOKENS = ("-8000000000000000000", "-1000000000000000000", "5000000000000000000")

_OPENED = """
java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry
java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc
jdk.compiler/com.sun.tools.javac.file jdk.attach/sun.tools.attach java.base/java.lang.module
java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.math
java.base/jdk.internal.module java.base/jdk.internal.util.jar jdk.management/com.sun.management.internal
java.base/sun.nio.ch java.base/java.io java.base/java.lang.reflect jdk.compiler/com.sun.tools.javac
java.base/java.lang java.base/java.util java.management/com.sun.jmx.remote.security
"""
JVM = [
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
    *(f"--add-{verb}={name}=ALL-UNNAMED" for name in _OPENED.split() for verb in ("exports", "opens")),
]
_LOGGING = """<configuration><appender name="F" class="ch.qos.logback.core.FileAppender"><file>{log}</file>
<encoder><pattern>%-5level [%thread] %date{{ISO8601}} %F:%L - %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="F"/></root></configuration>
"""
_YAML = """cluster_name: {cluster}
num_tokens: 1
initial_token: '{token}'
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [{data}]
commitlog_directory: {base}/commitlog
saved_caches_directory: {base}/saved_caches
hints_directory: {base}/hints
cdc_raw_directory: {base}/cdc_raw
commitlog_sync: periodic
commitlog_sync_period: 1000ms
commitlog_segment_size: 1MiB
commitlog_total_space: 64MiB
storage_compatibility_mode: NONE
memtable_allocation_type: heap_buffers
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
file_cache_size: 32MiB
networking_cache_size: 16MiB
key_cache_size: 4MiB
counter_cache_size: 1MiB
concurrent_reads: 4
concurrent_writes: 4
concurrent_compactors: 1
native_transport_max_threads: 8
listen_address: {address}
rpc_address: {address}
native_transport_port: {native}
storage_port: {storage}
endpoint_snitch: SimpleSnitch
auto_snapshot: true
materialized_views_enabled: true
disk_failure_policy: stop
commit_failure_policy: stop
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{seeds}"}}]
"""


#: Classes as the JVM has loaded and checked them once: half of nodetool's time. Made by the first run.
NODETOOL_CLASSES = LIB.parent / "nodetool.jsa"


def require_cassandra() -> None:
    """Skip the test where the jars or the JDK are missing."""
    if not (LIB.parent / ".complete").exists():
        pytest.skip(f"no Cassandra {VERSION} in the test bed (make testbed)")
    if not JAVA.exists():
        pytest.skip("no JDK 17")


@dataclass
class Node:
    """One node: where it lives and listens, and its process. `base` is where it sees `home` itself."""

    home: Path
    address: str
    native: int
    storage: int
    jmx: int
    token: str = "0"
    seeds: str = ""
    cluster: str = "pra-test"
    data_dirs: tuple[str, ...] = ("data",)
    extra_yaml: str = ""
    extra_jvm: tuple[str, ...] = ()
    login: tuple[str, str] | None = None
    tls: Any = None
    base: str = ""
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.base = self.base or str(self.home)
        self.configure()

    def configure(self) -> None:
        """Write its configuration."""
        conf = self.home / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        text = _YAML.format(
            cluster=self.cluster,
            token=self.token,
            data=", ".join(f"{self.base}/{name}" for name in self.data_dirs),
            base=self.base,
            address=self.address,
            native=self.native,
            storage=self.storage,
            seeds=self.seeds or f"{self.address}:{self.storage}",
        )
        (conf / "cassandra.yaml").write_text(text + self.extra_yaml)
        (conf / "logback.xml").write_text(_LOGGING.format(log=f"{self.base}/system.log"))
        (conf / "tools.xml").write_text('<configuration><root level="OFF"/></configuration>')

    @property
    def data(self) -> list[Path]:
        return [self.home / name for name in self.data_dirs]

    def server(self, *, java: str = str(JAVA), lib: str = str(LIB), heap: int = 256) -> list[str]:
        """The command line of the server."""
        return [
            java,
            f"-Xms{heap}m",
            f"-Xmx{heap}m",
            "-XX:MaxDirectMemorySize=128m",
            *JVM,
            "-Djdk.attach.allowAttachSelf=true",
            "-Dio.netty.tryReflectionSetAccessible=true",
            f"-Dcassandra.config=file://{self.base}/conf/cassandra.yaml",
            f"-Dcassandra.storagedir={self.base}",
            f"-Dcassandra.logdir={self.base}",
            f"-Dlogback.configurationFile={self.base}/conf/logback.xml",
            f"-Dcassandra.jmx.local.port={self.jmx}",
            "-Djava.rmi.server.hostname=127.0.0.1",
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            "-Dcassandra.ring_delay_ms=2000",
            "-Dcassandra.consistent.rangemovement=false",
            *self.extra_jvm,
            "-cp",
            f"{self.base}/conf:{lib}/*",
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def nodetool_command(self, *, java: str = str(JAVA), lib: str = str(LIB)) -> list[str]:
        """What the agent is to call as nodetool; host and port are its business."""
        flags = ["-Xmx96m", *JVM, f"-Dcassandra.logdir={self.base}"]
        if NODETOOL_CLASSES.exists() and lib == str(LIB):
            flags.append(f"-XX:SharedArchiveFile={NODETOOL_CLASSES}")
        flags.append(f"-Dlogback.configurationFile={self.base}/conf/tools.xml")
        return [java, *flags, "-cp", f"{lib}/*", "org.apache.cassandra.tools.NodeTool"]

    def nodetool(self, *argv: str) -> str:
        """Run nodetool on the host."""
        command = [*self.nodetool_command(), "-h", "127.0.0.1", "-p", str(self.jmx), *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def settings(self, **more: object) -> dict[str, object]:
        """A job's source of this node."""
        return {
            "type": "cassandra",
            "hosts": [self.address],
            "port": self.native,
            "nodetool": self.nodetool_command(),
            "jmx_host": "127.0.0.1",
            "jmx_port": self.jmx,
            **more,
        }

    def start(self) -> None:
        """Start it; see `wait`."""
        argv = ["setpriv", "--pdeathsig", "KILL", *self.server()]
        with (self.home / "stdout.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, seconds: float = 300) -> None:
        """Until it takes clients."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.process is not None and self.process.poll() is not None:
                break
            try:
                with self.session():
                    return
            except Exception:  # noqa: BLE001 - whatever the driver says while it starts
                time.sleep(0.5)
        raise AssertionError(f"Cassandra at {self.address} did not start: {self.tail()}")

    def stop(self) -> None:
        """End it in order."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def tail(self) -> str:
        """The ends of its logs."""
        logs = [self.home / "stdout.log", self.home / "system.log"]
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs if log.exists())

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """A session with this node alone."""
        driver: Any = importlib.import_module("cassandra.cluster")
        policy = importlib.import_module("cassandra.policies").WhiteListRoundRobinPolicy([self.address])
        plain = importlib.import_module("cassandra.auth").PlainTextAuthProvider
        logging.getLogger("cassandra").setLevel(logging.CRITICAL)
        cluster = driver.Cluster(
            [self.address],
            port=self.native,
            auth_provider=None if self.login is None else plain(*self.login),
            ssl_context=self.tls,
            connection_class=importlib.import_module("cassandra.io.libevreactor").LibevConnection,
            execution_profiles={driver.EXEC_PROFILE_DEFAULT: driver.ExecutionProfile(policy, request_timeout=60)},
            connect_timeout=10,
        )
        try:
            yield cluster.connect()
        finally:
            cluster.shutdown()

    def rows(self, query: str, level: str = "LOCAL_ONE") -> list[tuple[object, ...]]:
        """All rows of a query, sorted, as the consistency level gives them."""
        consistency = getattr(importlib.import_module("cassandra").ConsistencyLevel, level)
        simple: Any = importlib.import_module("cassandra.query").SimpleStatement
        statement = simple(query, fetch_size=5000, consistency_level=consistency)
        with self.session() as session:
            return sorted(tuple(row) for row in session.execute(statement))


@dataclass
class Homes:
    """Directories of nodes, removed at the end unless a test failed."""

    made: list[Path] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def new(self) -> Path:
        path = Path(tempfile.mkdtemp(prefix="pra-cassandra-", dir="/var/tmp"))
        self.made.append(path)
        return path

    def ring(self, tokens: Sequence[str], cluster: str) -> list[Node]:
        """Start nodes on 127.0.0.1, .2, ... at once and wait for all of them."""
        native, storage = free_port(), free_port()
        nodes = [
            Node(
                home=self.new(),
                address=f"127.0.0.{number}",
                native=native,
                storage=storage,
                jmx=free_port(),
                token=token,
                seeds=f"127.0.0.1:{storage}",
                cluster=cluster,
            )
            for number, token in enumerate(tokens, 1)
        ]
        self.nodes += nodes
        start_all(nodes)
        return nodes

    def stop(self) -> None:
        """End all nodes at once."""
        stop_all(self.nodes)

    def close(self, *, keep: bool) -> None:
        """End all nodes, and remove what they had; of failed tests the logs are kept."""
        for node in self.nodes:
            node.kill()
        kept = Path(os.environ.get("PRA_TEST_LOGS", "/var/tmp/pra-test-logs"))
        for home in self.made:
            for log in home.glob("*.log") if keep else ():
                target = kept / home.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, target)
            shutil.rmtree(home, ignore_errors=True)


def start_all(nodes: Sequence[Node]) -> None:
    """Start nodes at once; return when each takes clients."""
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait()
    if not NODETOOL_CLASSES.exists() and os.access(LIB.parent, os.W_OK):
        _share_classes(nodes[0])


def _share_classes(node: Node) -> None:
    made = NODETOOL_CLASSES.with_name(f"nodetool.{os.getpid()}.jsa")
    command = [*node.nodetool_command(), "-h", "127.0.0.1", "-p", str(node.jmx), "status"]
    command.insert(1, f"-XX:ArchiveClassesAtExit={made}")
    subprocess.run(command, capture_output=True, check=False, timeout=120)
    if made.exists():
        made.rename(NODETOOL_CLASSES)


def stop_all(nodes: Sequence[Node]) -> None:
    """End nodes at once, in order."""
    for node in nodes:
        if node.process is not None:
            node.process.terminate()
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def cassandra_homes(request: pytest.FixtureRequest) -> Iterator[Homes]:
    """Where the nodes of one module live."""
    require_cassandra()
    homes = Homes()
    failed = request.session.testsfailed
    try:
        yield homes
    finally:
        homes.close(keep=request.session.testsfailed > failed)


@pytest.fixture(scope="module")
def cassandra_node(cassandra_homes: Homes) -> Node:
    """One node with two data directories, for one module."""
    node = Node(
        home=cassandra_homes.new(),
        address="127.0.0.1",
        native=free_port(),
        storage=free_port(),
        jmx=free_port(),
        data_dirs=("data1", "data2"),
    )
    cassandra_homes.nodes.append(node)
    start_all([node])
    return node
