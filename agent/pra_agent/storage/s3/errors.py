"""What S3 and the network say, in the terms of the contract. No message carries a secret."""

from http import HTTPStatus

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from pra_agent.errors import (
    AccessDenied,
    NotFound,
    StorageError,
    StorageFull,
    Throttled,
    TransientStorageError,
)

_MISSING = {"NoSuchKey", "NoSuchVersion", "NotFound", "404"}
_DENIED = {
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidObjectState",
    "InvalidToken",
    "MethodNotAllowed",
    "ObjectLocked",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_FULL = {"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull", "EntityTooLarge"}
_THROTTLED = {
    "BandwidthLimitExceeded",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "503",
}
_PASSING = {
    "BadDigest",
    "ConditionalRequestConflict",
    "InternalError",
    "InternalFailure",
    "OperationAborted",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_NETWORK = (
    boto.ConnectionError,  # no name, no route, nobody there, no TLS
    boto.HTTPClientError,  # every failure to send or read
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    ResponseParserError,  # half an answer
    boto.CredentialRetrievalError,  # the instance's metadata did not answer
)
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
)


def code_of(error: boto.ClientError) -> str:
    """The error's name, such as NoSuchKey; the status as text when the answer had no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: boto.ClientError) -> int:
    """The HTTP status of the answer; 0 when it is not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def translate(error: Exception, what: str) -> StorageError:
    """Make the contract's error of boto3's; `what` says the operation, object and place."""
    if isinstance(error, boto.ClientError):
        return _answered(error, what)
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StorageError(f"{what}: the certificate does not verify", advice="Set ca: to the store's certificates.")
    if isinstance(error, _NETWORK):
        return TransientStorageError(f"{what}: {_one_line(error)}")
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(
            f"{what}: {_one_line(error)}", advice="Set repository.credentials, or give the host a role."
        )
    return StorageError(f"{what}: {_one_line(error)}")


def _answered(error: boto.ClientError, what: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    message = f"{what}: {code} {_one_line(error.response.get('Error', {}).get('Message') or '')}".rstrip()
    advice = _ADVICE.get(code)
    for names, statuses, kind in _KINDS:
        if code in names or status in statuses:
            return kind(message, advice=advice)
    return StorageError(message, advice=advice)


_KINDS: tuple[tuple[set[str], set[int], type[StorageError]], ...] = (
    # A skewed clock answers 403 as well, but it is not the credentials' fault: the advice says so.
    (_FULL, {HTTPStatus.INSUFFICIENT_STORAGE}, StorageFull),
    (_THROTTLED, {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}, Throttled),
    (
        _PASSING,
        {HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT},
        TransientStorageError,
    ),
    (_MISSING | {"NoSuchBucket"}, {HTTPStatus.NOT_FOUND}, NotFound),
    (_DENIED | {"RequestTimeTooSkewed"}, {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}, AccessDenied),
)
_ADVICE = {
    "NoSuchBucket": "Check the bucket's name and region; pra-agent does not create buckets.",
    "RequestTimeTooSkewed": "Set this host's clock right.",
    "NotImplemented": "The store lacks this; see repository.conditional and repository.checksums.",
    "PermanentRedirect": "Set repository.region to the bucket's region.",
}


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
