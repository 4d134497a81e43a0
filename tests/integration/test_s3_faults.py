"""A real S3 server behind a bad line: the right errors, counted retries, and no object lost or half there."""

import hashlib
import itertools
import random
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest

from pra_agent.clock import SystemClock
from pra_agent.errors import AlreadyExists, DamagedError, NotFound, Throttled, TransientStorageError
from pra_agent.storage.backend import Backend, Handle, Kind
from pra_agent.storage.metered import Meter, MeteredBackend
from pra_agent.storage.retrying import RetryingBackend, RetryPolicy
from pra_agent.storage.s3.backend import S3Backend
from pra_agent.storage.settings import TimeoutSettings
from tests.support.http_faults import FaultyHttpProxy, Http
from tests.support.process import wait_until
from tests.support.s3 import S3Server
from tests.support.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.s3, pytest.mark.xdist_group("s3")]

TIMEOUTS = {"connect": "5s", "read": "5s"}
QUICK = RetryPolicy(tries=40, first_wait=0.01, longest_wait=0.1)


class Line:
    """A bucket of versitygw, reached at another endpoint; and reached directly, as the truth."""

    def __init__(self, server: S3Server, endpoint: str) -> None:
        bucket = server.new_bucket()
        self.settings = settings = server.settings(bucket, endpoint=endpoint, timeouts=TIMEOUTS)
        self.meter = Meter()
        self.bare = S3Backend(settings, SystemClock())
        self.backend: Backend = RetryingBackend(
            MeteredBackend(self.bare, self.meter), SystemClock(), policy=QUICK, on_retry=self.meter.retry
        )
        self.truth = S3Backend(server.settings(bucket), SystemClock())

    def store(self, size: int = 1000, kind: Kind = Kind.DATA) -> tuple[Handle, bytes]:
        data = secrets.token_bytes(size)
        handle = Handle(kind, hashlib.sha256(data).hexdigest())
        self.truth.put(handle, data)
        return handle, data

    def close(self) -> None:
        self.backend.close()
        self.truth.close()


def new(size: int = 1000) -> tuple[Handle, bytes]:
    data = secrets.token_bytes(size)
    return Handle(Kind.DATA, hashlib.sha256(data).hexdigest()), data


@pytest.fixture
def tcp(versitygw: S3Server, toxiproxy: Toxiproxy) -> Iterator[tuple[Line, Proxy]]:
    proxy = toxiproxy.before(int(versitygw.endpoint.rpartition(":")[2]))
    line = Line(versitygw, f"http://127.0.0.1:{proxy.port}")
    yield line, proxy
    line.close()
    proxy.heal()


@contextmanager
def http(server: S3Server, decide: Callable[[str, str], Http]) -> Iterator[tuple[Line, FaultyHttpProxy]]:
    with FaultyHttpProxy(int(server.endpoint.rpartition(":")[2]), decide) as proxy:
        line = Line(server, proxy.endpoint)
        try:
            yield line, proxy
        finally:
            line.close()


def first(times: int, what: Http, method: str = "PUT") -> Callable[[str, str], Http]:
    """The fault for the first so many requests of a method, then none."""
    counter = itertools.count()
    return lambda asked, _path: what if asked == method and next(counter) < times else Http.PASS


def test_latency_is_borne(tcp):
    line, proxy = tcp
    proxy.add("latency", latency=300, jitter=100)
    handle, data = new()
    line.backend.put(handle, data)
    assert line.backend.get(handle) == data
    assert line.meter.reading().retries == 0


def test_a_thin_line_is_borne_as_long_as_bytes_come(tcp):
    line, proxy = tcp
    proxy.add("bandwidth", rate=500)
    proxy.add("bandwidth", rate=500, stream="upstream")
    handle, data = new(700_000)
    line.backend.put(handle, data)
    assert line.backend.get(handle) == data
    assert line.meter.reading().retries == 0


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_silence_ends_in_time(tcp, stream):
    line, proxy = tcp
    handle, _ = line.store()
    impatient = line.settings.model_copy(update={"timeouts": TimeoutSettings(read=timedelta(seconds=0.5))})
    bare = S3Backend(impatient, SystemClock())
    proxy.add("timeout", timeout=0, stream=stream)
    with pytest.raises(TransientStorageError):
        bare.get(handle)
    with pytest.raises(TransientStorageError):
        bare.put(*new())
    with pytest.raises(TransientStorageError):
        list(bare.list(Kind.DATA))
    bare.close()


def test_a_reset_is_transient_and_nothing_is_half_there(tcp):
    line, proxy = tcp
    handle, data = new(3_000_000)
    proxy.add("reset_peer", timeout=5, stream="upstream")
    with pytest.raises(TransientStorageError):
        line.bare.put(handle, data)
    with pytest.raises(NotFound):
        line.truth.get(handle)
    proxy.heal()
    line.backend.put(handle, data)
    assert line.truth.get(handle) == data


def test_an_answer_that_ends_in_the_middle_is_transient(tcp):
    line, proxy = tcp
    handle, data = line.store(100_000)
    proxy.add("limit_data", bytes=20_000)
    with pytest.raises(TransientStorageError):
        line.bare.get(handle)
    with pytest.raises(TransientStorageError):
        line.bare.get(handle, 1000, 90_000)
    proxy.heal()
    assert line.backend.get(handle) == data


def test_a_listing_that_ends_in_the_middle_is_never_taken_for_the_whole(tcp):
    line, proxy = tcp
    handles = {line.store(10)[0] for _ in range(40)}
    proxy.add("limit_data", bytes=4000)
    with pytest.raises(TransientStorageError):
        list(line.bare.list(Kind.DATA))
    proxy.heal()
    assert {info.handle for info in line.backend.list(Kind.DATA)} == handles


