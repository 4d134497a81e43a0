"""A Cassandra node behind logins and TLS: a role of little power, passwords in files, and errors that tell none."""

import ssl
import subprocess
from pathlib import Path

import pytest

from pra_agent.errors import ConfigError, SourceError
from pra_agent.sources import command
from pra_agent.sources.cassandra import CassandraSettings
from tests.support.captures import put_back, take
from tests.support.cassandra import JAVA, Homes, Node, start_all
from tests.support.process import free_port

pytestmark = [pytest.mark.cassandra, pytest.mark.xdist_group("cassandra"), pytest.mark.timeout(600)]
SECRET, JMX_SECRET, STORE = "role s3cret", "jmx-s3cret", "storepass"
YAML = """authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
client_encryption_options:
  enabled: true
  optional: false
  keystore: {home}/keys.p12
  keystore_password: {store}
  store_type: PKCS12
"""


@pytest.fixture(scope="module")
def guarded(cassandra_homes: Homes) -> Node:
    """The node; its superuser is the one that Cassandra makes."""
    home = cassandra_homes.new()
    keytool = [str(JAVA.with_name("keytool")), "-keystore", f"{home}/keys.p12", "-storepass", STORE, "-alias", "node"]
    make = ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-dname", "CN=node", "-ext", "san=ip:127.0.0.1"]
    make += ["-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign,digitalSignature,keyEncipherment"]
    for argv in (make, ["-exportcert", "-rfc", "-file", f"{home}/ca.pem"]):
        subprocess.run([*keytool, *argv], check=True, capture_output=True)
    logins = home / "jmx"
    logins.write_text(f"pra {JMX_SECRET}\n")
    logins.chmod(0o600)
    jmx = "-Dcom.sun.management.jmxremote"
    node = Node(
        home=home,
        address="127.0.0.1",
        native=free_port(),
        storage=free_port(),
        jmx=free_port(),
        extra_yaml=YAML.format(home=home, store=STORE),
        extra_jvm=(
            f"{jmx}.authenticate=true",
            f"{jmx}.password.file={logins}",
            "-Dcassandra.superuser_setup_delay_ms=0",
        ),
        login=("cassandra", "cassandra"),
        tls=ssl.create_default_context(cafile=f"{home}/ca.pem"),
    )
    assert node.tls is not None
    node.tls.check_hostname = False
    cassandra_homes.nodes.append(node)
    start_all([node])
    with node.session() as session:
        session.execute(f"CREATE ROLE pra WITH PASSWORD = '{SECRET}' AND LOGIN = true")
        session.execute("GRANT SELECT ON KEYSPACE system_views TO pra")
        session.execute("CREATE KEYSPACE shop WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        session.execute("CREATE TABLE shop.t (k int PRIMARY KEY)")
        session.execute("INSERT INTO shop.t (k) VALUES (1)")
    return node


def settings(node: Node, **more: object) -> CassandraSettings:
    chosen: dict[str, object] = {
        "user": "pra",
        "password": {"env": "UNUSED"},
        "tls": {"ca_file": f"{node.home}/ca.pem"},
        "jmx_user": "pra",
        "jmx_password_file": f"{node.home}/jmx",
    }
    return CassandraSettings.model_validate(node.settings(**{**chosen, **more}))


def test_a_role_that_may_read_the_settings_saves_the_node(
    guarded: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[list[str]] = []
    run = command.run

    def watched(argv, *rest, **more):
        seen.append(list(argv))
        return run(argv, *rest, **more)

    monkeypatch.setattr(command, "run", watched)
    take(settings(guarded).build(lambda _: SECRET), tmp_path)
    assert list(tmp_path.glob("cassandra/data/0/shop/t-*/*-Data.db"))
    assert list(tmp_path.glob("cassandra/data/0/system_auth/roles-*/*-Data.db"))
    assert len(seen) == 3
    assert all("-pwf" in argv and "-pw" not in argv for argv in seen)
    assert not [argv for argv in seen for word in argv if JMX_SECRET in word or SECRET in word]
    # What it may read is not enough to write: the superuser brings things back.
    with pytest.raises(SourceError, match=r"(?i)permission|unauthorized"):
        put_back(
            settings(guarded).build(lambda _: SECRET), tmp_path, options={"keyspace": "shop", "as_keyspace": "copy"}
        )
    done = put_back(
        settings(guarded, user="cassandra").build(lambda _: "cassandra"),
        tmp_path,
        options={"keyspace": "shop", "as_keyspace": "copy"},
    )
    assert "copy.t: 1 rows at LOCAL_QUORUM" in done


def test_errors_tell_no_secret(guarded: Node, tmp_path: Path):
    with pytest.raises(SourceError) as caught:
        take(settings(guarded).build(lambda _: "wr0ng-s3cret"), tmp_path)
    assert "wr0ng-s3cret" not in str(caught.value)
    assert "user and password" in caught.value.advice
    wrong = tmp_path / "wrong"
    wrong.write_text("pra wr0ng-s3cret\n")
    with pytest.raises(SourceError) as caught:
        take(settings(guarded, jmx_password_file=str(wrong)).build(lambda _: SECRET), tmp_path)
    assert "wr0ng-s3cret" not in str(caught.value)


def test_a_certificate_that_nobody_vouches_for(guarded: Node, tmp_path: Path):
    with pytest.raises(SourceError, match=r"(?i)certificate|ssl"):
        take(settings(guarded, tls={"ca_file": "/etc/ssl/certs/ca-certificates.crt"}).build(lambda _: SECRET), tmp_path)
    with pytest.raises(ConfigError, match="cannot be used"):
        take(settings(guarded, tls={"ca_file": str(tmp_path / "none")}).build(lambda _: SECRET), tmp_path)
