"""MariaDB in a container: dumped while it is written to, put back, cut short, and named dangerously."""

import threading
import time

import pytest

from pra_agent.errors import CommandError, RefusedError, SourceError
from pra_agent.operations.coverage import look
from pra_agent.sources.dump import DumpSettings
from tests.support.captures import put_back, take
from tests.support.databases import MariaDb, start_mariadb

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(300)]
NASTY = "a; rm -rf / `x` ' \" %"


def _settings(server: MariaDb, **more: object) -> DumpSettings:
    return DumpSettings.model_validate(
        {
            "preset": "mariadb",
            "container": server.name,
            "docker": server.engine.url,
            "user": "root",
            "password_env": "MARIADB_ROOT_PASSWORD",
            **more,
        }
    )


@pytest.fixture(scope="module")
def filled(mariadb: MariaDb) -> MariaDb:
    quoted = NASTY.replace("`", "``")
    mariadb.sql(
        f"""
        CREATE DATABASE glpi CHARACTER SET utf8mb4;
        CREATE TABLE glpi.items (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(200), raw BLOB) ENGINE=InnoDB;
        INSERT INTO glpi.items (name, raw) VALUES ('été — ☃', x'00ff270a5c'), ('-- Current Database: `x`', 'a\\nb');
        INSERT INTO glpi.items (name) SELECT CONCAT('n', seq) FROM glpi.seq_1_to_20000;
        CREATE VIEW glpi.v AS SELECT COUNT(*) AS n FROM glpi.items;
        DELIMITER //
        CREATE PROCEDURE glpi.p() BEGIN SELECT 42; END//
        USE glpi//
        CREATE TRIGGER t BEFORE INSERT ON items FOR EACH ROW SET NEW.name = TRIM(NEW.name)//
        DELIMITER ;
        CREATE DATABASE `{quoted}`; CREATE TABLE `{quoted}`.t (a INT); INSERT INTO `{quoted}`.t VALUES (1), (2);
        CREATE USER 'app'@'%' IDENTIFIED BY 'app pw'; GRANT SELECT, INSERT ON glpi.* TO 'app'@'%';
        CREATE ROLE reader; GRANT SELECT ON glpi.* TO reader; GRANT reader TO 'app'@'%';
        """
    )
    return mariadb


def test_everything_comes_back_on_another_server(filled: MariaDb, mariadb_image: str, tmp_path):
    assert take(_settings(filled).build(), tmp_path) == []
    names = sorted(path.name for path in (tmp_path / "dump/mariadb").iterdir())
    assert names == ["databases.sql", "users.sql"]
    fresh = start_mariadb(filled.engine, mariadb_image)
    try:
        done = put_back(_settings(fresh).build(), tmp_path)
        assert any("'glpi'" in line for line in done)
        sums = "CHECKSUM TABLE glpi.items"
        assert fresh.sql(sums) == filled.sql(sums)
        assert fresh.sql("SELECT n FROM glpi.v") == "20002"
        assert fresh.sql("CALL glpi.p()") == "42"
        assert fresh.sql("SHOW TRIGGERS FROM glpi").startswith("t\tINSERT")
        assert fresh.sql("SHOW GRANTS FOR 'app'@'%'") == filled.sql("SHOW GRANTS FOR 'app'@'%'")
        assert fresh.sql("SELECT SUM(a) FROM `" + NASTY.replace("`", "``") + "`.t") == "3"
        with pytest.raises(RefusedError, match="exists"):
            put_back(_settings(fresh).build(), tmp_path)
    finally:
        filled.engine.remove(fresh.name)


def test_one_database_under_another_name(filled: MariaDb, tmp_path):
    take(_settings(filled).build(), tmp_path)
    source = _settings(filled).build()
    put_back(source, tmp_path, options={"database": "glpi", "as": "glpi_copy"})
    sums = filled.sql("CHECKSUM TABLE glpi.items").split()[1]
    assert filled.sql("CHECKSUM TABLE glpi_copy.items").split()[1] == sums
    filled.sql("DROP DATABASE glpi_copy")
    with pytest.raises(SourceError, match="no database 'nope'"):
        put_back(source, tmp_path, options={"database": "nope"})


