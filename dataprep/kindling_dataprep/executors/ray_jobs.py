"""Jobs of a Ray cluster, through the REST API of its head (Ray's documentation: "Ray Jobs REST API").

Every request is bounded in time, and repeated while the head does not answer: a network may break, and a machine may
die without closing connections.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from kindling_api.errors import KindlingError, explain

REQUEST_SECONDS = 15
RETRY_SECONDS = 60.0
"""How long the head may stay away before it counts as lost."""
PAUSE_SECONDS = 2.0
"""Between two requests."""

_ANSWER_SHOWN = 300


@dataclass(frozen=True)
class JobState:
    """How a job is."""

    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str
    """What Ray says of it; for a job that failed, with the end of its log."""
    exit_code: int | None
    """Exit code of the job's process, once that has ended."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class RayJobs:
    """The jobs of one cluster.

    All methods raise KindlingError where the head stays away or refuses.

    Args:
        address: Of the head's dashboard, as in `http://raycluster-head-svc:8265`.
        token: What RAY_AUTH_TOKEN holds, if the cluster asks for one.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self._address = address if "://" in address else f"http://{address}"
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def find(self, job: str) -> JobState | None:
        """The state of a job; None where there is no such job."""
        answer = self._request("GET", job, missing_is_fine=True)
        if answer is None:
            return None
        return JobState(answer["status"], answer.get("message") or "", answer.get("driver_exit_code"))

    def submit(self, job: str, command: str) -> None:
        """Starts `command` on the head as the job of that name; one that is there already is left as it is."""
        document = {"entrypoint": command, "submission_id": job}
        deadline = time.monotonic() + RETRY_SECONDS
        while self.find(job) is None:
            try:
                self._request("POST", "", document)
            except _Refused:  # a head that has just started may not take jobs yet; or somebody else was faster
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_SECONDS)

    def log(self, job: str) -> str:
        """All that the job's process has written so far; nothing before it has been started."""
        answer = self._request("GET", f"{job}/logs", missing_is_fine=True)
        return "" if answer is None else str(answer["logs"])

    def stop(self, job: str) -> None:
        """Sends SIGTERM to the job's processes, and SIGKILL three seconds later; returns at once."""
        self._request("POST", f"{job}/stop", {}, retry_seconds=PAUSE_SECONDS)

    def _request(
        self,
        method: str,
        path: str,
        document: dict[str, Any] | None = None,
        *,
        missing_is_fine: bool = False,
        retry_seconds: float | None = None,
    ) -> dict[str, Any] | None:
        """The answer; None for "not found" where that is fine. Tries for so many seconds (PATIENCE_SECONDS)."""
        data = None if document is None else json.dumps(document).encode()
        request = Request(f"{self._address}/api/jobs/{path}", data, self._headers, method=method)
        deadline = time.monotonic() + (RETRY_SECONDS if retry_seconds is None else retry_seconds)
        while True:
            try:
                with urlopen(request, timeout=REQUEST_SECONDS) as answer:
                    found = json.load(answer)
                assert isinstance(found, dict)
                return found
            except HTTPError as error:
                if error.code == 404 and missing_is_fine:
                    return None
                if error.code < 500 or method != "GET" or time.monotonic() > deadline:
                    raise self._refused(error) from error
            except (OSError, HTTPException, ValueError) as error:  # no connection, or half an answer
                if time.monotonic() > deadline:
                    raise self._lost(error) from error
            time.sleep(PAUSE_SECONDS)

    def _refused(self, error: HTTPError) -> KindlingError:
        said = error.read().decode(errors="replace").strip()
        found = f"HTTP {error.code} ({said[-_ANSWER_SHOWN:]})"
        if error.code in (401, 403):
            remedy = "set RAY_AUTH_MODE and RAY_AUTH_TOKEN to what the cluster was started with"
            return KindlingError(explain(self._address, found=found, allowed="the cluster's token", remedy=remedy))
        remedy = "see the log of the Ray head's pod"
        return _Refused(explain(self._address, found=found, allowed="a Ray head that takes jobs", remedy=remedy))

    def _lost(self, error: Exception) -> KindlingError:
        found = f"no answer for {RETRY_SECONDS:.0f} s ({error})"
        remedy = "see why the Ray head's pod ended (memory, eviction, a lost node); finished parts are kept"
        return KindlingError(explain(self._address, found=found, allowed="a Ray head that answers", remedy=remedy))


class _Refused(KindlingError):
    """The head answered, and did not do it."""