def test_a_server_that_comes_back_is_waited_for(tcp):
    line, proxy = tcp
    handle, data = new()
    proxy.close()
    with pytest.raises(TransientStorageError):
        line.bare.put(handle, data)
    with ThreadPoolExecutor(1) as pool:
        stored = pool.submit(line.backend.put, handle, data)
        wait_until(lambda: line.meter.reading().retries > 0, "a retry")
        proxy.heal()
        stored.result(30)
    assert line.truth.get(handle) == data


def test_a_server_that_stays_away_is_given_up(tcp):
    line, proxy = tcp
    proxy.close()
    with pytest.raises(TransientStorageError) as caught:
        line.backend.put(*new())
    assert line.meter.reading().retries == QUICK.tries - 1
    assert line.meter.reading().requests["put", "transient"] == QUICK.tries
    assert caught.value.advice


def test_throttling_of_a_third_of_all_requests_ends_well(versitygw):
    rng = random.Random(1)

    def decide(method: str, path: str) -> Http:
        return rng.choice([Http.SLOW_DOWN, Http.INTERNAL]) if rng.random() < 0.3 else Http.PASS

    with http(versitygw, decide) as (line, proxy):
        objects = dict(new() for _ in range(60))
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(line.backend.put, objects.keys(), objects.values()))
            assert list(pool.map(line.backend.get, objects)) == list(objects.values())
        assert {info.handle for info in line.backend.list(Kind.DATA)} == set(objects)
        for handle in list(objects)[:20]:
            line.backend.delete(handle)
        assert {info.handle for info in line.truth.list(Kind.DATA)} == set(list(objects)[20:])
        reading = line.meter.reading()
        bad = proxy.done[Http.SLOW_DOWN] + proxy.done[Http.INTERNAL]
        assert reading.retries == bad > 20
        assert (
            sum(number for (_, code), number in reading.requests.items() if code == "throttled")
            == (proxy.done[Http.SLOW_DOWN])
        )
        assert reading.bytes_sent == reading.bytes_received == 60_000


def test_slow_down_is_told_from_other_trouble(versitygw):
    with http(versitygw, first(1, Http.SLOW_DOWN)) as (line, _), pytest.raises(Throttled):
        line.bare.put(*new())


def test_a_put_that_was_not_done_is_done_again(versitygw):
    with http(versitygw, first(3, Http.HANG_UP)) as (line, proxy):
        handle, data = new()
        line.backend.put(handle, data)
        assert line.truth.get(handle) == data
        assert proxy.done[Http.HANG_UP] == line.meter.reading().retries == 3


def test_a_put_whose_answer_was_lost_is_looked_up_and_not_sent_again(versitygw):
    with http(versitygw, first(1, Http.LOSE_ANSWER)) as (line, proxy):
        handle, data = new(3_000_000)
        line.backend.put(handle, data)
        assert line.truth.get(handle) == data
        assert proxy.done[Http.LOSE_ANSWER] == 1
        assert line.meter.reading().retries == 0


def test_a_412_after_a_lost_answer_is_a_success(versitygw):
    lost = {"PUT": Http.LOSE_ANSWER, "HEAD": Http.HANG_UP}  # each for the first of its kind
    with http(versitygw, lambda method, _path: lost.pop(method, Http.PASS)) as (line, _):
        handle, data = new()
        line.backend.put(handle, data)
        assert line.truth.get(handle) == data
        assert line.meter.reading().retries == 1


@pytest.mark.parametrize("size", [1000, 17_000_000])
def test_what_is_there_already_is_not_stored_again(versitygw, size):
    line = Line(versitygw, versitygw.endpoint)
    handle, data = new(size)
    line.backend.put(handle, data)
    line.backend.put(handle, data)
    assert line.meter.reading().retries == 0
    line.close()


def test_a_lost_answer_does_not_hide_that_another_object_is_there(versitygw):
    with http(versitygw, first(1, Http.LOSE_ANSWER)) as (line, _):
        handle, data = new()
        line.truth.ask("plant", "", lambda s3: s3.put_object(
            Bucket=line.truth.location.split("/")[2], Key=f"backups/web-1/{handle.path}", Body=b"x" * len(data)
        ))  # fmt: skip
        with pytest.raises(AlreadyExists):
            line.backend.put(handle, data)


@pytest.mark.parametrize("fault", [Http.LOSE_ANSWER, Http.HALF_ANSWER])
def test_a_read_whose_answer_was_lost_is_asked_again(versitygw, fault):
    with http(versitygw, first(2, fault, "GET")) as (line, _):
        handle, data = line.store(50_000)
        assert line.backend.get(handle) == data
        assert line.meter.reading().retries == 2


def test_a_delete_whose_answer_was_lost_is_a_success(versitygw):
    with http(versitygw, first(1, Http.LOSE_ANSWER, "DELETE")) as (line, _):
        handle, _ = line.store()
        line.backend.delete(handle)
        with pytest.raises(NotFound):
            line.truth.get(handle)
        with pytest.raises(NotFound):
            line.backend.delete(handle)


def test_bytes_that_changed_on_the_way_are_refused_by_the_store(versitygw):
    line = Line(versitygw, versitygw.endpoint)
    handle, data = new()
    with pytest.raises(DamagedError):
        line.backend.put(handle, data[:-1] + b"?")
    with pytest.raises(NotFound):
        line.truth.get(handle)
    line.close()
