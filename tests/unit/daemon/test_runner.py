"""Runs in real child processes: lanes, ends of every kind, and nothing that is lost."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from pra_agent.clock import SystemClock
from pra_agent.daemon import runner as runner_module
from pra_agent.daemon.processes import Processes
from pra_agent.daemon.requests import RunRequest
from pra_agent.errors import NotFound, RefusedError
from pra_agent.model.events import FileFailed, Notice, Progress
from pra_agent.model.runs import Operation, Outcome, RunRecord
from tests.unit.daemon.house import Rules, house

_LIMIT = 60


@pytest.fixture(scope="module")
def processes():
    started = Processes()
    started.start()
    yield started
    started.close()


def test_what_a_child_tells_is_heard_and_kept(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            record = await h.run("succeed")
            assert record.outcome is Outcome.SUCCESS
            assert record.bytes == 7
            assert record.detail["pid"] != os.getpid()
            assert h.journal.run(record.id) == record
            assert [type(heard) for heard in h.heard] == [Progress, FileFailed, Notice, RunRecord]
            assert h.journal.gauge("snapshots") == 3
            assert h.journal.gauge("requests", "put") == 2
            assert set(h.journal.data_instants("app")) == {"s3://copy"}
            assert set(h.journal.data_instants("succeed")) == {""}
            assert h.journal.progress(record.id) is None

    asyncio.run(main())


def test_a_quick_child_never_loses_its_record(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            for _ in range(25):
                assert (await h.run("succeed")).outcome is Outcome.SUCCESS

    asyncio.run(main())


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("locked", "somebody prunes"),
        ("blunder", "ValueError: no such thing"),
        ("crash", "was ended by SIGKILL without a report.*the last words"),
        ("no_such_action", "no_such_action"),
    ],
)
def test_a_run_that_goes_wrong_has_failed_and_says_why(tmp_path, processes, job, words):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            record = await h.run(job)
            assert record.outcome is Outcome.FAILED
            assert re.search(words, record.error), record.error
            assert h.journal.run(record.id) == record
            assert h.heard[-1] == record

    asyncio.run(main())


def test_an_operators_error_keeps_its_advice_and_exit_code(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            detail = (await h.run("locked")).detail
            assert (detail["kind"], detail["exit_code"]) == ("Locked", 11)
            assert "unlock" in str(detail["advice"])

    asyncio.run(main())


def test_what_a_child_leaves_behind_is_ended_with_it(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            assert (await h.run("orphan")).outcome is Outcome.SUCCESS

    asyncio.run(main())


def test_the_least_slack_goes_first_and_the_limit_holds(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            h.rules.concurrent_backups = 1
            h.rules.slacks = {"a": 0, "b": 50, "c": 10}
            runs = [h.runner.submit(RunRequest(Operation.BACKUP, job)) for job in "abc"]
            await h.until("+a")
            assert [a.request.job for a in h.runner.running] == ["a"]
            h.go()
            await asyncio.wait_for(asyncio.gather(*(a.ended for a in runs)), _LIMIT)
            assert h.order() == ["+a", "-a", "+c", "-c", "+b", "-b"]

    asyncio.run(main())


def test_backups_run_beside_each_other_and_a_prune_never_beside_them(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            first = [h.runner.submit(RunRequest(Operation.BACKUP, job)) for job in "ab"]
            prune = h.runner.submit(RunRequest(Operation.PRUNE))
            late = h.runner.submit(RunRequest(Operation.BACKUP, "c"))
            await h.until("+a", "+b")
            h.go()
            await asyncio.wait_for(asyncio.gather(*(a.ended for a in [*first, late, prune])), _LIMIT)
            assert h.order()[-2:] == ["+prune", "-prune"]

    asyncio.run(main())


def test_a_prune_makes_room_for_an_urgent_backup_and_begins_again(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            h.rules.slacks = {"calm": 36000.0, "urgent": 60.0}
            prune = h.runner.submit(RunRequest(Operation.PRUNE))
            await h.until("+prune")
            calm = h.runner.submit(RunRequest(Operation.BACKUP, "calm"))
            assert not prune.stopping
            urgent = h.runner.submit(RunRequest(Operation.BACKUP, "urgent"))
            record = await asyncio.wait_for(prune.ended, _LIMIT)
            assert (record.outcome, record.error) == (Outcome.SKIPPED, "gave way to a backup; it begins again later")
            h.go()
            await asyncio.wait_for(asyncio.gather(calm.ended, urgent.ended), _LIMIT)
            await h.until("+prune", "!prune", "+calm", "-calm", "+urgent", "-urgent", "+prune", "-prune")
            assert h.order()[-1] == "-prune"

    asyncio.run(main())


def test_a_check_waits_for_backups_and_a_forget_does_not(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            h.runner.submit(RunRequest(Operation.BACKUP, "a"))
            check = h.runner.submit(RunRequest(Operation.CHECK))
            h.runner.submit(RunRequest(Operation.FORGET))
            await h.until("+a", "+forget")
            h.go()
            await asyncio.wait_for(check.ended, _LIMIT)
            assert h.order()[-2:] == ["+check", "-check"]

    asyncio.run(main())


def test_a_copy_that_waited_long_runs_beside_backups(tmp_path, processes, monkeypatch):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            h.runner.submit(RunRequest(Operation.BACKUP, "a"))
            monkeypatch.setattr(runner_module, "_PATIENCE", -1.0)
            h.runner.submit(RunRequest(Operation.COPY, destination="s3://copy"))
            await h.until("+a", "+copy")
            h.go()

    asyncio.run(main())


def test_two_requests_for_a_job_are_one_run(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            h.rules.concurrent_backups = 1
            first = h.runner.submit(RunRequest(Operation.BACKUP, "a"))
            queued = h.runner.submit(RunRequest(Operation.BACKUP, "b"))
            assert h.runner.submit(RunRequest(Operation.BACKUP, "a")) is first
            assert h.runner.submit(RunRequest(Operation.BACKUP, "b", full=True)) is queued
            assert queued.request.full
            h.go()
            assert (await asyncio.wait_for(queued.ended, _LIMIT)).full

    asyncio.run(main())


def test_a_run_is_asked_to_stop(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            h.rules.concurrent_backups = 1
            running = h.runner.submit(RunRequest(Operation.BACKUP, "a"))
            queued = h.runner.submit(RunRequest(Operation.BACKUP, "b"))
            await h.until("+a")
            h.runner.stop(queued.id, "not now")
            assert (await queued.ended).outcome is Outcome.SKIPPED
            h.runner.stop(running.id, "the operator stopped it")
            record = await asyncio.wait_for(running.ended, _LIMIT)
            assert (record.outcome, record.error) == (Outcome.FAILED, "the operator stopped it")
            assert h.order() == ["+a", "!a"]
            with pytest.raises(NotFound):
                h.runner.stop(running.id, "again")

    asyncio.run(main())


def test_a_run_that_does_not_listen_is_ended(tmp_path, processes, monkeypatch):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            active = h.runner.submit(RunRequest(Operation.BACKUP, "deaf"))
            deaf = asyncio.Event()
            active.listeners.append(lambda _heard: deaf.set())
            await asyncio.wait_for(deaf.wait(), _LIMIT)
            h.runner.stop(active.id, "enough")
            assert (await asyncio.wait_for(active.ended, _LIMIT)).error == "enough"

    monkeypatch.setattr(runner_module, "GRACE", 0.2)
    asyncio.run(main())


def test_a_run_is_paused_and_goes_on(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            active = h.runner.submit(RunRequest(Operation.BACKUP, "a"))
            await h.until("+a")
            active.pause()
            assert active.child is not None
            async with asyncio.timeout(_LIMIT):
                while _state(active.child.pid) != "T":  # noqa: ASYNC110  the kernel tells nobody
                    await asyncio.sleep(0.01)
            h.go()
            active.resume()
            assert (await asyncio.wait_for(active.ended, _LIMIT)).outcome is Outcome.SUCCESS

    asyncio.run(main())


def test_closing_ends_all_and_takes_nothing_more(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            h.rules.action = "wait"
            runs = [h.runner.submit(RunRequest(Operation.BACKUP, job)) for job in "abc"]
            await h.until("+a", "+b")
            await asyncio.wait_for(h.runner.close("the daemon stops"), _LIMIT)
            assert [a.ended.result().outcome for a in runs] == [Outcome.FAILED, Outcome.FAILED, Outcome.SKIPPED]
            assert h.journal.running() == []
            with pytest.raises(RefusedError):
                h.runner.submit(RunRequest(Operation.BACKUP, "a"))

    asyncio.run(main())


def test_a_subscriber_of_an_ended_run_hears_its_record(tmp_path, processes):
    async def main() -> None:
        async with house(tmp_path, processes) as h:
            record = await h.run("succeed")
            heard: list[Any] = []
            h.runner.subscribe(record.id, heard.append)()
            assert heard == [record]
            with pytest.raises(NotFound):
                h.runner.subscribe("none", heard.append)

    asyncio.run(main())


def test_children_die_with_the_daemon(tmp_path):
    """A process starts a spawner and a run in it, and is killed: nothing of it stays."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            processes = Processes()
            processes.start()
            rules = Rules(tmp_path / "journal.db", "wait")
            request = RunRequest(Operation.BACKUP, "a")
            run = RunRecord("r", Operation.BACKUP, "a", SystemClock().now())
            child = processes.spawn(rules.task(run, request), (os.dup(2),), stderr=2)
            os.write(writer, f"{child.pid}\n".encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        child_pid = int(lines.readline())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    clock = SystemClock()
    end = clock.monotonic() + _LIMIT
    while _state(child_pid) not in {"", "Z", "X"}:
        assert clock.monotonic() < end
        clock.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""
