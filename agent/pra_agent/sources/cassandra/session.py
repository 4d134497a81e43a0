"""The node, asked in CQL: who it is, where its directories are, its schema. The one user of the driver."""

import importlib
import logging
import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pra_agent.errors import ConfigError, SourceError
from pra_agent.model.references import SecretRef
from pra_agent.sources.cassandra.cql import bare, quoted
from pra_agent.sources.cassandra.settings import CassandraSettings, CassandraTls

_CONNECT_SECONDS = 20
_REQUEST_SECONDS = 120
_DIRECTORIES = {
    "commitlog": "commitlog_directory",
    "hints": "hints_directory",
    "saved_caches": "saved_caches_directory",
    "cdc_raw": "cdc_raw_directory",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view: where its SSTables are is told by its id (32 digits)."""

    keyspace: str
    name: str
    id: str

    @property
    def title(self) -> str:
        """Its name for people and for nodetool."""
        return f"{self.keyspace}.{self.name}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is."""

    cluster: str
    host_id: str
    data_center: str
    rack: str
    tokens: Sequence[str]
    version: str
    partitioner: str
    address: str


class Session:
    """A connection to one node. Errors are `SourceError`, in one line."""

    def __init__(self, session: Any, driver: Any) -> None:  # noqa: ANN401 (the driver is not typed)
        self._session = session
        self._driver = driver

    def rows(self, query: str, *values: object, fetch: int = 5000) -> list[Any]:
        """Run a statement and return all rows."""
        return list(self.paged(query, *values, fetch=fetch))

    def paged(self, query: str, *values: object, fetch: int = 5000, level: str = "LOCAL_ONE") -> Any:  # noqa: ANN401
        """Run a statement; its rows come page by page. `level` is the consistency."""
        consistency = getattr(importlib.import_module("cassandra").ConsistencyLevel, level)
        simple = importlib.import_module("cassandra.query").SimpleStatement
        statement = simple(query, fetch_size=fetch, consistency_level=consistency)
        with _told(query.split("(", maxsplit=1)[0][:80]):
            return self._session.execute(statement, values or None)

    def identity(self) -> Identity:
        """Tell who the node is."""
        row = self.rows("SELECT * FROM system.local")[0]
        return Identity(
            str(row.cluster_name),
            str(row.host_id),
            str(row.data_center),
            str(row.rack),
            sorted(map(str, row.tokens or ()), key=_number),
            str(row.release_version),
            str(row.partitioner),
            str(row.broadcast_address),
        )

    def settings(self) -> Mapping[str, str]:
        """The node's configuration, as far as it tells; nothing when it is not ours to read."""
        try:
            found = self.rows("SELECT name, value FROM system_views.settings")
        except SourceError:
            return {}
        return {str(row.name): str(row.value) for row in found if row.value is not None}

    def directories(self) -> Mapping[str, Sequence[str]]:
        """Where the node keeps things, as it sees them: `data` in its order, `commitlog`, `hints` ..."""
        told = self.settings()
        found = {kind: [told[name]] for kind, name in _DIRECTORIES.items() if told.get(name)}
        data = [part for part in told.get("data_file_directories", "").strip("[]").split(", ") if part]
        own = told.get("local_system_data_file_directory", "")
        return {**found, "data": [*data, own] if own and own not in data else data}

    def tables(self) -> list[Table]:
        """All tables and materialized views that are on disk, by name."""
        found = [
            Table(str(row.keyspace_name), str(row[1]), str(row.id).replace("-", ""))
            for kind in ("table", "view")
            for row in self.rows(f"SELECT keyspace_name, {kind}_name, id FROM system_schema.{kind}s")  # noqa: S608
        ]
        return sorted(found, key=lambda one: (one.keyspace, one.name))

    def keyspaces(self) -> set[str]:
        """The names of all keyspaces on disk."""
        return {str(row.keyspace_name) for row in self.rows("SELECT keyspace_name FROM system_schema.keyspaces")}

    def describe(self, keyspace: str) -> list[dict[str, str]]:
        """The statements that make a keyspace and all in it, ids and dropped columns included."""
        return [
            {"keyspace": bare(row[0]), "kind": str(row[1]), "name": bare(row[2]), "cql": str(row[3])}
            for row in self.rows(f"DESCRIBE KEYSPACE {quoted(keyspace)} WITH INTERNALS")
        ]

    def schema_versions(self) -> set[str]:
        """The versions of the schema that this node knows of, its own and its live peers'."""
        versions = {str(row.schema_version) for row in self.rows("SELECT schema_version FROM system.local")}
        return versions | {
            str(row.schema_version)
            for row in self.rows("SELECT schema_version FROM system.peers_v2")
            if row.schema_version is not None
        }

    def peers(self) -> int:
        """How many other nodes there are."""
        return len(self.rows("SELECT peer FROM system.peers_v2"))


def _number(token: str) -> tuple[int, str]:
    try:
        return int(token), ""
    except ValueError:
        return 0, token


@contextmanager
def connect(settings: CassandraSettings, resolve: Callable[[SecretRef], str] | None) -> Generator[Session, None, None]:
    """Connect to the node alone: no statement goes to another one as its coordinator."""
    try:
        driver: Any = importlib.import_module("cassandra.cluster")
        # Named, since the driver's own choice differs from one Python to the next, and some cannot do TLS.
        reactor: Any = importlib.import_module("cassandra.io.libevreactor").LibevConnection
        policies: Any = importlib.import_module("cassandra.policies")
    except ImportError as error:
        raise ConfigError(
            f"the driver of Cassandra cannot be used: {error}", advice="Install pra-agent[cassandra]."
        ) from error
    # The driver logs each refused connection with its traceback; the error that we raise says it in a line.
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    policy = policies.WhiteListRoundRobinPolicy(list(settings.hosts))
    profile = driver.ExecutionProfile(load_balancing_policy=policy, request_timeout=_REQUEST_SECONDS)
    cluster = driver.Cluster(
        list(settings.hosts),
        port=settings.port,
        auth_provider=_login(settings, resolve),
        ssl_context=None if settings.tls is None else tls_context(settings.tls),
        ssl_options=_server_name(settings),
        connection_class=reactor,
        execution_profiles={driver.EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=_CONNECT_SECONDS,
        control_connection_timeout=_CONNECT_SECONDS,
        schema_metadata_enabled=False,
        token_metadata_enabled=False,
    )
    try:
        with _told(f"the node at {', '.join(settings.hosts)} port {settings.port}"):
            session = cluster.connect()
        yield Session(session, driver)
    finally:
        cluster.shutdown()


def _login(settings: CassandraSettings, resolve: Callable[[SecretRef], str] | None) -> Any:  # noqa: ANN401
    if settings.user is None or settings.password is None or resolve is None:
        return None
    return importlib.import_module("cassandra.auth").PlainTextAuthProvider(settings.user, resolve(settings.password))


def _server_name(settings: CassandraSettings) -> dict[str, str] | None:
    if settings.tls is None or not settings.tls.verify_host:
        return None
    return {"server_hostname": settings.hosts[0]}


def tls_context(tls: CassandraTls) -> ssl.SSLContext:
    """Make the TLS context. `ConfigError` when a file is missing or is none."""
    try:
        context = ssl.create_default_context(cafile=str(tls.ca_file))
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS to Cassandra: {tls.ca_file} or the certificate cannot be used: {error}") from error
    context.check_hostname = tls.verify_host
    return context


@contextmanager
def _told(what: str) -> Generator[None, None, None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, SourceError) or not type(error).__module__.startswith(("cassandra", "ssl")):
            raise
        raise SourceError(f"Cassandra: {what}: {_line(error)}", advice=_advice(error)) from error


def _line(error: Exception) -> str:
    inner = getattr(error, "errors", None)
    reasons = list(inner.values()) if isinstance(inner, dict) else []  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    text = str(reasons[0]) if reasons else str(error)  # pyright: ignore[reportUnknownArgumentType]
    return " ".join(text.split())[:300] or type(error).__name__


def _advice(error: Exception) -> str:
    name = type(error).__name__
    if "Auth" in name or "Bad credentials" in _line(error):
        return "Check user and password of the job."
    if name == "NoHostAvailable":
        return "Check that the node runs, and hosts, port and tls of the job."
    return "See the message; the node's log has more."
