import json

import pytest
from tests.support.faulty import Fault, FaultyBackend
from tests.support.memory import MemoryBackend

from pra_agent.errors import (
    AccessDenied,
    AlreadyExists,
    DamagedError,
    NotFound,
    StorageError,
    StorageFull,
    Throttled,
    TransientStorageError,
)
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.metered import Meter, MeteredBackend

A = Handle(Kind.DATA, "a" * 64)


def test_requests_and_bytes_are_counted():
    meter = Meter()
    backend = MeteredBackend(MemoryBackend(), meter)
    backend.create()
    backend.put(A, bytes(1000))
    backend.put(A, memoryview(bytes(1000)))
    backend.get(A)
    backend.get(A, 10, 100)
    backend.stat(A)
    assert len(list(backend.list(Kind.DATA))) == 1
    backend.delete(A)
    with pytest.raises(NotFound):
        backend.get(A)
    meter.retry()
    reading = meter.reading()
    assert (reading.bytes_sent, reading.bytes_received, reading.retries) == (2000, 1100, 1)
    assert reading.requests == {
        ("create", "ok"): 1,
        ("put", "ok"): 2,
        ("get", "ok"): 2,
        ("get", "not_found"): 1,
        ("stat", "ok"): 1,
        ("list", "ok"): 1,
        ("delete", "ok"): 1,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound, "not_found"),
        (AlreadyExists, "exists"),
        (AccessDenied, "denied"),
        (StorageFull, "full"),
        (Throttled, "throttled"),
        (TransientStorageError, "transient"),
        (DamagedError, "damaged"),
        (StorageError, "error"),
    ],
)
def test_every_error_has_its_code(error, code):
    meter = Meter()
    backend = MeteredBackend(FaultyBackend(MemoryBackend(), Fault(1, error=lambda: error("x"))), meter)
    with pytest.raises(error):
        backend.put(A, b"x")
    assert meter.reading().requests == {("put", code): 1}
    assert meter.reading().bytes_sent == 0


def test_a_reading_goes_into_a_record():
    meter = Meter()
    meter.request("put", "ok", sent=5)
    meter.request("put", "throttled")
    meter.request("get", "ok", received=7)
    detail = meter.reading().as_detail()
    assert json.loads(json.dumps(detail)) == {
        "requests": {"get": {"ok": 1}, "put": {"ok": 1, "throttled": 1}},
        "retries": 0,
        "bytes_sent": 5,
        "bytes_received": 7,
    }
