from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pra_agent.storage.settings import StorageLimits, StorageSettings


def settings(url: str = "s3://bucket-1/backups/web-1", **more: Any) -> StorageSettings:
    return StorageSettings.model_validate({"url": url, **more})


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket-1/backups/web-1", "bucket-1", "backups/web-1"),
        ("s3://bucket-1/backups/web-1/", "bucket-1", "backups/web-1"),
        ("s3://bucket-1", "bucket-1", ""),
        ("s3://bucket-1/", "bucket-1", ""),
    ],
)
def test_bucket_and_prefix(url, bucket, prefix):
    place = settings(url).s3
    assert place is not None
    assert (place.bucket, place.prefix) == (bucket, prefix)


def test_a_directory_is_no_bucket():
    assert settings("/srv/backup").s3 is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "backup"}, "absolute"),
        ({"url": "https://example.org/x"}, "absolute"),
        ({"url": "s3://Not_A_Bucket/x"}, "bucket"),
        ({"url": "s3:///x"}, "bucket"),
        ({"url": "s3://bucket-1/a//b"}, "empty part"),
        ({"url": "/srv", "region": "eu-west-3"}, "region is for s3"),
        ({"url": "/srv", "object_lock": {"retain": "30d"}}, "object_lock is for s3"),
        ({"object_lock": {"retain": "30d"}, "checksums": "off"}, "checksums"),
        ({"object_lock": {"retain": "0s"}}, "longer"),
        ({"object_lock": {"retain": "30d", "mode": "FOREVER"}}, "GOVERNANCE"),
        ({"sse": {"key_id": "alias/pra"}}, "aws:kms"),
        ({"credentials": {}}, "exactly one"),
        ({"credentials": {"file": "/a", "credential": "b"}}, "exactly one"),
        ({"storage_class": "DEEP_ARCHIVE"}, "STANDARD"),
        ({"limits": {"connections": 0}}, "greater"),
        ({"limits": {"daily": [{"hours": "8-18", "upload": "1MiB/s"}]}}, "08:00-18:00"),
        ({"limits": {"daily": [{"hours": "08:00-24:30"}]}}, "08:00-18:00"),
        ({"limits": {"zone": "Nowhere/Land"}}, "time zone"),
        ({"password": "x"}, "Extra"),
    ],
)
def test_what_cannot_be_is_refused(values, said):
    with pytest.raises(ValidationError, match=said):
        settings(**values)


def test_s3_survives_the_host_and_a_directory_does_not_unless_they_say():
    assert settings().survives_host
    assert not settings("/srv").survives_host
    assert settings("/srv", off_host=True).survives_host
    assert not settings(off_host=False).survives_host


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("08:00-18:00", [(8, 0), (17, 59)], [(7, 59), (18, 0)]),
        ("22:00-06:00", [(22, 0), (0, 0), (5, 59)], [(6, 0), (21, 59)]),
        ("18:00-24:00", [(18, 0), (23, 59)], [(0, 0), (17, 59)]),
    ],
)
def test_hours(hours, inside, outside):
    window = StorageLimits.model_validate({"daily": [{"hours": hours}]}).daily[0]
    assert all(time(*moment) in window.hours for moment in inside)
    assert not any(time(*moment) in window.hours for moment in outside)


def test_a_full_configuration():
    full = settings(
        region="eu-west-3",
        endpoint="https://s3.example.org",
        credentials={"file": "/etc/pra-agent/s3.ini"},
        sse={"mode": "aws:kms", "key_id": "alias/pra"},
        object_lock={"mode": "COMPLIANCE", "retain": "30d"},
        limits={"upload": "50MiB/s", "connections": 4},
    )
    assert full.credentials is not None
    assert full.credentials.file == Path("/etc/pra-agent/s3.ini")
    assert full.object_lock is not None
    assert full.object_lock.retain == timedelta(days=30)
    assert full.limits.upload == 50 * 1024 * 1024
