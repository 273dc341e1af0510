"""Waiting for a server that has stopped answering.

boto3 gives up after some attempts, within half a minute. A server that is restarted, or moved to another machine, is
away for minutes; a run that has worked for days should still be there when it comes back.
"""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from kindling_storage.s3.errors import Address, found_in, is_transient

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SECONDS = 600.0
"""How long each request goes on trying."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts, at most: training must not wait long once the server is back."""

_FIRST_FAILURE = "kindling_first_failure"


class Patience:
    """Makes a client's requests go on trying, and knows what they wait for."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._since: datetime | None = None
        self._found = ""

    @property
    def trouble(self) -> str:
        """See `ObjectStore.trouble`."""
        with self._lock:
            since = self._since
            return "" if since is None else f"waiting for {self._address} since {since:%H:%M:%S} UTC: {self._found}"

    def watch_over(self, client: S3Client) -> None:
        """Have the first say in each request's retries; boto3 still decides on errors other than these."""
        events = client.meta.events
        events.register_first("needs-retry.s3", self._pause, unique_id="kindling-patience")  # type: ignore[arg-type]

    def _pause(
        self,
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
            self._note("")
            return None
        first: float = request_dict["context"].setdefault(_FIRST_FAILURE, time.monotonic())
        if time.monotonic() - first > SECONDS:
            return None
        self._note(found_in(failure))
        return random.uniform(0.5, 1.0) * min(0.25 * 2.0**attempts, LONGEST_PAUSE)

    def _note(self, found: str) -> None:
        with self._lock:
            self._since = (self._since or datetime.now(UTC)) if found else None
            self._found = found


def _refusal(response: tuple[Any, dict[str, Any]] | None) -> ClientError | None:
    """The error in a server's answer, if it is one."""
    return ClientError(response[1], "") if response is not None and "Error" in response[1] else None  # type: ignore[arg-type]
