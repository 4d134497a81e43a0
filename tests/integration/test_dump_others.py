"""PostgreSQL, Redis, SQLite and the operator's own command: there and back on real servers."""

import sqlite3
import threading

import pytest

from pra_agent.errors import CommandError, RefusedError, SourceError
from pra_agent.operations.coverage import look
from pra_agent.sources.dump import DumpSettings
from tests.support.captures import put_back, take
from tests.support.databases import PostgreSql, Redis

pytestmark = [pytest.mark.xdist_group("databases"), pytest.mark.timeout(180)]
NASTY = "a; rm -rf / \" ' \\ x=y"


def _postgresql(server: PostgreSql, **more: object) -> DumpSettings:
    base = {"preset": "postgresql", "socket": str(server.home), "port": server.port, "user": "postgres"}
    return DumpSettings.model_validate({**base, **more})


@pytest.fixture(scope="module")
def filled(postgresql: PostgreSql) -> PostgreSql:
    quoted = NASTY.replace('"', '""')
    postgresql.sql("CREATE ROLE app LOGIN PASSWORD 'app pw'")
    postgresql.sql("CREATE DATABASE shop OWNER app")
    postgresql.sql(f'CREATE DATABASE "{quoted}"')
    postgresql.sql(
        "CREATE TABLE items (id serial primary key, name text, raw bytea);"
        "INSERT INTO items (name, raw) SELECT 'é' || n, decode('00ff270a', 'hex') FROM generate_series(1, 20000) n;"
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 42'; ALTER TABLE items OWNER TO app;",
        "shop",
    )
    postgresql.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)", NASTY_CONNINFO)
    return postgresql


NASTY_CONNINFO = "dbname='" + NASTY.replace("\\", "\\\\").replace("'", "\\'") + "'"
SUM = "SELECT count(*), md5(string_agg(id || name || encode(raw, 'hex'), ',' ORDER BY id)) FROM items"


def test_postgresql_comes_back(filled: PostgreSql, tmp_path):
    source = _postgresql(filled).build()
    assert take(source, tmp_path) == []
    before = filled.sql(SUM, "shop")
    with pytest.raises(RefusedError, match="exists"):
        put_back(source, tmp_path)
    filled.sql("DROP DATABASE shop")
    filled.sql('DROP DATABASE "' + NASTY.replace('"', '""') + '"')
    filled.sql("DROP ROLE app")
    put_back(source, tmp_path)
    assert filled.sql(SUM, "shop") == before
    assert filled.sql("SELECT f()", "shop") == "42"
    assert filled.sql("SELECT a FROM t", NASTY_CONNINFO) == "7"
    assert filled.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'") == "app"
    assert filled.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'") == "t"


def test_postgresql_databases_that_no_job_names_are_found(filled: PostgreSql):
    found = look({"db": _postgresql(filled, databases=["shop"])}, lambda _reference: "")
    assert NASTY in [one.name for one in found.unprotected if one.kind == "database"]
    assert "postgres" not in [one.name for one in found.unprotected]


def test_postgresql_forced_keeps_what_was_there(filled: PostgreSql, tmp_path):
    source = _postgresql(filled, databases=["shop"]).build()
    take(source, tmp_path)
    filled.sql("DELETE FROM items WHERE id <= 100", "shop")
    put_back(source, tmp_path, force=True, run="r7")
    assert filled.sql("SELECT count(*) FROM items", "shop") == "20000"
    assert filled.sql("SELECT count(*) FROM items", "shop-before-r7") == "19900"
    filled.sql('DROP DATABASE "shop-before-r7"')
    put_back(source, tmp_path, options={"database": "shop", "as": "shop2"})
    assert filled.sql(SUM, "shop2") == filled.sql(SUM, "shop")


def test_postgresql_bad_jobs(filled: PostgreSql, tmp_path):
    with pytest.raises(SourceError, match="no database 'missing'"):
        take(_postgresql(filled, databases=["missing"]).build(), tmp_path)
    wrong = DumpSettings.model_validate(
        {"preset": "postgresql", "host": "127.0.0.1", "port": filled.port, "user": "postgres", "password": {"env": "X"}}
    )
    with pytest.raises(SourceError, match="password authentication failed") as caught:
        take(wrong.build(lambda _ref: "wr0ng-secret"), tmp_path)
    assert "wr0ng-secret" not in str(caught.value)
    take(wrong.build(lambda _ref: "pg s3cret"), tmp_path)


def _redis(server: Redis) -> DumpSettings:
    return DumpSettings.model_validate(
        {"preset": "redis", "host": "127.0.0.1", "port": server.port, "password": {"env": "X"}}
    )


