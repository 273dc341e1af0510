"""The files of an alignment's data, and what of them is held out. Torch-free, so that a launcher can look at them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kindling_api.base import Digest, key_of
from kindling_api.v1alpha1.products import FileEntry
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_storage import open_store
from kindling_storage.globs import OpenStore
from kindling_trainer.align.builtin import PYTHON_DOCSTRINGS
from kindling_trainer.align.read import Source, open_sources
from kindling_trainer.data.order import shuffled


def sources(run: AlignmentRunFile) -> list[Source]:
    """The data to learn from, opened.

    Raises:
        DataError: an entry names nothing that can be read.
        SpecError: a scheme that no store has.
    """
    return open_sources(run.spec.data, _opener(run))


def validation_sources(run: AlignmentRunFile) -> list[Source]:
    """The data that is held out, where the run has such data, opened.

    Raises:
        DataError, SpecError: as `sources`.
    """
    return open_sources(run.spec.validation.data, _opener(run), where="spec.validation.data")


def read_inputs(run: AlignmentRunFile) -> tuple[FileEntry, ...]:
    """The files that the run learns from, by URI, or by the name of what is built in.

    Raises:
        UserError: as `sources`.
    """
    return tuple(
        file.model_copy(
            update={"path": entry.uri if entry.uri == PYTHON_DOCSTRINGS else f"{source.store.uri}/{file.path}"}
        )
        for entry, source in zip(run.spec.data, sources(run), strict=True)
        for file in source.files
    )


def digest_of_inputs(inputs: Sequence[FileEntry]) -> Digest:
    """One digest for the files' contents, wherever they lie."""
    return key_of([file.digest for file in inputs])


def held_out(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Which of `count` records are learnt, and which, drawn by `seed`, are not: at least one, where there are two."""
    drawn = set(shuffled(0, max(1, round(count * fraction)), count, seed)) if fraction and count > 1 else set()
    return [number for number in range(count) if number not in drawn], sorted(drawn)


def _opener(run: AlignmentRunFile) -> OpenStore:
    return partial(open_store, endpoint=run.output.endpoint, region=run.output.region)
