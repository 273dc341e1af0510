"""Why a process ended: its error as a failure document, or what its exit code tells.

The error of a training process reaches its launcher as a file, since an exit code says too little.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kindling_api.base import canonical_json
from kindling_api.bounds import FAILURE_MESSAGE, PROGRESS_MESSAGE, clip
from kindling_api.errors import EXIT_OURS, EXIT_SIGNALLED, KindlingError
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import Failure, Reason, reason_of, refused_by
from kindling_runtime.signals import Stopped

_OUT_OF_MEMORY = {"OutOfMemoryError"}  # torch's
_LOST_CONTACT = {"DistNetworkError", "DistStoreError"}
_LOST_CONTACT_WORDS = (
    "connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out waiting",
    "socket timeout", "failed to recv", "remote process exited", "ncclremoteerror",
)  # fmt: skip
"""What gloo, NCCL and TCPStore say, in lower case, when another process is gone."""

log = logging.getLogger(__name__)


class FailedError(Exception):
    """The processes that did the work ended badly, and have said how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class LostContactError(Exception):
    """Other processes of the run did not come, or are gone; why, only they can tell."""


@contextmanager
def recorded_failure(folder: Path | None, rank: int, attempt: int) -> Iterator[None]:
    """Any error of the block is written to `folder`, logged, and ends the process with its exit code."""
    try:
        yield
    except Exception as error:
        failure = describe_rank(error, rank, attempt)
        if folder is not None:
            (folder / f"rank-{rank:05d}.json").write_bytes(canonical_json(failure.document()))
        log.error("%s", error, exc_info=None if isinstance(error, KindlingError) else error)
        sys.exit(failure.exit_code or EXIT_OURS)


def describe(error: BaseException) -> Failure:
    """The error that ends a process as a failure document."""
    if isinstance(error, FailedError):
        return error.failure
    if isinstance(error, Stopped):
        message = "Stopped. What is done is kept; run the same again to go on."
        return Failure(
            reason="SuspendedByUser",
            message=message,
            exit_code=EXIT_SIGNALLED + error.signal,
            signal=error.signal.name,
            time=_now(),
        )
    return Failure(
        reason=_reason(error),
        message=clip(_message(error), FAILURE_MESSAGE),
        exit_code=error.exit_code if isinstance(error, KindlingError) else EXIT_OURS,
        refused=refused_by(error),
        time=_now(),
    )


def describe_rank(error: Exception, rank: int, attempt: int) -> Failure:
    """The error of a training process; `is_secondary` tells those that are not the cause."""
    failure = describe(error)
    failure = failure.model_copy(update={"rank": rank if failure.rank is None else failure.rank, "attempt": attempt})
    if not _is_lost_contact(error):
        return failure
    message = f"lost contact with other processes of the run, whose failure came first: {_message(error)}"
    lost = {"reason": "RankFailed", "message": clip(message, FAILURE_MESSAGE), "exit_code": None}
    return failure.model_copy(update=lost)


def failed(failure: Failure) -> Progress:
    """The last word of a process that ends so."""
    return Progress(state="Failed", message=clip(failure.message, PROGRESS_MESSAGE), failure=failure)


def is_expected(error: BaseException) -> bool:
    """Whether the error says all by itself: its traceback would tell people nothing."""
    return isinstance(error, KindlingError | FailedError | Stopped | MemoryError)


def how_it_ended(what: str, code: int) -> str:
    """What is known of a process by its exit code as Python has it: negative for a signal."""
    name = signal_name(code)
    if name is None:
        return f"{what} ended with exit code {code}"
    return f"{what} was ended by {name}{', as the kernel does when memory runs out' if name == 'SIGKILL' else ''}"


def signal_name(code: int) -> str | None:
    """The signal that ended a process with this exit code; None if it ended by itself."""
    return signal.Signals(-code).name if code < 0 else None


def _message(error: BaseException) -> str:
    if isinstance(error, KindlingError):
        return str(error)
    if isinstance(error, MemoryError):
        return str(error) or "memory ran out"
    return f"{type(error).__name__}: {error}"


def _reason(error: BaseException) -> Reason:
    if isinstance(error, KindlingError):
        return reason_of(error)
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY
    return "OutOfMemory" if out_of_memory else "InternalError"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _is_lost_contact(error: Exception) -> bool:
    name, text = type(error).__name__, str(error).lower()
    if isinstance(error, LostContactError) or name in _LOST_CONTACT:
        return True
    from_torch = name == "DistBackendError" or type(error) is RuntimeError
    return from_torch and any(words in text for words in _LOST_CONTACT_WORDS)
