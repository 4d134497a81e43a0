import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.faulty import Fault, FaultyBackend, Mode
from tests.support.memory import MemoryBackend

from pra_agent.errors import AccessDenied, AlreadyExists, DamagedError, NotFound, StorageFull, Throttled
from pra_agent.errors import TransientStorageError as Transient
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.retrying import RetryingBackend, RetryPolicy

A = Handle(Kind.DATA, "a" * 64)


class Bench:
    """A retrying backend over a faulty one over memory."""

    def __init__(self, fault: Fault | None = None, **policy: Any) -> None:
        self.memory = MemoryBackend()
        self.faulty = FaultyBackend(self.memory, fault)
        self.clock = FakeClock()
        self.retries = 0
        self.backend = RetryingBackend(
            self.faulty,
            self.clock,
            policy=RetryPolicy(**policy),
            on_retry=self.count,
            rng=random.Random(1),
        )

    def count(self) -> None:
        self.retries += 1


def test_what_works_is_done_once():
    bench = Bench()
    bench.backend.put(A, b"x")
    assert bench.backend.get(A) == b"x"
    assert bench.faulty.count == 2
    assert bench.retries == 0
    assert bench.clock.slept == []


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.FAIL_AFTER])
@pytest.mark.parametrize("operation", ["put", "get", "stat", "list", "delete", "create", "extend_retention"])
def test_every_operation_gets_over_passing_errors(operation, mode):
    bench = Bench()
    if operation != "put":
        bench.backend.put(A, b"x")
    bench.faulty.fault = Fault(1, mode, operations=[operation], times=3)
    actions: dict[str, Callable[[], Any]] = {
        "put": lambda: bench.backend.put(A, b"x"),
        "get": lambda: bench.backend.get(A),
        "stat": lambda: bench.backend.stat(A),
        "list": lambda: list(bench.backend.list(Kind.DATA)),
        "delete": lambda: bench.backend.delete(A),
        "create": bench.backend.create,
        "extend_retention": lambda: bench.backend.extend_retention(A, bench.clock.now()),
    }
    result = actions[operation]()
    # A delete that was done finds nothing to do when it is tried again.
    assert bench.retries == (1 if (operation, mode) == ("delete", Mode.FAIL_AFTER) else 3)
    if operation == "list":
        assert [info.handle for info in result] == [A]


@pytest.mark.parametrize("error", [NotFound, AlreadyExists, AccessDenied, StorageFull, DamagedError, RuntimeError])
def test_errors_that_stay_are_told_at_once(error):
    bench = Bench(Fault(1, error=lambda: error("no")))
    with pytest.raises(error):
        bench.backend.put(A, b"x")
    assert bench.faulty.count == 1
    assert bench.clock.slept == []


def test_tries_are_bounded():
    bench = Bench(Fault(1, times=1000), tries=5)
    with pytest.raises(Transient):
        bench.backend.put(A, b"x")
    assert bench.faulty.count == 5
    assert bench.retries == 4


def test_time_is_bounded():
    bench = Bench(tries=1000, give_up=300)
    bench.backend.put(A, b"x")
    bench.faulty.fault = Fault(1, times=1000)
    with pytest.raises(Transient):
        bench.backend.get(A)
    assert 200 < bench.clock.monotonic() <= 300


def test_a_store_that_never_answered_is_given_up_soon():
    bench = Bench(Fault(1, times=1000), give_up=300, first_contact=30)
    with pytest.raises(Transient):
        bench.backend.get(A)
    assert bench.clock.monotonic() <= 30
    bench.faulty.fault = None
    with pytest.raises(NotFound):
        bench.backend.get(A)
    bench.faulty.fault = Fault(1, times=1000)
    before = bench.clock.monotonic()
    with pytest.raises(Transient):
        bench.backend.get(A)
    assert bench.clock.monotonic() - before > 200


def test_waits_grow_and_are_random():
    bench = Bench(Fault(1, times=8), first_wait=1, longest_wait=30, first_contact=900)
    bench.backend.put(A, b"x")
    waits = bench.clock.slept
    for number, wait in enumerate(waits):
        assert 0.1 * min(30, 2**number) <= wait <= min(30, 2**number)
    assert len({round(wait / min(30, 2**number), 6) for number, wait in enumerate(waits)}) == len(waits)


def test_a_delete_of_what_never_was_is_not_found():
    bench = Bench(Fault(1, operations=["delete"]))
    with pytest.raises(NotFound):
        Bench().backend.delete(A)
    bench.backend.delete(A)  # this one cannot be told from a lost answer, and its end is the same


def test_a_listing_that_begins_again_names_nothing_twice():
    bench = Bench()
    handles = [Handle(Kind.DATA, f"{number:064x}") for number in range(10)]
    for handle in handles:
        bench.memory.put(handle, b"x")
    bench.faulty.fault = Fault(1, Mode.FAIL_AFTER, operations=["list"], times=2)
    assert [info.handle for info in bench.backend.list(Kind.DATA)] == handles
    assert bench.retries == 2


def test_slow_down_spaces_out_all_requests_and_success_brings_them_back():
    bench = Bench(Fault(1, times=6, error=lambda: Throttled("slow down")))
    bench.backend.put(A, b"x")
    before = len(bench.clock.slept)
    for _ in range(5):
        bench.backend.get(A)
    spaced = bench.clock.slept[before:]
    assert spaced
    assert max(spaced) <= 1.0
    for _ in range(100):
        bench.backend.get(A)
    before = len(bench.clock.slept)
    bench.backend.get(A)
    assert len(bench.clock.slept) == before


def test_other_errors_do_not_space_out():
    bench = Bench(Fault(1, times=6))
    bench.backend.put(A, b"x")
    before = len(bench.clock.slept)
    bench.backend.get(A)
    assert len(bench.clock.slept) == before
