"""How the error of one training process reaches the launcher: as a file, since an exit code says too little."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kindling_api.base import canonical_json
from kindling_api.errors import EXIT_OURS, EXIT_USER, KindlingError, UserError
from kindling_api.v1alpha1.status import Failure

LONGEST_MESSAGE = 2048  # of `Failure.message`


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
        sys.exit(failure.exit_code)


def describe(error: Exception, rank: int | None = None, attempt: int = 1) -> Failure:
    """The error as a failure document."""
    user = isinstance(error, UserError)
    memory = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    message = str(error) if isinstance(error, KindlingError) else f"{type(error).__name__}: {error}"
    return Failure(
        reason="UserError" if user else "OutOfMemory" if memory else "InternalError",
        message=message[:LONGEST_MESSAGE],
        attempt=attempt,
        rank=rank,
        exit_code=EXIT_USER if user else EXIT_OURS,
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
