"""What a run may take of its host, and what people do about one that goes on: seen at the real daemon."""

import os
import platform
from contextlib import suppress
from ctypes import CDLL
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.config import load
from pra_agent.model.runs import Operation, Outcome
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.opening import open_backend
from tests.support.agent import Agent
from tests.support.clock import FakeClock
from tests.support.hardened import Cli
from tests.support.process import free_port, wait_until
from tests.support.restic import Restic

CLOCK = SystemClock()
_IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
_IDLE = 3


@pytest.fixture
def agent(tmp_path):
    made = Agent(tmp_path / "host")
    made.configure()
    made.init()
    yield made
    made.stop()


@pytest.fixture
def cli(agent, capsys):
    return Cli(agent.config, capsys)


def slow(agent: Agent, **limits: object) -> None:
    """Let a backup last until it is stopped, nearly: much to read, a narrow way to the repository."""
    agent.fill(60, 400_000, name="large")
    repository = dict(agent.settings["repository"])  # type: ignore[call-overload]
    tuning = {"pack_size": 4 << 20, "upload_memory": 16 << 20}
    agent.configure(
        repository={**repository, "limits": {"upload": "1MiB/s"}, "tuning": tuning}, limits={"workers": 1, **limits}
    )


def run_processes(agent: Agent) -> list[int]:
    """The processes of the run that goes on: the children of the daemon's spawner, and theirs."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parents[int(entry.name)] = int(stat_of(int(entry.name))[1])
    assert agent.process is not None
    spawners = [pid for pid, parent in parents.items() if parent == agent.process.pid]
    found = [pid for pid, parent in parents.items() if parent in spawners]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def stat_of(pid: int) -> list[str]:
    """State, parent, ... nice (the 17th) of a process."""
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()


def states(agent: Agent) -> set[str]:
    return {stat_of(pid)[0] for pid in run_processes(agent)}


def stored(agent: Agent) -> bool:
    return any(path.stat().st_size for path in agent.repository.glob("data/*/*"))


def test_a_run_is_paused_and_goes_on(agent, cli):
    slow(agent)
    agent.start()
    with agent.client() as client:
        run = client.start_job("app")
        wait_until(lambda: stored(agent), "the first pack")
        assert f"run {run}" in cli("pause", "app")
        wait_until(lambda: states(agent) == {"T"}, "all its processes to stand still")
        packs = sorted(agent.repository.glob("data/*/*"))
        (status,) = cli.json("status")
        assert status["jobs"][0]["progress"]["stage"] == "paused"
        assert sorted(agent.repository.glob("data/*/*")) == packs
        cli("resume", run)
        wait_until(lambda: "T" not in states(agent), "it goes on")
        cli("stop", "backup")
        record = client.follow(run)
        assert (record.outcome, record.error) == (Outcome.FAILED, "it was asked to stop")
        for verb in ("pause", "resume", "stop"):
            cli(verb, code=2)
            assert "no runs go on" in cli.err
        # What was stored before is of use.
        agent.configure(repository={**agent.settings["repository"], "limits": {}})
        agent.process.process.send_signal(1)
        agent.says("the configuration is taken")
        again = client.run_job("app")
        assert again.outcome is Outcome.SUCCESS
        assert again.bytes_stored < 24_000_000 - 2_000_000
    Restic(agent.repository).check()


@pytest.mark.skipif(platform.machine() not in _IOPRIO_GET, reason="no number of ioprio_get for this machine")
def test_a_run_gives_way_to_others(agent, cli):
    slow(agent, nice=7, ionice="idle")
    agent.start()
    with agent.client() as client:
        run = client.start_job("app")
        wait_until(lambda: stored(agent), "the first pack")
        pids = run_processes(agent)
        assert {int(stat_of(pid)[16]) for pid in pids} == {7}
        assert {CDLL(None).syscall(_IOPRIO_GET[platform.machine()], 1, pid) >> 13 for pid in pids} == {_IDLE}
        assert agent.process is not None
        assert int(stat_of(agent.process.pid)[16]) == os.getpriority(os.PRIO_PROCESS, 0)
        client.stop(run)
        client.follow(run)


@pytest.mark.parametrize(
    ("hour", "up", "down"), [(3, 0, 0), (8, 20, 5), (12, 20, 5), (17, 20, 5), (18, 10, 10), (23, 10, 10)]
)
def test_limits_follow_the_hours_of_the_day(agent, hour, up, down):
    """Seconds that 20 MiB take in each direction, at 1 and 4 MiB/s in working hours, 2 MiB/s later, freely at night."""
    daily = [
        {"hours": "08:00-18:00", "upload": "1MiB/s", "download": "4MiB/s"},
        {"hours": "22:00-24:00", "upload": "2MiB/s", "download": "2MiB/s"},
        {"hours": "00:00-06:00"},
    ]
    limits = {"upload": "2MiB/s", "download": "2MiB/s", "daily": daily, "zone": "Europe/Paris"}
    agent.configure(repository={**agent.settings["repository"], "limits": limits})
    clock = FakeClock(datetime(2026, 1, 15, hour, tzinfo=UTC) - timedelta(hours=1))
    backend = open_backend(load(agent.config).repository, clock)
    data = os.urandom(4 << 20)
    handles = [Handle(Kind.DATA, f"{number:064x}") for number in range(6)]
    seconds = []
    for work in (lambda handle: backend.put(handle, data), backend.get):
        before = clock.monotonic()
        for handle in handles[:5]:
            work(handle)
        work(handles[5]) if work is not backend.get else backend.get(handles[0], 0, 1)
        seconds.append(clock.monotonic() - before)
    backend.close()
    assert seconds[0] == pytest.approx(up, abs=0.5)
    assert seconds[1] == pytest.approx(down, abs=0.5)


def test_an_escrow_slot_is_proven_and_the_metric_says_when(agent, cli, tmp_path):
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "operator").write_text(f"# an operator\n{identity}\n")
    (tmp_path / "stranger").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    port = free_port()
    repository = {**agent.settings["repository"], "tuning": {"scrypt": {"n": 1024, "p": 1}}}
    agent.configure(exporter={"listen": f"127.0.0.1:{port}"}, repository=repository)
    (added,) = cli.json("key", "escrow", "add", "--age", identity.to_public())
    (listed,) = cli.json("key", "escrow", "list")
    assert [slot["id"] for slot in listed["slots"]] == [added["key"]["id"]]
    (proof,) = cli.json("key", "escrow", "prove", "--identity", tmp_path / "operator")
    assert (proof["id"], proof["daemon_told"]) == (added["key"]["id"], False)
    agent.start()
    assert metric(port) == "NaN"
    cli("key", "escrow", "prove", "--identity", tmp_path / "stranger", code=2)
    assert metric(port) == "NaN"
    before = CLOCK.timestamp()
    (proof,) = cli.json("key", "escrow", "prove", "--identity", tmp_path / "operator")
    assert proof["daemon_told"] is True
    assert before <= float(metric(port)) <= CLOCK.timestamp()
    # The way in when the host's own password is lost.
    cli("key", "escrow", "open", "--identity", tmp_path / "operator", "--output", tmp_path / "password")
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
    agent.fill(1, 1000)
    with agent.client() as client:
        assert client.run_job("app").outcome is Outcome.SUCCESS
        assert client.operate(Operation.CHECK).outcome is Outcome.SUCCESS
    Restic(agent.repository, password=(tmp_path / "password").read_text().strip()).check()


def metric(port: int) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    name = "pra_escrow_proven_timestamp_seconds "
    return str(next(line.removeprefix(name) for line in text.splitlines() if line.startswith(name)))
