"""How the error of one training process reaches the launcher: as a file, since an exit code says too little."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kindling_api.base import canonical_json
from kindling_api.errors import EXIT_OURS, KindlingError
from kindling_api.v1alpha1.status import Failure, Reason, reason_of

LONGEST_MESSAGE = 2048  # of `Failure.message`

_OUT_OF_MEMORY = {"OutOfMemoryError", "MemoryError"}
_LOST_CONTACT = {"DistNetworkError", "DistStoreError"}
_LOST_CONTACT_WORDS = (
    "connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out waiting",
    "socket timeout", "failed to recv", "remote process exited", "ncclremoteerror",
)  # fmt: skip
"""What gloo, NCCL and TCPStore say, in lower case, when another process is gone."""


class LostContactError(Exception):
    """Other processes of the run did not come, or are gone; why, only they can tell."""


@contextmanager
def recorded_failure(folder: Path | None, rank: int, attempt: int) -> Iterator[None]:
    """Any error of the block is written to `folder`, said on stderr, and ends the process with its exit code."""
    try:
        yield
    except Exception as error:
        failure = describe(error, rank, attempt)
        if folder is not None:
            (folder / f"rank-{rank:05d}.json").write_bytes(canonical_json(failure.document()))
        if isinstance(error, KindlingError):
            print(error, file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        sys.exit(failure.exit_code or EXIT_OURS)


def describe(error: Exception, rank: int | None = None, attempt: int = 1) -> Failure:
    """The error as a failure document; see `is_secondary` for one that is not the cause."""
    lost = _is_lost_contact(error)
    message = str(error) if isinstance(error, KindlingError) else f"{type(error).__name__}: {error}"
    if lost:
        message = f"lost contact with other processes of the run, whose failure came first: {message}"
    return Failure(
        reason="RankFailed" if lost else _reason(error),
        message=message[:LONGEST_MESSAGE],
        attempt=attempt,
        rank=rank,
        exit_code=None if lost else error.exit_code if isinstance(error, KindlingError) else EXIT_OURS,
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def is_secondary(failure: Failure) -> bool:
    """Whether this failure only tells that other processes were lost: the cause is theirs to tell.

    It is RankFailed without exit code and signal, and so it is marked for the operator, too.
    """
    return failure.reason == "RankFailed" and failure.exit_code is None and failure.signal is None


def _reason(error: Exception) -> Reason:
    if isinstance(error, KindlingError):
        return reason_of(error)
    return "OutOfMemory" if type(error).__name__ in _OUT_OF_MEMORY else "InternalError"


def _is_lost_contact(error: Exception) -> bool:
    name, text = type(error).__name__, str(error).lower()
    if isinstance(error, LostContactError) or name in _LOST_CONTACT:
        return True
    from_torch = name == "DistBackendError" or type(error) is RuntimeError
    return from_torch and any(words in text for words in _LOST_CONTACT_WORDS)
