import subprocess
import sys
from datetime import UTC, datetime

import pytest
from tests.support.clock import FakeClock

from pra_agent.errors import AccessDenied, UsageError
from pra_agent.storage.backend import Handle, Kind
from pra_agent.storage.metered import Meter
from pra_agent.storage.opening import open_backend
from pra_agent.storage.settings import StorageSettings


def settings(**more: object) -> StorageSettings:
    return StorageSettings.model_validate(more)


def test_a_directory_is_opened_with_its_decorators(tmp_path):
    clock, meter = FakeClock(), Meter()
    backend = open_backend(
        settings(url=str(tmp_path / "r"), off_host=True, limits={"upload": 100, "connections": 3}), clock, meter=meter
    )
    backend.create()
    backend.put(Handle(Kind.DATA, "a" * 64), bytes(1000))
    backend.put(Handle(Kind.DATA, "b" * 64), bytes(1))
    assert clock.monotonic() == pytest.approx(10.0)
    assert meter.reading().bytes_sent == 1001
    assert (backend.location, backend.connections, backend.off_host) == (str(tmp_path / "r"), 3, True)
    backend.close()


def test_a_bucket_is_opened_without_a_request(moto):
    backend = open_backend(moto.settings("never-made"), FakeClock())
    assert backend.location == "s3://never-made/backups/web-1"
    assert backend.off_host
    assert backend.store_time() is None
    backend.close()


def test_a_directory_has_no_past(tmp_path):
    with pytest.raises(UsageError, match="versioned"):
        open_backend(settings(url=str(tmp_path)), FakeClock(), as_of=datetime(2024, 5, 1, tzinfo=UTC))


def test_the_past_is_read_only(moto):
    bucket = moto.new_bucket(versioned=True)
    backend = open_backend(moto.settings(bucket), FakeClock(), as_of=datetime(2024, 5, 1, tzinfo=UTC))
    assert list(backend.list(Kind.SNAPSHOT)) == []
    with pytest.raises(AccessDenied):
        backend.put(Handle(Kind.CONFIG), b"x")
    assert "as of 2024-05-01" in backend.location
    backend.close()


def test_a_directory_does_not_cost_the_import_of_boto():
    code = "import sys, pra_agent.storage.opening; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
