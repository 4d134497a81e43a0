"""What all tests share: quiet hypothesis, SIGINT as a terminal has it, short names for long parameters."""

import hashlib
import os
import signal

from hypothesis import HealthCheck, settings

#: Fixtures of the test bed's servers; each starts its server when a test first asks for it.
pytest_plugins = [
    "tests.support.docker_engine",
    "tests.support.databases",
    "tests.support.elasticsearch",
    "tests.support.cassandra",
    "tests.support.s3",
    "tests.support.radosgw",
    "tests.support.toxiproxy",
]

# A suite that was started in the background inherits an ignored SIGINT, and so would every agent it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_make_parametrize_id(val):
    """Name long values by size and checksum: an id that spells out megabytes chokes the runner."""
    if isinstance(val, (bytes, str)) and len(val) > 60:
        raw = val if isinstance(val, bytes) else val.encode("utf-8", "surrogatepass")
        return f"{type(val).__name__}-{len(raw)}-{hashlib.sha256(raw).hexdigest()[:8]}"
    return None
