"""What an S3 server or boto3 said, as an error that says what to change.

Only the server's error code and its one-sentence message are repeated, clipped: whatever else answers at an address
that a user wrote must not be carried into logs and statuses.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from kindling_api.errors import RefusedError, StorageError, UnreachableError, WithdrawnError, explain

FAILURES = (ClientError, BotoCoreError, ResponseParserError)
"""What boto3 raises: the server's answer, no answer, and an answer that is not S3's."""

Failure = ClientError | BotoCoreError | ResponseParserError | OSError
"""The same, and what the socket itself raises while an object is read."""

MISSING = {"404", "NoSuchKey", "NotFound"}
"""Codes for an object that does not exist; HEAD answers carry only the number."""

_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "IDPCommunicationError"}
_BUSY |= {"500", "502", "503", "504"}
"""Codes of a server that cannot serve now."""

_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "InvalidSecurity"}
"""Codes for a key that the server does not know, or no more."""

_RIGHT = {"AccessDenied", "403", "AllAccessDisabled", "AccountProblem"}
"""Codes for what may not be done with this key."""

_CARRIED_OUT = MISSING | {"PreconditionFailed", "412", "InvalidRange", "416", "ConditionalRequestConflict", "409"}
"""Codes of a server that would have done what was asked, had the objects been other ones."""

_TAKING_ON_A_ROLE = "AssumeRoleWithWebIdentity"
"""The operation by which a ServiceAccount's token becomes a key; its answer is that of the token service, not of S3."""

LISTING, _READING = "ListObjectsV2", {"GetObject", "HeadObject"}
"""Operations. Who may not list is not told, either, that an object is missing: reading it is forbidden to him."""

_NO_ANSWER = (BotoConnectionError, HTTPClientError, IncompleteReadError, OSError)

_SAID_CHARACTERS = 300


class NotS3Error(ResponseParserError):
    """Something answers at the address, and it is no S3 server; its page is not repeated."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"{what} (HTTP status {status})")


@dataclass(frozen=True)
class Address:
    """Which bucket, on which server."""

    bucket: str
    endpoint: str
    """As in `http://minio:9000`; `AWS` where the user gave none."""

    def __str__(self) -> str:
        return f"bucket {self.bucket!r} at {self.endpoint}"


def storage_error(error: Failure, address: Address, doing: str, *, withdrawn: bool = False) -> StorageError:
    """The error to raise for `error`, met while `doing`, as in `reading models/a/manifest.json`.

    Args:
        withdrawn: whether it refuses what was granted before; see `is_withdrawn`.
    """
    found, allowed, remedy = _server_said(error, address) if isinstance(error, ClientError) else _boto_said(error)
    kind: type[StorageError] = StorageError
    if is_transient(error):
        kind = UnreachableError
    elif refusal_of(error) is not None:
        kind = WithdrawnError if withdrawn else RefusedError
    return kind(explain(str(address), found=f"{found}, {doing}", allowed=allowed, remedy=remedy))


def is_transient(error: Exception) -> bool:
    """Whether the server did not answer, or cannot serve now: the same request may succeed later."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
        return code_of(error) in _BUSY or str(status) in _BUSY
    return isinstance(error, _NO_ANSWER)


def is_granted(error: Exception | None) -> bool:
    """Whether the server carried out what was asked (None), or would have, had the objects been other ones."""
    return error is None or (isinstance(error, ClientError) and code_of(error) in _CARRIED_OUT)


def refusal_of(error: Exception) -> Literal["key", "right"] | None:
    """Whether the server refused the key itself, or what was asked with it; None for anything else."""
    if not isinstance(error, ClientError):
        return None
    code = code_of(error)
    if error.operation_name == _TAKING_ON_A_ROLE and code not in _BUSY:
        return "key"
    if code in _KEY or (code == "400" and error.operation_name == "HeadObject"):  # which has no room for a code
        return "key"
    return "right" if code in _RIGHT else None


