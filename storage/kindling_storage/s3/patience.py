"""Waiting for a server that has stopped answering.

boto3 gives up after some attempts, within half a minute. A server that is restarted, or moved to another machine, is
away for minutes; a run that has worked for days should still be there when it comes back.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from kindling_storage.s3.errors import Address, found_in, is_transient
from kindling_storage.trouble import note_end, note_trouble

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SECONDS = 600.0
"""How long each request goes on trying."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts, at most: training must not wait long once the server is back."""

_FIRST_FAILURE = "kindling_first_failure"


def be_patient(client: S3Client, address: Address) -> None:
    """Make the client's requests go on trying; what they wait for is told to `trouble`.

    boto3 still decides on errors other than these.
    """

    def pause(
        response: tuple[Any, dict[str, Any]] | None,
        attempts: int,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | None:
        """Seconds until the request is sent again; None where that is not for us to say.

        botocore calls this after each attempt, whatever came of it; the request's own dictionary outlives them all.
        """
        failure = caught_exception or _refusal(response)
        if failure is None or not is_transient(failure):
            note_end(str(address))
            return None
        first: float = request_dict["context"].setdefault(_FIRST_FAILURE, time.monotonic())
        if time.monotonic() - first > SECONDS:
            note_end(str(address))  # nobody waits any more
            return None
        note_trouble(str(address), f"waiting for {address} since {datetime.now(UTC):%H:%M:%S} UTC: {found_in(failure)}")
        return random.uniform(0.5, 1.0) * min(0.25 * 2.0**attempts, LONGEST_PAUSE)

    events = client.meta.events
    events.register_first("needs-retry.s3", pause, unique_id="kindling-patience")  # type: ignore[arg-type]


def _refusal(response: tuple[Any, dict[str, Any]] | None) -> ClientError | None:
    """The error in a server's answer, if it is one."""
    return ClientError(response[1], "") if response is not None and "Error" in response[1] else None  # type: ignore[arg-type]
