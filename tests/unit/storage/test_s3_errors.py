import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from pra_agent.errors import AccessDenied, NotFound, StorageError, StorageFull, Throttled, TransientStorageError
from pra_agent.storage.s3.errors import translate


def answered(code: str, status: int, message: str = "text") -> ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")  # type: ignore[arg-type]  # as much of an answer as it takes


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, NotFound),
        ("404", 404, NotFound),
        ("NoSuchBucket", 404, NotFound),
        ("AccessDenied", 403, AccessDenied),
        ("403", 403, AccessDenied),
        ("InvalidAccessKeyId", 403, AccessDenied),
        ("SignatureDoesNotMatch", 403, AccessDenied),
        ("ExpiredToken", 400, AccessDenied),
        ("RequestTimeTooSkewed", 403, AccessDenied),
        ("KMS.AccessDeniedException", 403, AccessDenied),
        ("SlowDown", 503, Throttled),
        ("ServiceUnavailable", 503, Throttled),
        ("503", 503, Throttled),
        ("TooManyRequests", 429, Throttled),
        ("InternalError", 500, TransientStorageError),
        ("500", 500, TransientStorageError),
        ("502", 502, TransientStorageError),
        ("504", 504, TransientStorageError),
        ("RequestTimeout", 400, TransientStorageError),
        ("OperationAborted", 409, TransientStorageError),
        ("ConditionalRequestConflict", 409, TransientStorageError),
        ("BadDigest", 400, TransientStorageError),
        ("QuotaExceeded", 403, StorageFull),
        ("InsufficientStorage", 507, StorageFull),
        ("NotImplemented", 501, StorageError),
        ("InvalidRequest", 400, StorageError),
        ("PermanentRedirect", 301, StorageError),
    ],
)
def test_what_the_store_answers(code, status, kind):
    error = translate(answered(code, status), "put data/x in s3://b/p")
    assert type(error) is kind
    assert code in str(error)
    assert str(error).startswith("put data/x in s3://b/p: ")
    assert error.advice


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), TransientStorageError),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), TransientStorageError),
        (boto.ReadTimeoutError(endpoint_url="http://x"), TransientStorageError),
        (boto.ConnectionClosedError(endpoint_url="http://x"), TransientStorageError),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), TransientStorageError),
        (boto.ResponseStreamingError(error="x"), TransientStorageError),
        (
            boto.SSLError(endpoint_url="http://x", error=OSError("EOF occurred in violation of protocol")),
            TransientStorageError,
        ),
        (boto.SSLError(endpoint_url="http://x", error=OSError("CERTIFICATE_VERIFY_FAILED")), StorageError),
        (ResponseParserError("half"), TransientStorageError),
        (boto.NoCredentialsError(), AccessDenied),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), AccessDenied),
        (boto.CredentialRetrievalError(provider="role", error_msg="x"), TransientStorageError),
        (boto.ParamValidationError(report="x"), StorageError),
    ],
)
def test_what_happens_on_the_way(error, kind):
    assert type(translate(error, "get x")) is kind


def test_a_message_is_one_short_line():
    error = translate(answered("InvalidRequest", 400, "a\nb\n" + "c" * 10_000), "get x")
    assert "\n" not in str(error)
    assert len(str(error)) < 400
