"""The files of an alignment's data, and what of them is held out. Torch-free, so that a launcher can look at them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from kindling_api.base import Digest, key_of
from kindling_api.resolve import is_local
from kindling_api.v1alpha1.alignment_run import AlignmentData
from kindling_api.v1alpha1.products import FileEntry
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_storage import open_store
from kindling_storage.globs import OpenStore
from kindling_trainer.align.data.builtin import PYTHON_DOCSTRINGS
from kindling_trainer.align.data.read import DataSource, open_sources
from kindling_trainer.data.inputs import read_base
from kindling_trainer.data.order import shuffled


def with_contents(run: AlignmentRunFile) -> AlignmentRunFile:
    """The run, its key covering what its files hold: other dialogues under the same name are other work, and the same
    ones in another folder are not.

    Raises:
        UserError: a file or the base is missing.
    """
    base = read_base(run)
    held = {
        "key": run.key,
        "base": None if base is None else base.digest,
        "data": _listing(run.spec.data, sources(run)),
    }
    if run.spec.validation.data:
        held["validation"] = _listing(run.spec.validation.data, validation_sources(run))
    return run.model_copy(update={"key": key_of(held)})


def sources(run: AlignmentRunFile) -> list[DataSource]:
    """The data to learn from, opened.

    Raises:
        DataError: an entry names nothing that can be read.
        SpecError: a scheme that no store has.
    """
    return open_sources(run.spec.data, _opener(run))


def validation_sources(run: AlignmentRunFile) -> list[DataSource]:
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
        file.model_copy(update={"path": _place(entry, source, file)})
        for entry, source in zip(run.spec.data, sources(run), strict=True)
        for file in source.files
    )


def digest_of_inputs(inputs: Sequence[FileEntry]) -> Digest:
    """One digest for the files' contents, wherever they lie."""
    return key_of([file.digest for file in inputs])


def split_held_out(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Which of `count` records are trained on, and which are held out, drawn by `seed`: at least one of two or more."""
    drawn = set(shuffled(range(max(1, round(count * fraction))), count, seed)) if fraction and count > 1 else set()
    return [number for number in range(count) if number not in drawn], sorted(drawn)


def _listing(data: Sequence[AlignmentData], opened: Sequence[DataSource]) -> list[dict[str, Any]]:
    """What counts of files in a key: their content, and their place, which is no folder of a machine."""
    return [
        (file if is_local(entry.uri) else file.model_copy(update={"path": _place(entry, source, file)})).document()
        for entry, source in zip(data, opened, strict=True)
        for file in source.files
    ]


def _place(entry: AlignmentData, source: DataSource, file: FileEntry) -> str:
    return entry.uri if entry.uri == PYTHON_DOCSTRINGS else f"{source.store.uri}/{file.path}"


def _opener(run: AlignmentRunFile) -> OpenStore:
    return partial(open_store, endpoint=run.output.endpoint, region=run.output.region)
