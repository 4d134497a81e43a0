"""A slow listener gets the newest progress, all failures, and always the end."""

import asyncio
import threading

import pytest

from pra_agent.control import events
from pra_agent.control.events import EventStream
from pra_agent.control.wire import event_of
from pra_agent.model.events import Event, FileFailed, Progress
from pra_agent.model.runs import Operation, Outcome, RunRecord
from tests.support.daemons import START, MemoryJournal

RECORD = RunRecord("r", Operation.BACKUP, "app", START, START, Outcome.SUCCESS)


async def heard(stream: EventStream, journal: MemoryJournal) -> list[Event | RunRecord | None]:
    return [event_of(line) async for data in stream.lines("r", journal) for line in data.splitlines()]


def test_progress_is_coalesced_failures_are_not() -> None:
    async def scenario() -> list[Event | RunRecord | None]:
        stream = EventStream()
        for number in range(1000):
            stream(Progress("read", number))
        stream(FileFailed("/a", "x"))
        stream(FileFailed("/b", "y"))
        stream(RECORD)
        return await heard(stream, MemoryJournal())

    assert asyncio.run(scenario()) == [FileFailed("/a", "x"), FileFailed("/b", "y"), Progress("read", 999), RECORD]


def test_events_come_from_any_thread() -> None:
    async def scenario() -> list[Event | RunRecord | None]:
        stream = EventStream()
        threads = [threading.Thread(target=stream, args=(FileFailed(str(number), ""),)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        threading.Thread(target=stream, args=(RECORD,)).start()
        return await heard(stream, MemoryJournal())

    told = asyncio.run(scenario())
    assert len(told) == 21
    assert told[-1] == RECORD


def test_a_lost_end_is_found_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING", 0.01)

    async def scenario() -> list[Event | RunRecord | None]:
        return await heard(EventStream(), MemoryJournal([RECORD]))

    told = asyncio.run(scenario())
    assert told[-1] == RECORD
    assert set(told[:-1]) == {None}


def test_a_listener_whose_loop_is_gone_is_harmless() -> None:
    async def scenario() -> EventStream:
        return EventStream()

    asyncio.run(scenario())(RECORD)