def test_redis_comes_back(redis: Redis, tmp_path):
    for number in range(300):
        redis.command("SET", f"key{number}", "v" * number)
    redis.command("HSET", "h", "a", "1")
    redis.command("-n", "3", "SET", "other", "db")
    source = _redis(redis).build(lambda _ref: redis.password)
    take(source, tmp_path)
    with pytest.raises(RefusedError, match="302 keys"):
        put_back(source, tmp_path)
    redis.command("FLUSHALL")
    redis.command("SET", "new", "x")
    done = put_back(source, tmp_path, force=True)
    assert redis.command("DBSIZE") == "301"
    assert redis.command("GET", "key299") == "v" * 299
    assert redis.command("-n", "3", "GET", "other") == "db"
    assert redis.command("EXISTS", "new") == "0"
    assert "role:master" in redis.command("INFO", "replication")
    assert list(redis.home.glob("before-*.rdb"))
    assert any("kept as" in line for line in done)


def test_redis_bad_password(redis: Redis, tmp_path):
    with pytest.raises(SourceError) as caught:
        take(_redis(redis).build(lambda _ref: "not-the-s3cret"), tmp_path)
    assert "not-the-s3cret" not in str(caught.value)


def test_sqlite_under_writes(tmp_path):
    path, scratch = tmp_path / "grafana.db", tmp_path / "scratch"
    scratch.mkdir()
    with sqlite3.connect(path) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE a (v INT)")
        made.execute("CREATE TABLE b (v INT)")
    made.close()
    stop = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(path, timeout=60)
        number = 0
        while not stop.is_set():
            number += 1
            with connection:
                connection.execute("INSERT INTO a VALUES (?)", (number,))
                connection.execute("INSERT INTO b VALUES (?)", (number,))
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    source = DumpSettings.model_validate({"preset": "sqlite", "paths": [str(path)]}).build()
    try:
        take(source, tmp_path / "out", scratch=str(scratch))
    finally:
        stop.set()
        thread.join()
    assert list(scratch.iterdir()) == []
    with pytest.raises(RefusedError, match="exists"):
        put_back(source, tmp_path / "out")
    path.unlink()
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    put_back(source, tmp_path / "out")
    back = sqlite3.connect(path)
    counts = [back.execute(f"SELECT COUNT(*), MAX(v) FROM {table}").fetchone() for table in ("a", "b")]
    back.close()
    assert counts[0] == counts[1]


def test_sqlite_that_is_none(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"no database at all" * 100)
    source = DumpSettings.model_validate({"preset": "sqlite", "paths": [str(path)]}).build()
    with pytest.raises(SourceError, match="not a database"):
        take(source, tmp_path / "out", scratch=str(tmp_path))
    missing = DumpSettings.model_validate({"preset": "sqlite", "paths": [str(tmp_path / "y.db")]}).build()
    with pytest.raises(SourceError, match="no such file"):
        take(missing, tmp_path / "out", scratch=str(tmp_path))


def _command(**more: object) -> DumpSettings:
    return DumpSettings.model_validate({"preset": "command", **more})


def test_command_and_its_demands(tmp_path):
    source = _command(
        command=["sh", "-c", "echo begin; echo THE END"],
        trailer="THE END",
        restore_command=["tee", str(tmp_path / "back")],
    ).build()
    take(source, tmp_path / "out")
    with pytest.raises(RefusedError, match="would be given"):
        put_back(source, tmp_path / "out")
    put_back(source, tmp_path / "out", force=True)
    assert (tmp_path / "back").read_text() == "begin\nTHE END\n"
    with pytest.raises(SourceError, match="lacks its end"):
        take(_command(command=["echo", "half"], trailer="THE END").build(), tmp_path / "no")
    with pytest.raises(SourceError, match="0 bytes"):
        take(_command(command=["true"]).build(), tmp_path / "no")
    with pytest.raises(CommandError):
        take(_command(command=["sh", "-c", "echo THE END; exit 1"], trailer="THE END").build(), tmp_path / "no")
    with pytest.raises(CommandError):
        put_back(_command(command=["true"], restore_command=["false"]).build(), tmp_path / "out", force=True)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"preset": "command"}, "needs command"),
        ({"preset": "redis", "command": ["x"]}, "does not go with"),
        ({"preset": "sqlite", "paths": ["/x"], "container": "c"}, "no container"),
        ({"preset": "mariadb", "password_env": "A"}, "name the container"),
        ({"preset": "mariadb", "databases": []}, "empty"),
        ({"preset": "mariadb", "container": "../x"}, "pattern"),
    ],
)
def test_settings_that_make_no_sense(bad, says):
    with pytest.raises(ValueError, match=says):
        DumpSettings.model_validate(bad)
