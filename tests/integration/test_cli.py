"""The command line as a whole: real repository, real daemon, real files; exit codes and what is printed."""

import json
import os
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pra_agent.cli.app import run
from pra_agent.cli.example import Example, ExampleDaemon, free_port
from pra_agent.cli.samples import describe_tree, difference, make_sample
from pra_agent.clock import SystemClock

pytestmark = pytest.mark.xdist_group("cli")


class Cli:
    """Calls the command line in this process."""

    def __init__(self, config: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self.capture = capture
        self.err = ""

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        self.capture.readouterr()
        got = run(["--config", str(self.config), *(str(word) for word in words)])
        captured = self.capture.readouterr()
        self.err = captured.err
        assert got == code, captured.err + captured.out
        assert "Traceback" not in captured.err
        return captured.out

    def json(self, *words: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """Call it with --json; the documents that it printed."""
        return [json.loads(line) for line in self(*words, "--json", code=code).splitlines()]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A configuration, files and a new repository."""
    root = tmp_path_factory.mktemp("cli")
    example = Example(root, free_port())
    make_sample(example.data)
    example.write_config()
    # A key slot that costs little to open: what is tested here is not the key derivation.
    text = example.config.read_text()
    example.config.write_text(text.replace("repository: {", "repository: {tuning: {scrypt: {n: 1024, p: 1}}, ", 1))
    return example


@pytest.fixture(autouse=True)
def state(tmp_path_factory, monkeypatch):
    """The caller's own state stays out of the home directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "cli-state"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def cli(example, capsys):
    return Cli(example.config, capsys)


@pytest.fixture(scope="module")
def initialised(example):
    if not example.repository.exists():
        assert run(["--config", str(example.config), "--quiet", "init"]) == 0
    return example


@pytest.fixture(scope="module")
def daemon(initialised):
    with ExampleDaemon(initialised, SystemClock()) as daemon:
        yield daemon


def test_init_makes_password_repository_and_kit(example, cli):
    out = cli("init")
    kit = example.root / "recovery-kit-demo.txt"
    password = (example.root / "password").read_text().strip()
    assert password not in out + cli.err
    assert kit.stat().st_mode & 0o777 == (example.root / "password").stat().st_mode & 0o777 == 0o600
    assert password in kit.read_text()
    assert f"RESTIC_REPOSITORY={example.repository}" in kit.read_text()


def test_init_again_changes_nothing(initialised, cli, tmp_path):
    kit = tmp_path / "kit"
    cli("init", "--kit", kit, code=1)
    assert "there is a repository at" in cli.err
    assert not kit.exists()


def test_a_kit_for_an_existing_repository_encrypted_to_age_recipients(initialised, cli, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    kit = tmp_path / "kit.age"
    (document,) = cli.json("init", "--kit-only", "--kit", kit, "--recipient", identity.to_public())
    assert document["kit_encrypted"] is True
    text = pyrage.decrypt(kit.read_bytes(), [identity]).decode()
    assert (initialised.root / "password").read_text().strip() in text
    cli("init", "--kit-only", "--kit", tmp_path / "other", "-r", "age1nonsense", code=2)
    assert not (tmp_path / "other").exists()


def test_reveal_wants_a_terminal(initialised, cli):
    cli("init", "--kit-only", "--reveal", code=2)
    assert "no terminal" in cli.err


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_backup_and_a_restore_without_the_daemon(initialised, cli, tmp_path, where):
    words = ("--direct", "backup") if where == "before" else ("backup", "--direct")
    assert "backup demo-data: success" in cli(*words)
    target = tmp_path / "restored"
    out = cli("--direct", "restore", "demo-data", "--target", target)
    assert "restored to" in out
    back = target / str(initialised.data).lstrip("/")
    assert difference(describe_tree(initialised.data), describe_tree(back)) == []


def test_through_the_daemon(initialised, daemon, cli, tmp_path):
    events = cli.json("backup", "demo-data", "--full")
    record = events[-1]["run"]
    assert (record["outcome"], record["job"], record["full"]) == ("success", "demo-data", True)
    (status,) = cli.json("status")
    jobs = status["jobs"]
    assert [(job["fact"]["name"], job["health"]) for job in jobs] == [("demo-data", "ok")]
    assert "demo-data" in cli("status", "--check")
    target = tmp_path / "restored"
    cli("restore", str(record["snapshot"])[:12], "--target", target, "--include", "*.sh")
    assert [path.name for path in target.rglob("*") if path.is_file()] == ["run.sh"]


def test_in_place_asks_before_it_replaces_and_leaves_no_hold(initialised, daemon, cli):
    cli("backup")
    before = describe_tree(initialised.data)
    victim = initialised.data / "orders" / "order-007.txt"
    victim.write_text("ruined\n")
    shutil.rmtree(initialised.data / "images")
    (initialised.data / "orders" / "intruder").touch()
    cli("restore", "demo-data", "--in-place", "--delete", code=1)
    assert "1 file replaced and 1 file deleted" in cli.err
    assert victim.read_text() == "ruined\n"
    cli("restore", "demo-data", "--in-place", "--delete", "--force")
    assert difference(before, describe_tree(initialised.data)) == []
    (status,) = cli.json("status")
    assert not any(job["on_hold"] for job in status["jobs"])


def test_hold_and_release(daemon, cli):
    assert cli("hold", "demo-data", "--reason", "test") == "hold: demo-data\n"
    (status,) = cli.json("status")
    assert status["jobs"][0]["on_hold"] is True
    assert cli("release") == "release: all jobs\n"


def test_there_is_nothing_to_accept(daemon, cli):
    cli("accept", "demo-data", code=1)
    assert "no backup of demo-data is suspect" in cli.err


def test_unknown_jobs(initialised, daemon, cli):
    cli("backup", "demo-dta", code=2)
    assert "demo-dta" in cli.err
    cli("--direct", "backup", "demo-dta", code=2)
    assert "Did you mean demo-data?" in cli.err


@pytest.fixture(scope="module")
def two_snapshots(initialised):
    """Two snapshots with a known difference; the newest last."""
    config = ["--config", str(initialised.config), "--direct", "--quiet"]
    assert run([*config, "backup"]) == 0
    (initialised.data / "orders" / "order-001.txt").write_text("changed\n")
    (initialised.data / "new file").write_text("new\n")
    assert run([*config, "backup"]) == 0
    return initialised


def test_snapshots(two_snapshots, cli):
    (document,) = cli.json("--direct", "snapshots", "--latest", "2")
    snapshots = document["snapshots"]
    assert [one["job"] for one in snapshots] == ["demo-data", "demo-data"]
    assert snapshots[0]["time"] < snapshots[1]["time"]
    assert snapshots[1]["id"][:8] in cli("--direct", "snapshots", "demo-data", "-n", "1")
    assert snapshots[1]["id"][:8] not in cli("--direct", "snapshots", "other")


def test_ls(two_snapshots, cli):
    data = two_snapshots.data
    names = cli("--direct", "ls", "demo-data", data).splitlines()
    assert f"{data}/run.sh" in names
    assert f"{data}/orders/order-001.txt" not in names
    assert f"{data}/a name that is not UTF-8: \\xff" in names
    assert "-rwxr-xr-x" in cli("--direct", "ls", "-l", "latest", data / "run.sh")
    entries = cli.json("--direct", "ls", "-R", "demo-data", data)
    raw = next(entry for entry in entries if "path_hex" in entry)
    assert bytes.fromhex(str(raw["path_hex"])).endswith(b"\xff")
    assert len(entries) == len(describe_tree(data)) - 1
    cli("--direct", "ls", "demo-data", "/nowhere", code=2)


def test_find(two_snapshots, cli):
    out = cli("--direct", "find", "ORDER-00[12]*", "-i")
    assert out.count("order-00") == 2
    found = cli.json("--direct", "find", "new file", "--all", "--job", "demo-data")
    assert len({entry["snapshot"] for entry in found}) == 1
    cli("--direct", "find", "no such thing", code=1)


def test_diff(two_snapshots, cli):
    data = two_snapshots.data
    assert cli("--direct", "diff", "demo-data").splitlines() == [
        f"+  {data}/new file",
        f"M  {data}/orders/order-001.txt",
    ]
    *_, totals = cli.json("--direct", "diff", "demo-data")
    assert totals["counts"] == {"added": 1, "removed": 0, "content": 1, "type": 0, "metadata": 0}
    cli("--direct", "diff", "nothing", code=2)


def test_dump(two_snapshots, tmp_path):
    data = two_snapshots.data
    config = ["--config", str(two_snapshots.config), "--direct", "dump", "demo-data"]
    assert run([*config, str(data / "database.bin"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == (data / "database.bin").read_bytes()
    assert run([*config, str(data / "orders"), "-o", str(tmp_path / "bad")]) == 2
    assert not (tmp_path / "bad").exists()
    assert run([*config, str(data / "orders"), "-a", "tar", "-o", str(tmp_path / "tar")]) == 0
    with tarfile.open(fileobj=BytesIO((tmp_path / "tar").read_bytes())) as tar:
        assert sum(member.isfile() for member in tar) == 40


def test_status_without_the_daemon(two_snapshots, cli):
    assert " ok " in cli("--direct", "status", "--check")
    (document,) = cli.json("--direct", "status")
    assert [job["health"] for job in document["jobs"]] == ["ok"]


def test_forget_prune_check_without_the_daemon(two_snapshots, cli):
    (plan,) = cli.json("--direct", "forget", "--dry-run")
    kept = [one["id"] for one in plan["snapshots"] if one["keep"]]
    gone = len(plan["snapshots"]) - len(kept)
    assert f"would forget {gone} snapshot" in cli("--direct", "forget", "-n")
    assert f"forget: success, {gone} snapshot" in cli("--direct", "forget")
    assert {one["id"] for one in cli.json("--direct", "snapshots")[0]["snapshots"]} == set(kept)
    assert "nothing was changed" in cli("--direct", "prune", "-n")
    assert "prune: success" in cli("--direct", "prune")
    assert "check: no damage" in cli("--direct", "check", "--read-data")
    assert cli("--direct", "repair", "-n") == "repair: nothing to do\n"
    cli("--direct", "repair", code=1)
    cli("--direct", "copy", code=2)


def test_operations_through_the_daemon(initialised, daemon, cli):
    cli("backup")
    assert "check: no damage" in cli("check")
    assert "forget: success" in cli("forget")
    assert cli.json("prune", "--dry-run")[-1]["run"]["outcome"] == "success"
    assert "would forget" in cli("forget", "--dry-run")


def test_a_pinned_snapshot(two_snapshots, cli):
    old = cli.json("--direct", "snapshots")[0]["snapshots"][0]["id"]
    new = cli.json("pin", old[:10])[0]["snapshot"]
    (plan,) = cli.json("--direct", "forget", "-n")
    assert next(one["reasons"] for one in plan["snapshots"] if one["id"] == new)[0] == "pinned"
    assert cli("unpin", str(new)[:10]).startswith("unpinned: demo-data")


def test_damage_is_found_and_repaired(initialised, cli, tmp_path):
    config = tmp_path / "config.yaml"
    repository = tmp_path / "repository"
    config.write_text(initialised.config.read_text().replace(str(initialised.repository), str(repository)))
    cli.config = config
    cli("init")
    cli("--direct", "backup")
    victim = max((path for path in (repository / "data").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    victim.unlink()
    out = cli("--direct", "check", code=1)
    assert "damage: " in out
    assert "jobs hit: demo-data" in out
    cli("--direct", "repair", "--yes")
    assert "check: no damage" in cli("--direct", "check", "--read-data")
    before = describe_tree(initialised.data)
    cli("--direct", "restore", "demo-data", "--target", tmp_path / "back")
    assert difference(before, describe_tree(tmp_path / "back" / str(initialised.data).lstrip("/"))) == []


def test_copies(initialised, cli, tmp_path):
    config = tmp_path / "config.yaml"
    text = initialised.config.read_text().replace(str(initialised.repository), str(tmp_path / "repository"))
    config.write_text(f"{text}copies: [{{name: second, url: {tmp_path / 'copy'}}}]\n")
    cli.config = config
    (document,) = cli.json("init")
    assert document["copies"][0]["created"] is True
    assert f"Copy:           {tmp_path / 'copy'}" in (tmp_path / "recovery-kit-demo.txt").read_text()
    cli("--direct", "backup")
    assert "1 snapshot," in cli("--direct", "copy")
    assert "0 snapshots," in cli("--direct", "copy")
    config.write_text(text.replace(str(tmp_path / "repository"), str(tmp_path / "copy")))
    assert "demo-data" in cli("--direct", "snapshots")


def test_a_pruning_host_walks_them_all(initialised, cli, tmp_path):
    (tmp_path / "pruner.ini").write_text("[default]\n")
    configs = []
    for node in ("one", "two"):
        config = tmp_path / f"{node}.yaml"
        text = initialised.config.read_text().replace(str(initialised.repository), str(tmp_path / node))
        config.write_text(text.replace("node: demo", f"node: {node}").replace("jitter: 0s", "keep: {last: 1}"))
        cli.config = config
        cli("init")
        for _ in range(3):
            cli("--direct", "backup")
        configs.append(config)
    main, other = configs
    pruner = (
        f"pruner: {{credentials: {{file: {tmp_path / 'pruner.ini'}}}, hosts: [{other}, {tmp_path / 'gone.yaml'}]}}\n"
    )
    main.write_text(main.read_text() + pruner)
    cli.config = main
    cli("--direct", "forget", code=2)  # a host whose configuration is not there is a mistake, not a failure
    main.write_text(main.read_text().replace(f", {tmp_path / 'gone.yaml'}", ""))
    assert cli("--direct", "forget").splitlines()[-1].startswith("two: ")
    for config in configs:
        cli.config = config
        assert len(cli.json("--direct", "snapshots")[0]["snapshots"]) == 1
    cli.config = main
    assert [line.split(":")[0] for line in cli("--direct", "prune").splitlines()] == ["one", "two"]


def test_a_dry_run_changes_nothing(two_snapshots, cli, tmp_path):
    target = tmp_path / "target"
    *planned, plan = cli.json("--direct", "restore", "demo-data", "--target", target, "--dry-run")
    assert not target.exists()
    assert plan["counts"]["create"] == len(planned) > 200
    assert "plan: " in cli("--direct", "restore", "demo-data", "--target", target, "-n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("restore", "demo-data"), "say where to"),
        (("restore", "demo-data", "--in-place", "--target", "/x"), "say where to"),
        (("restore", "demo-data", "--target", "/x", "--at", "soon"), "no moment"),
        (("restore", "demo-data", "--target", "/x", "--as-of", "1h ago"), "--as-of goes with --direct"),
        (("--as-node", "other", "snapshots"), "--as-node goes with --direct"),
        (("hold", "--direct"), "does not go with --direct"),
        (("check", "--read-data-subset", "7/x"), "no part of the data"),
        (("daemon", "--direct"), "this is the daemon"),
        (("restore",), "Missing argument"),
        (("nonsense",), "No such command"),
        (("status", "--nonsense"), "No such option"),
        (("--config", "/nowhere.yaml", "status"), "/nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes_are_a_line_and_code_2(initialised, cli, words, says):
    cli(*words, code=2)
    assert says in cli.err
    document = json.loads(run_for_error(cli, words))
    assert document["exit_code"] == 2
    assert says in document["message"]


def run_for_error(cli: Cli, words: tuple[str, ...]) -> str:
    cli(*words, "--json", code=2)
    return cli.err.splitlines()[-1]


def test_exit_codes_of_a_wrong_key_and_of_no_repository(initialised, cli, tmp_path):
    config = tmp_path / "config.yaml"
    text = initialised.config.read_text()
    (tmp_path / "password").write_text("wrong\n")
    (tmp_path / "password").chmod(0o600)
    config.write_text(text.replace(str(initialised.root / "password"), str(tmp_path / "password")))
    config.chmod(0o600)
    cli.config = config
    cli("--direct", "snapshots", code=12)
    assert "opens none of the" in cli.err
    config.write_text(text.replace(str(initialised.repository), str(tmp_path / "nowhere")))
    cli("--direct", "snapshots", code=10)
    assert "no repository at" in cli.err


def test_no_daemon(initialised, tmp_path, cli):
    config = tmp_path / "config.yaml"
    config.write_text(initialised.config.read_text().replace(str(initialised.socket), str(tmp_path / "none.sock")))
    cli.config = config
    cli("status", code=1)
    assert "--direct" in cli.err


def test_keys(initialised, cli, tmp_path):
    (tmp_path / "new").write_text("another password\n")
    (tmp_path / "new").chmod(0o600)
    before = cli.json("key", "list")[0]["keys"]
    added = cli.json("key", "add", "--new-password-file", tmp_path / "new")[0]["key"]
    assert "in use" in cli("key", "list")
    cli("key", "remove", str(added["id"])[:10], code=1)
    assert "--yes" in cli.err
    cli("key", "remove", str(added["id"])[:10], "--yes")
    assert cli.json("key", "list")[0]["keys"] == before
    cli("key", "remove", before[0]["id"], "--yes", code=1)


def test_another_password(initialised, cli, tmp_path):
    config = tmp_path / "config.yaml"
    text = initialised.config.read_text().replace(str(initialised.root / "password"), str(tmp_path / "password"))
    config.write_text(text.replace(str(initialised.repository), str(tmp_path / "repository")))
    cli.config = config
    cli("init")
    (tmp_path / "new").write_text("another one\n")
    (tmp_path / "new").chmod(0o600)
    cli("key", "passwd", "--new-password-file", tmp_path / "new")
    cli("key", "list", code=12)
    (tmp_path / "new").replace(tmp_path / "password")
    assert cli("key", "list").count("in use") == 1
    (tmp_path / "recovery-kit-demo.txt").unlink()
    cli("init", "--kit-only")
    assert "another one" in (tmp_path / "recovery-kit-demo.txt").read_text()


def test_unlock(initialised, cli):
    assert cli("unlock") in ("there are no locks\n", "") or "left:" in cli("unlock")
    cli("unlock", "--all", code=1)


def test_doctor_and_config_check(two_snapshots, daemon, cli):
    out = cli("doctor")
    assert "0 failures" in out
    assert "ok    daemon: answers at" in out
    (document,) = cli.json("doctor")
    assert document["ok"] is True
    assert cli("config", "check").endswith("config.yaml: ok, 1 job\n")


def test_doctor_finds_what_is_wrong(initialised, cli, tmp_path):
    config = tmp_path / "config.yaml"
    text = initialised.config.read_text().replace(str(initialised.data), str(tmp_path / "none"))
    config.write_text(text)
    cli.config = config
    out = cli("doctor", code=1)
    assert f"there is no {tmp_path}/none" in out
    config.write_text(text + "nonsense: 1\n")
    assert "nonsense: unknown key" in cli("doctor", code=2)


def test_config_show_has_no_secret_and_reads_back(initialised, cli, tmp_path):
    text = cli("config", "show")
    assert (initialised.root / "password").read_text().strip() not in text
    again = tmp_path / "again.yaml"
    again.write_text(text)
    cli.config = again
    assert cli("config", "show") == text
    schema = json.loads(cli("config", "schema"))
    assert {"node", "repository", "jobs"} <= schema["properties"].keys()


def test_adopt(initialised, cli):
    cli("adopt", code=1)
    assert "adopted: " in cli("adopt", "--yes")


def test_the_demo(capsys):
    directories = set(Path("/tmp").glob("pra-agent-demo-*"))
    assert run(["demo"]) == 0
    out = capsys.readouterr().out
    assert "every name, byte, mode and time is as it was" in out
    assert "It works." in out
    assert set(Path("/tmp").glob("pra-agent-demo-*")) <= directories


def test_completion_scripts(cli):
    for shell in ("bash", "zsh", "fish"):
        assert "pra-agent" in cli("completion", shell)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_config_check_refuses_a_file_that_others_can_write(initialised, cli, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(initialised.config.read_text())
    config.chmod(0o666)
    cli.config = config
    assert "can be written by others" in cli("config", "check", code=2)
