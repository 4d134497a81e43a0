"""From settings to a backend that retries, keeps to its limits and counts."""

from datetime import datetime
from pathlib import Path

from pra_agent.clock import Clock
from pra_agent.errors import UsageError
from pra_agent.storage.backend import Backend
from pra_agent.storage.limited import LimitedBackend
from pra_agent.storage.local import LocalBackend
from pra_agent.storage.metered import Meter, MeteredBackend
from pra_agent.storage.readonly import ReadOnlyBackend
from pra_agent.storage.retrying import RetryingBackend, RetryPolicy
from pra_agent.storage.settings import StorageSettings


def open_backend(
    settings: StorageSettings, clock: Clock, *, meter: Meter | None = None, as_of: datetime | None = None
) -> Backend:
    """Make the backend of some settings; no request is made yet.

    `meter` counts requests, retries and bytes. `as_of` reads a versioned bucket as it was then, and nothing can be
    written. Raises `UsageError` when the store has no past.
    """
    meter = meter or Meter()
    backend: Backend = MeteredBackend(_bare(settings, clock, as_of), meter)
    limits = settings.limits
    if limits.upload or limits.download or limits.daily:
        backend = LimitedBackend(backend, limits, clock)
    policy = RetryPolicy(give_up=settings.timeouts.give_up.total_seconds())
    backend = RetryingBackend(backend, clock, policy=policy, on_retry=meter.retry)
    return backend if as_of is None else ReadOnlyBackend(backend)


def open_originals(settings: StorageSettings, clock: Clock) -> Backend | None:
    """Make a backend that knows what was written over in a versioned bucket (`S3OriginalsBackend`); None: no bucket."""
    if settings.s3 is None:
        return None
    from pra_agent.storage.s3.originals import S3OriginalsBackend  # noqa: PLC0415 - boto3 takes 0.2 s to import

    policy = RetryPolicy(give_up=settings.timeouts.give_up.total_seconds())
    return RetryingBackend(S3OriginalsBackend(settings, clock), clock, policy=policy)


def _bare(settings: StorageSettings, clock: Clock, as_of: datetime | None) -> Backend:
    if settings.s3 is None:
        if as_of is not None:
            raise UsageError(f"--as-of needs a versioned bucket, and {settings.url} is a directory")
        return LocalBackend(
            Path(settings.url),
            clock=clock,
            connections=settings.limits.connections,
            off_host=settings.survives_host,
        )
    if as_of is not None:
        from pra_agent.storage.s3.versions import S3PastBackend  # noqa: PLC0415 - boto3 takes 0.2 s to import

        return S3PastBackend(settings, clock, as_of)
    from pra_agent.storage.s3.backend import S3Backend  # noqa: PLC0415 - boto3 takes 0.2 s to import

    return S3Backend(settings, clock)
