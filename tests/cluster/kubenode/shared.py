"""What the processes of one run of tests have in common, and how they keep out of each other's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kubenode.processes import alone

TESTS, QUEUE = "tests", "tests-queue"


@contextmanager
def turn(*, serial: bool) -> Iterator[None]:
    """A test runs beside others, or after those that run, while no other one begins: whoever asks first is first."""
    with ExitStack() as held:
        with alone(QUEUE):
            held.enter_context(alone(TESTS, but_for_each_other=not serial))
        yield


@contextmanager
def shared(folder: Path, name: str, make: Callable[[], str], end: Callable[[str], object]) -> Iterator[str]:
    """What one process has made for all that share a folder; the last one that has it ends it.

    Args:
        make: makes it, and returns what the others need in order to find it.
    """
    users, made, lock = (folder / f"{name}.{part}" for part in ("users", "made", "lock"))
    with alone(lock):
        count = int(users.read_text()) if users.exists() else 0
        if count == 0:
            made.write_text(make())
        users.write_text(str(count + 1))
        found = made.read_text()
    try:
        yield found
    finally:
        with alone(lock):
            count = int(users.read_text()) - 1
            users.write_text(str(count))
            if count == 0:
                end(found)
