"""Waiting for a server that has stopped answering, or refuses what it granted before.

boto3 gives up after some attempts, within half a minute. A server that is restarted, or moved to another machine, is
away for minutes; a key that was changed, or a right that was lost by mistake, comes back as a rule. A run that has
worked for days should still be there then.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from kindling_storage.outage import note_outage, note_recovery
from kindling_storage.s3.errors import Address, found_in, is_granted, is_transient, is_withdrawn

if TYPE_CHECKING:
    from botocore.model import OperationModel
    from mypy_boto3_s3.client import S3Client

SECONDS = 600.0
"""How long each request goes on trying where the server does not answer."""
REFUSED_SECONDS = 180.0
"""The same where it refuses: kubelet brings a changed Secret into running pods within two minutes."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts, at most: training must not wait long once the server is back."""

_FIRST_FAILURE = "kindling_first_failure"
_REGION = "HeadBucket"
"""Where an answer might mean that the bucket is in another region, botocore itself asks after that, once more."""


def keep_retrying(client: S3Client, address: Address, granted: set[str], *, renewable: bool) -> None:
    """Make the client's requests go on trying; what they wait for is told to `outage`.

    boto3 still decides on errors other than these. Each new try is signed anew, with the credentials as they are then.

    Args:
        granted: as in `is_withdrawn`; operations are added as the server grants them.
        renewable: likewise.
    """

    def pause(
        response: tuple[Any, dict[str, Any]] | None,
        attempts: int,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        operation: OperationModel,
        **_: object,
    ) -> float | None:
        """Seconds until the request is sent again; None where that is not for us to say.

        botocore calls this after each attempt, whatever came of it; the request's own dictionary outlives them all.
        """
        if operation.name == _REGION:
            return None
        failure = caught_exception or _error_in(response, operation.name)
        away = failure is not None and is_transient(failure)
        if is_granted(failure):
            granted.add(operation.name)
        if failure is None or not (away or is_withdrawn(failure, granted, renewable=renewable)):
            note_recovery(str(address))
            return None
        first: dict[bool, float] = request_dict["context"].setdefault(_FIRST_FAILURE, {})
        if time.monotonic() - first.setdefault(away, time.monotonic()) > (SECONDS if away else REFUSED_SECONDS):
            note_recovery(str(address))  # nobody waits any more
            return None
        met = "no answer" if away else "a refusal"
        said = f"waiting for {address} since {datetime.now(UTC):%H:%M:%S} UTC: {found_in(failure)}"
        note_outage(str(address), met, said)
        return random.uniform(0.5, 1.0) * min(0.25 * 2.0**attempts, LONGEST_PAUSE)

    events = client.meta.events
    events.register_first("needs-retry.s3", pause, unique_id="kindling-retry")  # type: ignore[arg-type]


def _error_in(response: tuple[Any, dict[str, Any]] | None, operation: str) -> ClientError | None:
    """The error in a server's answer, if it is one."""
    return ClientError(response[1], operation) if response is not None and "Error" in response[1] else None  # type: ignore[arg-type]
