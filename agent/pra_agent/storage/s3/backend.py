"""A repository in an S3 bucket.

Every object is one PUT: it is there as a whole or not at all. The PUT carries the object's SHA-256, which is its name,
so the store refuses bytes that changed on the way; and `If-None-Match: *`, so that nothing is ever overwritten, which a
bucket policy can demand. Locks are the exception: they may be overwritten and are never under object lock.
"""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from pra_agent.clock import Clock
from pra_agent.errors import (
    AccessDenied,
    AlreadyExists,
    DamagedError,
    NotFound,
    StorageError,
    TransientStorageError,
    UsageError,
)
from pra_agent.storage.backend import Handle, Kind, ObjectInfo
from pra_agent.storage.names import is_name, require_name
from pra_agent.storage.s3.client import ClientSource
from pra_agent.storage.s3.errors import code_of, status_of, translate
from pra_agent.storage.settings import StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_Answer = TypeVar("_Answer")
_REFUSED_DIGEST = {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest"}


class S3Backend:
    """Objects below `prefix` of a bucket."""

    def __init__(self, settings: StorageSettings, clock: Clock) -> None:
        place = settings.s3
        if place is None:
            raise UsageError(f"{settings.url} is not in S3")
        self._settings = settings
        self._bucket = place.bucket
        self._prefix = f"{place.prefix}/" if place.prefix else ""
        self._clock = clock
        self._clients = ClientSource(settings)
        self._guard = threading.Lock()
        self._store_time: datetime | None = None

    @property
    def location(self) -> str:
        return self._settings.url

    @property
    def connections(self) -> int:
        return self._settings.limits.connections

    @property
    def off_host(self) -> bool:
        return self._settings.survives_host

    def create(self) -> None:
        """Ask whether the bucket is there and may be listed; it is made by other means."""
        prefix = self._prefix_of(Kind.KEY)
        self.ask("open", "", lambda s3: s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=1))

    def put(self, handle: Handle, data: bytes | memoryview) -> None:
        require_name(handle)
        body = bytes(data)
        if handle.kind is not Kind.LOCK and not self._settings.conditional and self._exists(handle):
            self._accept_equal(handle, body)
            return
        parameters = self._put_parameters(handle, body)
        try:
            self.ask("put", handle.path, lambda s3: s3.put_object(Body=body, **parameters), raw=True)
        except ClientError as error:
            if status_of(error) == HTTPStatus.PRECONDITION_FAILED:
                self._accept_equal(handle, body)
            elif code_of(error) in _REFUSED_DIGEST and not _is_named_by(handle, body):
                raise DamagedError(f"{self._what('put', handle.path)}: its bytes are not those of its name") from error
            else:
                raise translate(error, self._what("put", handle.path)) from error
        except TransientStorageError:
            # The answer was lost, or the store refused in mid-upload because the object is there, and hung up.
            if handle.kind is Kind.LOCK or not self._is_seen(handle):
                raise
            self._accept_equal(handle, body)

    def get(self, handle: Handle, offset: int = 0, length: int | None = None) -> bytes:
        require_name(handle)
        if length == 0:
            return self._nothing_at(handle, offset)
        parameters = self._address(handle)
        if offset or length is not None:
            parameters["Range"] = f"bytes={offset}-" if length is None else f"bytes={offset}-{offset + length - 1}"
        try:
            data = self.ask("get", handle.path, lambda s3: self._read(s3, parameters), raw=True)
        except ClientError as error:
            if status_of(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return self._nothing_at(handle, offset, length or 0)
            raise self._read_error(error, "get", handle) from error
        if length is not None and len(data) != length:
            raise DamagedError(
                f"{self._what('get', handle.path)}: {len(data)} bytes from {offset} on, asked for {length}"
            )
        return data

    def stat(self, handle: Handle) -> ObjectInfo:
        require_name(handle)
        address = self._address(handle)
        try:
            answer = self.ask("stat", handle.path, lambda s3: s3.head_object(**address), raw=True)
        except ClientError as error:
            raise self._read_error(error, "stat", handle) from error
        return ObjectInfo(handle, answer["ContentLength"], answer["LastModified"])

    def list(self, kind: Kind) -> Iterator[ObjectInfo]:
        parameters: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix_of(kind)}
        while True:
            page = self.ask("list", kind.value, lambda s3: s3.list_objects_v2(**parameters))
            for item in page.get("Contents", ()):
                handle = self.handle_of(kind, item.get("Key", ""))
                if handle is not None:
                    yield ObjectInfo(handle, item.get("Size", 0), item.get("LastModified"))
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return
            parameters["ContinuationToken"] = token

    def delete(self, handle: Handle) -> None:
        self.stat(handle)  # S3 answers success for what was never there
        self.ask("delete", handle.path, lambda s3: s3.delete_object(Bucket=self._bucket, Key=self._key(handle)))

    def store_time(self) -> datetime | None:
        with self._guard:
            return self._store_time

    def extend_retention(self, handle: Handle, until: datetime) -> None:
        lock = self._settings.object_lock
        if lock is None or handle.kind is Kind.LOCK:
            return
        require_name(handle)
        address = self._address(handle)
        head: Any = self.ask("stat", handle.path, lambda s3: s3.head_object(**address))
        held = head.get("ObjectLockRetainUntilDate")
        if held is not None and held >= until:
            return
        self.ask(
            "extend_retention",
            handle.path,
            lambda s3: s3.put_object_retention(
                **address,
                Retention={"Mode": head.get("ObjectLockMode", lock.mode), "RetainUntilDate": until},
            ),
        )

    def close(self) -> None:
        self._clients.close()

    def ask(self, operation: str, path: str, request: "Callable[[S3Client], _Answer]", *, raw: bool = False) -> _Answer:
        """Make one request; note the store's time, and translate what goes wrong (an answered error not when `raw`)."""
        try:
            answer = request(self._clients.get())
        except ClientError as error:
            self._note_time(error.response)
            if raw:
                raise
            raise translate(error, self._what(operation, path)) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise translate(error, self._what(operation, path)) from error
        self._note_time(answer)
        return answer

    def handle_of(self, kind: Kind, key: str) -> Handle | None:
        """The handle of a listed key; None for what is no object of ours."""
        name = "" if kind is Kind.CONFIG else key.rpartition("/")[2]
        handle = Handle(kind, name)
        good = kind is Kind.CONFIG or is_name(name)
        return handle if good and self._key(handle) == key else None

    def _prefix_of(self, kind: Kind) -> str:
        return self._prefix + (kind.value if kind is Kind.CONFIG else f"{kind.value}/")

    def _key(self, handle: Handle) -> str:
        return self._prefix + handle.path

    def _address(self, handle: Handle) -> dict[str, Any]:
        """What names the object in a request that reads it."""
        return {"Bucket": self._bucket, "Key": self._key(handle)}

    def _what(self, operation: str, path: str) -> str:
        return f"{operation} {path} in {self.location}".replace("  ", " ")

    def _note_time(self, answer: Any) -> None:  # noqa: ANN401 - each answer has its own type
        if not isinstance(answer, dict):
            return
        headers = cast("dict[str, Any]", answer).get("ResponseMetadata", {}).get("HTTPHeaders", {})
        try:
            told = parsedate_to_datetime(headers.get("date", ""))
        except ValueError:
            return
        with self._guard:
            self._store_time = told if told.tzinfo is not None else told.replace(tzinfo=UTC)

    def _read(self, s3: "S3Client", parameters: dict[str, Any]) -> bytes:
        answer = s3.get_object(**parameters)
        self._note_time(answer)
        with closing(answer["Body"]) as body:
            return body.read()

    def _read_error(self, error: ClientError, operation: str, handle: Handle) -> StorageError:
        """S3 denies what is not there to whoever may list only below a prefix; then a listing of that name tells."""
        translated = translate(error, self._what(operation, handle.path))
        if isinstance(translated, AccessDenied) and self._is_missing(handle):
            return NotFound(f"{self._what(operation, handle.path)}: not there")
        return translated

    def _is_missing(self, handle: Handle) -> bool:
        """Whether a listing, that must be allowed, does not have the object."""
        key = self._key(handle)
        parameters: dict[str, Any] = {"Bucket": self._bucket, "Prefix": key, "MaxKeys": 1}
        try:
            page = self.ask("list", handle.path, lambda s3: s3.list_objects_v2(**parameters))
        except StorageError:
            return False
        return all(item.get("Key") != key for item in page.get("Contents", ()))

    def _nothing_at(self, handle: Handle, offset: int, length: int = 0) -> bytes:
        """Answer a range that S3 has no notation for, or refuses: empty, or beyond the end."""
        size = self.stat(handle).size
        if offset + length > size:
            raise DamagedError(f"{self._what('get', handle.path)} ends at {size}, asked for {length} from {offset} on")
        return b""

    def _put_parameters(self, handle: Handle, body: bytes) -> dict[str, Any]:
        settings = self._settings
        parameters: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key(handle)}
        if settings.checksums == "sha256":
            parameters["ChecksumAlgorithm"] = "SHA256"  # asked for beside the checksum where there is an object lock
            parameters["ChecksumSHA256"] = base64.b64encode(_digest(handle, body)).decode()
        elif settings.checksums == "md5":
            parameters["ContentMD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if settings.sse is not None:
            parameters["ServerSideEncryption"] = settings.sse.mode
            if settings.sse.key_id is not None:
                parameters["SSEKMSKeyId"] = settings.sse.key_id
        if handle.kind is Kind.LOCK:
            return parameters
        if settings.conditional:
            parameters["IfNoneMatch"] = "*"
        if settings.object_lock is not None:
            # A host whose clock is behind must not ask for a date that is past.
            now = max(self._clock.now(), self.store_time() or self._clock.now())
            parameters["ObjectLockMode"] = settings.object_lock.mode
            parameters["ObjectLockRetainUntilDate"] = now + settings.object_lock.retain
        if settings.storage_class is not None and handle.kind is Kind.DATA:
            parameters["StorageClass"] = settings.storage_class
        return parameters

    def _exists(self, handle: Handle) -> bool:
        try:
            self.stat(handle)
        except NotFound:
            return False
        return True

    def _is_seen(self, handle: Handle) -> bool:
        """Whether the store, if it answers at all, has the object."""
        try:
            return self._exists(handle)
        except StorageError:
            return False

    def _accept_equal(self, handle: Handle, body: bytes) -> None:
        """An object of that name is there: fine if it is this one, as after an answer that was lost."""
        address = self._address(handle)
        if self._settings.checksums == "sha256":
            address["ChecksumMode"] = "ENABLED"
        try:
            head: Any = self.ask("stat", handle.path, lambda s3: s3.head_object(**address))
            stored = head.get("ChecksumSHA256")
            if head["ContentLength"] != len(body):
                equal = False
            elif stored is not None:
                equal = base64.b64decode(stored) == hashlib.sha256(body).digest()
            else:
                equal = self.get(handle) == body
        except NotFound as error:
            raise TransientStorageError(f"{self._what('put', handle.path)}: deleted meanwhile") from error
        if not equal:
            raise AlreadyExists(f"{self._what('put', handle.path)}: it exists with other content")


def _digest(handle: Handle, body: bytes) -> bytes:
    """The SHA-256 that the store is to check: the name was made of the bytes as they should be."""
    return bytes.fromhex(handle.name) if handle.name else hashlib.sha256(body).digest()


def _is_named_by(handle: Handle, body: bytes) -> bool:
    return handle.kind is Kind.CONFIG or hashlib.sha256(body).hexdigest() == handle.name
