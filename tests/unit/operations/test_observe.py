"""What can be told of a repository by listing it."""

from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from pra_agent.errors import AccessDenied
from pra_agent.exporter.observed import OBSERVED, ObservedBook
from pra_agent.operations.observe import ALWAYS, Observation, Watched, observe
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from tests.support.clock import FakeClock
from tests.support.memory import MemoryBackend

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Listing:
    """A store that lists what it is told to, and can do nothing else."""

    def __init__(self, *objects: ObjectInfo) -> None:
        self.objects = objects
        self.asked: list[Kind] = []

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        self.asked.append(kind)
        return iter([one for one in self.objects if one.handle.kind is kind])


def info(kind: Kind, name: str, size: int, minutes: int) -> ObjectInfo:
    return ObjectInfo(Handle(kind, name), size, NOON - timedelta(minutes=minutes))


def watched(store: object) -> Watched:
    return Watched("web-1", "repository", lambda: nullcontext(store))  # type: ignore[arg-type]


CONFIG = info(Kind.CONFIG, "", 155, 999)


def test_the_newest_snapshot_the_oldest_lock_and_sizes():
    store = Listing(
        CONFIG,
        info(Kind.SNAPSHOT, "a" * 64, 300, 90),
        info(Kind.SNAPSHOT, "b" * 64, 310, 30),
        info(Kind.SNAPSHOT, "c" * 64, 320, 60),
        info(Kind.LOCK, "d" * 64, 10, 5),
        info(Kind.LOCK, "e" * 64, 10, 7),
        info(Kind.DATA, "f" * 64, 5000, 30),
    )
    seen = observe(watched(store), FakeClock(NOON))
    assert seen.newest == NOON - timedelta(minutes=30)
    assert seen.oldest_lock == NOON - timedelta(minutes=7)
    assert {kind.value: (tally.objects, tally.bytes) for kind, tally in seen.tallies.items() if tally.objects} == {
        "config": (1, 155),
        "snapshots": (3, 930),
        "locks": (2, 20),
        "data": (1, 5000),
    }
    assert seen.error == ""


def test_packs_are_listed_only_when_they_are_asked_for():
    store = Listing(CONFIG)
    assert observe(watched(store), FakeClock(NOON), ALWAYS).newest is None
    assert Kind.DATA not in store.asked


def test_a_place_without_a_repository_is_no_success():
    assert observe(watched(Listing()), FakeClock(NOON)).error == "there is no repository"


def test_what_the_store_refuses_is_told():
    class Refusing(Listing):
        def list(self, kind: Kind) -> Iterator[ObjectInfo]:
            raise AccessDenied(f"no {kind}")

    assert observe(watched(Refusing()), FakeClock(NOON)).error == "no config"


def test_a_real_backend():
    backend = MemoryBackend()
    backend.put(Handle(Kind.CONFIG), b"config")
    seen = observe(Watched("web-1", "dr", lambda: closing(backend)), FakeClock(NOON))
    assert (seen.destination, seen.tallies[Kind.CONFIG].bytes) == ("dr", 6)


class TestBook:
    def test_a_look_that_fails_leaves_what_was_seen(self):
        book = ObservedBook()
        clock = FakeClock(NOON)
        good = observe(watched(Listing(CONFIG, info(Kind.SNAPSHOT, "a" * 64, 1, 30))), clock)
        book.enter(good)
        book.enter(Observation("web-1", "repository", NOON + timedelta(minutes=10), error="refused"))
        samples = book.samples()
        where = ("web-1", "repository")
        assert samples["observed_failed"][where] == 1
        assert (
            samples["observed_newest_snapshot_timestamp_seconds"][where] == (NOON - timedelta(minutes=30)).timestamp()
        )
        assert samples["observed_last_success_timestamp_seconds"][where] == NOON.timestamp()
        assert samples["observed_last_attempt_timestamp_seconds"][where] > NOON.timestamp()

    def test_what_was_never_seen_is_not_a_number(self):
        book = ObservedBook()
        book.enter(Observation("web-1", "repository", NOON, error="refused"))
        value = book.samples()["observed_newest_snapshot_timestamp_seconds"]["web-1", "repository"]
        assert value != value  # noqa: PLR0124 - NaN is what differs from itself

    def test_packs_stay_counted_between_two_counts(self):
        book = ObservedBook()
        store = Listing(CONFIG, info(Kind.DATA, "f" * 64, 5000, 30))
        book.enter(observe(watched(store), FakeClock(NOON)))
        book.enter(observe(watched(store), FakeClock(NOON), ALWAYS))
        assert book.samples()["observed_bytes"]["web-1", "repository", "data"] == 5000

    @pytest.mark.parametrize("metric", OBSERVED, ids=lambda metric: metric.name)
    def test_every_metric_is_filled(self, metric):
        book = ObservedBook()
        book.enter(observe(watched(Listing(CONFIG)), FakeClock(NOON)))
        assert book.samples()[metric.name]
