from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend

from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.limited import LimitedBackend
from pra_agent.storage.settings import StorageLimits


def handle(number: int) -> Handle:
    return Handle(Kind.DATA, f"{number:064x}")


def limited(clock: FakeClock, **limits: Any) -> LimitedBackend:
    return LimitedBackend(MemoryBackend(), StorageLimits.model_validate(limits), clock)


def test_uploads_keep_to_the_rate():
    clock = FakeClock()
    backend = limited(clock, upload=1000)
    for number in range(11):
        backend.put(handle(number), bytes(500))
    assert clock.monotonic() == pytest.approx(5.0)


def test_downloads_keep_to_the_rate_and_ranges_count_by_what_they_give():
    clock = FakeClock()
    backend = limited(clock, download="1KiB/s")
    backend.put(handle(1), bytes(10_240))
    assert clock.monotonic() == 0
    for _ in range(3):
        backend.get(handle(1), 1000, 2048)
    assert clock.monotonic() == pytest.approx(4.0)
    backend.get(handle(1))
    backend.get(handle(1), 0, 1)
    assert clock.monotonic() == pytest.approx(16.0)


def test_idle_time_is_not_saved_up():
    clock = FakeClock()
    backend = limited(clock, upload=1000)
    backend.put(handle(1), bytes(1000))
    clock.advance(3600)
    for number in range(2, 5):
        backend.put(handle(number), bytes(1000))
    assert clock.monotonic() == pytest.approx(3602.0)


def test_no_limit_never_waits():
    clock = FakeClock()
    backend = limited(clock, upload=10)
    for _ in range(100):
        backend.get(put(backend, 1, 10))
    assert len(clock.slept) <= 100
    unlimited = limited(clock)
    before = len(clock.slept)
    for number in range(100):
        unlimited.get(put(unlimited, number, 100_000))
    assert len(clock.slept) == before


def put(backend: LimitedBackend, number: int, size: int) -> Handle:
    backend.put(handle(number), bytes(size))
    return handle(number)


def test_threads_share_one_rate():
    clock = FakeClock()
    backend = limited(clock, upload=1000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: put(backend, number, 100), range(101)))
    assert clock.monotonic() >= 9.9


def test_the_hours_of_the_day_change_the_rate():
    daily = [{"hours": "08:00-18:00", "upload": 100}, {"hours": "22:00-06:00"}]
    clock = FakeClock(datetime(2024, 5, 1, 7, 59, 50, tzinfo=UTC))
    backend = limited(clock, upload=1000, daily=daily)
    put(backend, 1, 5000)
    put(backend, 2, 20_000)  # 5 s at 1000/s
    assert clock.monotonic() == pytest.approx(5.0)
    put(backend, 3, 1)  # 5 s at 1000/s, then 150 s at 100/s
    assert clock.monotonic() == pytest.approx(160.0, abs=6)
    night = FakeClock(datetime(2024, 5, 1, 23, tzinfo=UTC))
    backend = limited(night, upload=10, daily=daily)
    for number in range(10):
        put(backend, number, 1_000_000)
    assert night.slept == []


def test_the_hours_are_those_of_the_zone():
    clock = FakeClock(datetime(2024, 7, 1, 6, 30, tzinfo=UTC))  # 08:30 in Paris
    backend = limited(clock, daily=[{"hours": "08:00-18:00", "upload": 100}], zone="Europe/Paris")
    put(backend, 1, 1000)
    put(backend, 2, 1)
    assert clock.monotonic() == pytest.approx(10.0)
