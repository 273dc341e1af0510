"""An alignment that is ready for its first step, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_trainer.align.method import prepare
from kindling_trainer.loop.restore import restore
from kindling_trainer.loop.setup import Setup
from kindling_trainer.parallel.mesh import join


def ready(path: Path) -> Setup:
    """The parts of the run in a run file, restored."""
    run = read_run_file(path)
    assert isinstance(run, AlignmentRunFile)
    setup = prepare(run, join(run.spec.layout(), run.spec.resources))
    restore(setup)
    return setup


def uninterrupted(items: Iterable[Any]) -> Iterator[Any]:
    """All of them: nobody asks to stop."""
    yield from items
