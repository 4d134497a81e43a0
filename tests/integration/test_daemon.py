"""The real daemon, as a process: it saves by schedule, reloads, survives kill -9, and stops in order."""

import os
import signal
import threading
import urllib.request
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from pra_agent.clock import SystemClock
from pra_agent.control.client import Client
from pra_agent.errors import DaemonUnreachable, PraError, RefusedError
from pra_agent.model.runs import Operation, Outcome, RunRecord
from pra_agent.model.snapshots import SUSPECT_TAG
from pra_agent.operations.restore import choose_snapshot
from tests.support.agent import Agent
from tests.support.process import free_port, wait_until
from tests.support.restic import Restic

CLOCK = SystemClock()
HOUR = timedelta(hours=1)


@pytest.fixture
def agent(tmp_path):
    made = Agent(tmp_path / "host")
    made.configure()
    made.init()
    made.fill(10, 20_000)
    yield made
    made.stop()


def newest(agent: Agent, job: str = "app") -> RunRecord | None:
    with agent.journal() as journal:
        return journal.last_run(job, Operation.BACKUP)


def ended_well(agent: Agent) -> bool:
    record = newest(agent)
    return record is not None and record.outcome is Outcome.SUCCESS


def pids_of(agent: Agent) -> list[int]:
    """All processes that have the agent's configuration on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if os.fsencode(agent.config) in words and state not in {"Z", "X"}:
                    found.append(int(entry.name))
    return found


def some_is_stored(agent: Agent) -> bool:
    """Whether packs are durable that no index lists yet."""
    return any(pending.stat().st_size for pending in agent.state.glob("repositories/*/pending/*.packs"))


def slow_down(agent: Agent) -> None:
    """Let a backup take its time: much to read, a narrow way to the repository."""
    repository = dict(agent.settings["repository"])  # type: ignore[call-overload]
    agent.fill(120, 400_000, name="large")
    tuning = {"pack_size": 4 << 20, "upload_memory": 16 << 20}
    agent.configure(repository={**repository, "limits": {"upload": "8MiB/s"}, "tuning": tuning})


# ---------------------------------------------------------------- by schedule
def test_a_missed_backup_is_made_at_the_start_and_stock_restic_reads_it(agent, tmp_path):
    agent.start()
    agent.stop()
    with agent.journal() as journal:
        journal.set_next_run("app", CLOCK.now() - 3 * HOUR)
    agent.start()
    wait_until(lambda: ended_well(agent), "a backup by schedule")
    with agent.client() as client:
        status = client.jobs()[0]
    assert status.missed_runs in {3, 4}
    assert status.next_run is not None
    assert CLOCK.now() < status.next_run <= CLOCK.now() + HOUR
    restic = Restic(agent.repository)
    restic.run("check", "--read-data")
    restic.run("restore", "latest", "--target", tmp_path / "back")
    for file in agent.data.iterdir():
        assert (tmp_path / "back" / file.relative_to("/")).read_bytes() == file.read_bytes()


def test_on_hold_nothing_runs_by_schedule_until_the_release(agent):
    with agent.journal() as journal:
        journal.set_next_run("app", CLOCK.now() - HOUR)
        journal.set_hold(True)
    agent.start()
    agent.says("on hold")
    assert newest(agent) is None
    with agent.client() as client:
        assert client.status().on_hold
        client.release()
        assert client.run_job("app").outcome is Outcome.SUCCESS


def test_an_empty_journal_is_seeded_from_the_snapshots(agent):
    agent.start()
    with agent.client() as client:
        first = client.run_job("app")
    agent.stop()
    for file in agent.state.glob("journal.db*"):
        file.unlink()
    agent.start()
    wait_until(lambda: newest(agent) is not None, "seeding")
    record = newest(agent)
    assert record is not None
    assert record.id == first.id
    assert record.snapshot == first.snapshot
    with agent.journal() as journal:
        assert journal.data_instants("app") == {"": first.data_instant}
        assert journal.counts() == []


def test_a_small_backup_is_suspect_until_it_is_accepted(agent):
    agent.start()
    with agent.client() as client:
        good = client.run_job("app")
        for file in list(agent.data.iterdir())[1:]:
            file.unlink()
        small = client.run_job("app")
        assert small.outcome is Outcome.SUSPECT
        assert client.jobs()[0].suspect
        assert client.jobs()[0].data_instants["repository"] == good.data_instant
        client.accept("app")
        assert not client.jobs()[0].suspect
        assert client.jobs()[0].data_instants["repository"] == small.data_instant
        with pytest.raises(RefusedError):
            client.accept("app")
        with client.session() as reader:
            snapshots = reader.snapshots()
        newest_one = choose_snapshot(snapshots, "app")
        assert newest_one.time == small.data_instant
        assert newest_one.original == small.snapshot
        assert [one for one in snapshots if SUSPECT_TAG in one.tags] == []
        assert client.run_job("app").outcome is Outcome.SUCCESS
    Restic(agent.repository).run("check", "--read-data")


# ---------------------------------------------------------------- care of the repository
def test_the_daemon_forgets_prunes_and_checks(agent):
    job = dict(agent.settings["jobs"]["app"], keep={"last": 1, "min_count": 1})
    agent.configure(jobs={"app": job})
    agent.start()
    with agent.client() as client:
        made = []
        for n in range(3):
            agent.fill(3, 100_000, name=f"more-{n}")
            made.append(client.run_job("app").snapshot)
            for file in agent.data.glob("more-*"):
                file.unlink()
        assert client.operate(Operation.FORGET, dry_run=True).detail["forgotten"] == 2
        assert len(list((agent.repository / "snapshots").iterdir())) == 3
        forgotten = client.operate(Operation.FORGET)
        assert (forgotten.outcome, forgotten.detail["forgotten"]) == (Outcome.SUCCESS, 2)
        assert [file.name for file in (agent.repository / "snapshots").iterdir()] == made[-1:]
        assert client.operate(Operation.PRUNE).outcome is Outcome.SUCCESS
        assert client.operate(Operation.CHECK, read_data_subset="100%").outcome is Outcome.SUCCESS
    with agent.journal() as journal:
        assert journal.gauge("snapshots", "app") == 1
        assert journal.gauge("repository_size_bytes")
    Restic(agent.repository).run("check", "--read-data")


def test_nothing_is_forgotten_while_the_newest_backup_is_suspect(agent):
    job = dict(agent.settings["jobs"]["app"], keep={"last": 1, "min_count": 1})
    agent.configure(jobs={"app": job})
    agent.start()
    with agent.client() as client:
        client.run_job("app")
        client.run_job("app")
        for file in list(agent.data.iterdir())[1:]:
            file.unlink()
        assert client.run_job("app").outcome is Outcome.SUSPECT
        assert client.operate(Operation.FORGET).detail["forgotten"] == 0
        client.accept("app")
        assert client.run_job("app").outcome is Outcome.SUCCESS
        assert client.operate(Operation.FORGET).detail["forgotten"] == 3


def test_a_copy_follows_each_backup(agent):
    second = agent.root / "second"
    agent.init(second)
    agent.configure(copies=[{"name": "dr", "url": str(second), "off_host": True}])
    agent.start()
    with agent.client() as client:
        record = client.run_job("app")

        def copied() -> bool:
            return bool(client.jobs()[0].data_instants.get("dr") == record.data_instant)

        wait_until(copied, "the copy")
        wait_until(lambda: client.runs(limit=1)[0].outcome is Outcome.SUCCESS, "its record")
        assert client.runs(limit=1)[0].operation is Operation.COPY
        assert client.operate(Operation.COPY).destination == str(second)
        agent.fill(1, 10_000, name="more")
        agent.stop()
    with agent.journal() as journal:
        assert journal.off_host_instant("app") == record.data_instant
        # As if the daemon had died between a backup and its copy.
        journal.advance("app", "", CLOCK.now(), off_host=False)
    agent.start()
    with agent.client() as client:
        wait_until(lambda: len([run for run in client.runs() if run.operation is Operation.COPY]) == 3, "catching up")
    restic = Restic(second)
    restic.run("check", "--read-data")
    assert len(list((second / "snapshots").iterdir())) == 1


def test_a_check_that_was_missed_is_made_at_the_start(agent):
    agent.configure(maintenance={**agent.settings["maintenance"], "check": {"schedule": "30 4 * * *"}})
    with agent.journal() as journal:
        journal.set_due(Operation.CHECK, CLOCK.now() - 48 * HOUR)
    agent.start()

    def checked() -> bool:
        with agent.journal() as journal:
            return journal.last_with("", Operation.CHECK, [Outcome.SUCCESS]) is not None

    wait_until(checked, "a check by schedule")


def test_an_idle_daemon_is_small(agent):
    """The summed proportional memory of the daemon and its spawner, after runs: below 90 MiB."""
    agent.configure(exporter={"listen": "127.0.0.1:0"})
    agent.start()
    with agent.client() as client:
        for _ in range(2):
            client.run_job("app")
    wait_until(lambda: len(pids_of(agent)) == 2, "the end of the runs' processes")
    total = 0
    for pid in pids_of(agent):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert total < 90 * 1024


# ---------------------------------------------------------------- reload
def test_a_good_configuration_is_taken_and_a_bad_one_is_not(agent):
    process = agent.start()
    agent.configure(jobs={**agent.settings["jobs"], "more": {"source": {"type": "files", "paths": [str(agent.root)]}}})
    process.signal(signal.SIGHUP)
    agent.says("the configuration is taken")
    with agent.client() as client:
        assert [job.fact.name for job in client.jobs()] == ["app", "more"]
        agent.config.write_text("node: web-1\nrepositori: {}\n")
        process.signal(signal.SIGHUP)
        agent.says("the one before stays")
        assert "repositori" in client.status().config_error
        assert [job.fact.name for job in client.jobs()] == ["app", "more"]
        assert client.run_job("app").outcome is Outcome.SUCCESS
        with agent.journal() as journal:
            assert journal.gauge("config_last_reload_successful") == 0
        agent.configure(jobs={"app": agent.settings["jobs"]["app"]})
        process.signal(signal.SIGHUP)
        wait_until(lambda: client.status().config_error == "", "the good configuration")
        assert [job.fact.name for job in client.jobs()] == ["app"]
    assert "Traceback" not in agent.log.read_text()


def test_what_takes_a_restart_is_not_reloaded(agent):
    process = agent.start()
    agent.configure(state={"dir": str(agent.root / "elsewhere")})
    process.signal(signal.SIGHUP)
    agent.says("takes a restart")


def test_the_exporter_follows_a_reload(agent):
    first, second = free_port(), free_port()
    agent.configure(exporter={"listen": f"127.0.0.1:{first}"})
    process = agent.start()
    assert "pra_build_info" in scrape(first)
    agent.configure(exporter={"listen": f"127.0.0.1:{second}"})
    process.signal(signal.SIGHUP)
    agent.says("the configuration is taken")
    assert 'pra_backup_awaiting_first{backup_job="app"} 1.0' in scrape(second)
    with pytest.raises(OSError, match="refused"):
        scrape(first)


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


# ---------------------------------------------------------------- ends
def test_killed_in_the_midst_of_a_backup_it_records_the_failure_and_goes_on(agent):
    slow_down(agent)
    agent.start()
    with agent.client() as client:
        run_id = client.start_job("app")
    # Something is stored, and more is to come.
    wait_until(lambda: some_is_stored(agent), "the first pack")
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.process.wait()
    wait_until(lambda: not pids_of(agent), "the end of the run's processes")
    stored = sum(path.stat().st_size for path in agent.repository.glob("data/*/*") if len(path.name) == 64)
    assert stored > 0
    agent.start()
    with agent.client() as client:
        dead = client.run(run_id)
        assert (dead.outcome, dead.error) == (Outcome.FAILED, "the daemon ended while this ran")
        record = client.run_job("app")
        assert record.outcome is Outcome.SUCCESS
        assert record.bytes_stored <= 48_300_000 - stored + 100_000
    Restic(agent.repository).run("check", "--read-data")


def test_what_a_crashed_run_left_is_undone_before_anything_runs(agent):
    with agent.journal() as journal:
        journal.state_before("app").remember("paused", {})
        journal.state_before("gone").remember("paused", {"container": "db"})
        journal.set_next_run("app", CLOCK.now() - HOUR)
    agent.start()
    # A job that has left the configuration cannot be undone; that is told, and stops nobody else.
    agent.says("gone: no job is called gone")
    wait_until(lambda: ended_well(agent), "a backup by schedule")
    with agent.journal() as journal:
        assert "gone" in journal.jobs_with_state()


def test_asked_to_stop_it_ends_the_run_in_order(agent):
    slow_down(agent)
    process = agent.start()
    with agent.client() as client:
        run_id = client.start_job("app")
    wait_until(lambda: some_is_stored(agent), "the first pack")
    process.signal(signal.SIGTERM)
    assert process.process.wait(30) == 0
    assert not pids_of(agent)
    assert not list((agent.repository / "locks").iterdir())
    assert not agent.socket.exists()
    with agent.journal() as journal:
        record = journal.run(run_id)
        assert record is not None
        assert (record.outcome, record.error) == (Outcome.FAILED, "the daemon was stopped")
        assert journal.running() == []


def test_a_client_that_waits_is_told_when_the_run_fails(agent):
    agent.start()
    heard: list[RunRecord | PraError] = []

    def wait() -> None:
        with Client(agent.socket) as client:
            try:
                heard.append(client.run_job("app"))
            except PraError as error:
                heard.append(error)

    (agent.repository / "config").unlink()
    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(60)
    assert isinstance(heard[0], RunRecord)
    assert heard[0].outcome is Outcome.FAILED
    assert "there is no repository" in heard[0].error


def test_without_its_spawner_it_ends_to_be_started_anew(agent):
    process = agent.start()
    os.kill(next(pid for pid in pids_of(agent) if pid != process.pid), signal.SIGKILL)
    assert process.process.wait(60) == 1
    agent.says("the spawner has died")


# ---------------------------------------------------------------- it does not start
def test_a_second_daemon_is_refused(agent):
    agent.start()
    other = Agent(agent.root / "other")
    other.configure(state={"dir": str(agent.state)})
    second = other.start(wait=False)
    assert second.process.wait(60) == 1
    other.says("another daemon uses")
    assert "Traceback" not in other.log.read_text()


def test_a_bad_configuration_is_one_line_and_the_exit_status_of_usage(agent):
    agent.config.write_text("node: web-1\n")
    agent.config.chmod(0o600)
    process = agent.start(wait=False)
    assert process.process.wait(60) == 2
    agent.says("repository")
    assert "Traceback" not in agent.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon refuses it")
def test_a_configuration_that_others_can_write_is_refused(agent):
    agent.config.chmod(0o666)
    process = agent.start(wait=False)
    assert process.process.wait(60) == 2
    agent.says("can be written by others")


def test_a_damaged_journal_is_moved_aside(agent):
    agent.start()
    with agent.client() as client:
        client.run_job("app")
    agent.stop()
    for ending in ("-wal", "-shm"):
        (agent.state / f"journal.db{ending}").unlink(missing_ok=True)
    (agent.state / "journal.db").write_bytes(b"no database" * 1000)
    agent.start()
    assert list(agent.state.glob("journal.db.damaged-*"))
    wait_until(lambda: newest(agent) is not None, "seeding")


# ---------------------------------------------------------------- systemd
def test_it_tells_the_service_manager_and_takes_its_socket(agent):
    """As systemd does it: a datagram socket to tell, and the listening socket as descriptor 3."""
    import socket
    import subprocess
    import sys

    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(agent.root / "notify"))
    told.settimeout(60)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(agent.socket))
    listening.listen()
    wrapper = (
        "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        "os.execv(sys.executable, [sys.executable, '-m', 'pra_agent', '--config', sys.argv[2], 'daemon'])"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": "agent",
        "LISTEN_FDS": "1",
        "NOTIFY_SOCKET": str(agent.root / "notify"),
        "WATCHDOG_USEC": "3000000",
    }
    with agent.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", wrapper, str(listening.fileno()), str(agent.config)],
            pass_fds=(listening.fileno(),),
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        listening.close()
        heard = ""
        while "WATCHDOG=1" not in heard or "READY=1" not in heard:
            heard += told.recv(4096).decode() + "\n"
        assert "STATUS=1 jobs, waiting" in heard
        assert agent.ready()
        process.send_signal(signal.SIGHUP)
        while "RELOADING=1\nMONOTONIC_USEC=" not in heard:
            heard += told.recv(4096).decode() + "\n"
        process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard += told.recv(4096).decode() + "\n"
        assert process.wait(60) == 0
        assert agent.socket.exists()
    finally:
        process.kill()
        process.wait()
        told.close()
    with pytest.raises(DaemonUnreachable), Client(agent.socket) as client:
        client.status()