def is_withdrawn(error: Exception, granted: Collection[str], *, renewable: bool) -> bool:
    """Whether the server refuses what it granted before, so that it may be granted again without any change here.

    Args:
        granted: the operations that the server has carried out with these credentials, or would have.
        renewable: whether another key would be seen.
    """
    match refusal_of(error):
        case "key":
            return renewable and bool(granted)
        case "right":
            assert isinstance(error, ClientError)
            if error.operation_name in _READING:
                return LISTING in granted and not _READING.isdisjoint(granted)
            return error.operation_name in granted
        case _:
            return False


def found_in(error: Exception) -> str:
    """What was met, in a few words, as in `no answer (ReadTimeoutError)`."""
    return code_of(error) if isinstance(error, ClientError) else f"no answer ({type(error).__name__})"


def code_of(error: ClientError) -> str:
    """The server's error code, as in `NoSuchBucket`, or the HTTP status where it gave none."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return str(error.response.get("Error", {}).get("Code") or status)


def _server_said(error: ClientError, address: Address) -> tuple[str, str, str]:
    """Found, allowed, remedy."""
    code, message = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    found = f"{code} ({message[:_SAID_CHARACTERS]})" if message else code
    if error.operation_name == _TAKING_ON_A_ROLE and code not in _BUSY:
        return f"that the token service refuses AWS_ROLE_ARN: {found}", _TRUSTED, _TRUST
    for codes, allowed, remedy in _MEANINGS:
        if code in codes:
            return found, allowed, remedy.format(bucket=address.bucket)
    return found, "a request that the server takes", "see the server's log, or run the same command again later"


def _boto_said(error: BotoCoreError | ResponseParserError | OSError) -> tuple[str, str, str]:
    """Found, allowed, remedy."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        remedy = (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in a cluster: storage.credentialsSecret, or a "
            "ServiceAccount with a role), choose an existing AWS_PROFILE, or log in again"
        )
        return f"no usable credentials ({type(error).__name__})", "an access key and its secret", remedy
    if isinstance(error, _NO_ANSWER):
        remedy = "check storage.endpoint, that the server is up, and the network (name resolution, proxy, firewall)"
        return found_in(error), "an S3 server that answers", remedy
    if isinstance(error, ResponseParserError):
        remedy = "check storage.endpoint (its host, its port, http or https)"
        found = str(error) if isinstance(error, NotS3Error) else "an answer that is not S3's"
        return found, "an S3 server", remedy
    return (
        type(error).__name__,
        "a request that can be sent",
        f"check storage.uri, storage.endpoint and region: {error}",
    )


_TRUSTED = "a role that trusts the ServiceAccount's token"
_TRUST = (
    "let the role's trust policy name this ServiceAccount, the token's issuer and its audience (on EKS the annotation"
    " eks.amazonaws.com/role-arn), or give keys (storage.credentialsSecret)"
)

_MEANINGS: list[tuple[set[str], str, str]] = [
    (
        {"NoSuchBucket"},
        "a bucket that exists",
        "create it (`aws s3 mb s3://{bucket}`), or correct storage.uri",
    ),
    (
        {"400", "404", "405", "MethodNotAllowed"},
        "an S3 server that has this bucket",
        "check storage.endpoint (its host, its port, http or https) and storage.uri",
    ),
    (
        _KEY,
        "credentials that this server knows",
        "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or renew the session",
    ),
    (
        _RIGHT,
        "a user who may list, read, write and delete here",
        "grant s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject on its objects",
    ),
    (
        {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"},
        "the bucket's own region, which this request did not name",
        "set storage.region (or AWS_REGION) to the region that the server names",
    ),
    (
        {"RequestTimeTooSkewed"},
        "a clock within 15 minutes of the server's",
        "set this machine's clock (NTP)",
    ),
    (
        {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507"},
        "room in the store",
        "free some space or raise the quota, then run the same command again; finished work is kept",
    ),
    (
        _BUSY,
        "a server that keeps up",
        "run the same command again later; finished work is kept",
    ),
    (
        {"PreconditionFailed", "412"},
        "an object that stays as it is while it is read",
        "see who writes to this place, and run again",
    ),
]