def test_one_transaction_under_writes(filled: MariaDb, tmp_path):
    filled.sql(
        "CREATE DATABASE IF NOT EXISTS a; CREATE DATABASE IF NOT EXISTS b;"
        "CREATE OR REPLACE TABLE a.n (v INT) ENGINE=InnoDB; CREATE OR REPLACE TABLE b.n (v INT) ENGINE=InnoDB;"
    )
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            filled.sql(f"BEGIN; INSERT INTO a.n VALUES ({number}); INSERT INTO b.n VALUES ({number}); COMMIT;")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while int(filled.sql("SELECT COUNT(*) FROM a.n")) < 3:
            time.sleep(0.05)
        take(_settings(filled, databases=["a", "b"]).build(), tmp_path)
    finally:
        stop.set()
        thread.join()
    source = _settings(filled).build()
    for name in ("a", "b"):
        put_back(source, tmp_path, options={"database": name, "as": f"{name}_copy"})
    counts = filled.sql("SELECT COUNT(*) FROM a_copy.n; SELECT COUNT(*) FROM b_copy.n").split()
    assert counts[0] == counts[1] != "0"
    filled.sql("DROP DATABASE a; DROP DATABASE b; DROP DATABASE a_copy; DROP DATABASE b_copy")


@pytest.mark.parametrize("how", ["mariadb-dump", "container"])
def test_killed_in_mid_stream_is_never_a_dump(filled: MariaDb, mariadb_image: str, tmp_path, how: str):
    server = start_mariadb(filled.engine, mariadb_image)
    try:
        server.sql("CREATE DATABASE big; CREATE TABLE big.t (a LONGTEXT);")
        for _ in range(6):
            server.sql("INSERT INTO big.t SELECT REPEAT(MD5(RAND()), 250000) FROM seq_1_to_5", "big")
        source = _settings(server).build()
        killer = threading.Thread(target=_kill_when_dumping, args=(server, how))
        killer.start()
        with pytest.raises((CommandError, SourceError)):
            take(source, tmp_path)
        killer.join()
    finally:
        filled.engine.remove(server.name)


def _kill_when_dumping(server: MariaDb, how: str) -> None:
    for _ in range(2000):
        found = server.engine.docker("exec", server.name, "sh", "-c", "cat /proc/[0-9]*/comm", check=False)
        if "mariadb-dump" in found:
            break
        time.sleep(0.01)
    if how == "container":
        server.engine.docker("kill", server.name)
    else:
        script = (
            "for p in /proc/[0-9]*; do grep -qx mariadb-dump $p/comm 2>/dev/null && kill -9 ${p#/proc/}; done; true"
        )
        server.engine.docker("exec", server.name, "sh", "-c", script)


def test_bad_jobs(filled: MariaDb, tmp_path):
    with pytest.raises(SourceError, match="no database 'missing'"):
        take(_settings(filled, databases=["missing"]).build(), tmp_path)
    with pytest.raises(SourceError, match="Access denied"):
        take(_settings(filled, user="nobody").build(), tmp_path)
    with pytest.raises(SourceError, match="not found"):
        take(_settings(filled, container="no-such-container").build(), tmp_path)


def test_databases_that_no_job_names_are_found(filled: MariaDb, tmp_path):
    found = look({"db": _settings(filled, databases=["glpi"])}, lambda _reference: "")
    assert [one.name for one in found.unprotected if one.kind == "database"] == [NASTY]
    # The server's own volume is protected by its dump.
    mounts = filled.engine.docker("inspect", "-f", "{{range .Mounts}}{{.Name}} {{end}}", filled.name).split()
    assert mounts
    assert not {one.name for one in found.unprotected} & set(mounts)
    whole = look({"db": _settings(filled)}, lambda _reference: "")
    assert [one for one in whole.unprotected if one.kind == "database"] == []
