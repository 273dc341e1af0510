"""Reads labelled texts: CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kindling_api.errors import DataError, explain
from kindling_storage.jsonl import check_readable, read_objects
from kindling_toxicity.training.train import TOXIC, Examples

log = logging.getLogger(__name__)

_REMEDY = "correct the file, or name other fields with --text, --label and --toxic"


def read_examples(paths: Sequence[Path], *, text: str, label: str, toxic: Sequence[str]) -> Examples:
    """The examples in some files.

    Args:
        paths: `.csv` files with a header, `.jsonl` files otherwise.
        text: Field of the text.
        label: Field of the label.
        toxic: The labels that mean toxic; where empty, a label is a number from 0 to 1.

    Raises:
        DataError: a file cannot be read, or a record lacks a field or has a label that is none.
    """
    texts, labels = [], []
    for path in paths:
        for number, record in _records(path):
            where = f"{path}, record {number}"
            found = record.get(text)
            if not isinstance(found, str):
                raise DataError(explain(where, found=f"no text in {text!r}", allowed="a text", remedy=_REMEDY))
            texts.append(found.encode(errors="replace").decode())
            labels.append(_label(where, record.get(label), label, toxic))
    return Examples(texts, np.array(labels, dtype=np.float64))


def check_enough(examples: Examples, fewest: int) -> None:
    """Raises DataError where fewer than `fewest` texts are toxic, or harmless."""
    toxic = int((examples.labels >= TOXIC).sum())
    harmless = len(examples.texts) - toxic
    if min(toxic, harmless) < fewest:
        found, remedy = f"{toxic} toxic and {harmless} harmless texts", "give more examples of both classes"
        raise DataError(explain("the examples", found=found, allowed=f"at least {fewest} of each", remedy=remedy))


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The records of a file, counted from 1."""
    try:
        if path.suffix.lower() == ".csv":
            with open(path, newline="", encoding="utf-8") as file:
                yield from enumerate(csv.DictReader(file), 1)
        else:
            yield from _json_records(path)
    except (OSError, ValueError, csv.Error) as error:
        allowed = "a CSV file with a header, or JSON lines, in UTF-8"
        raise DataError(explain(str(path), found=str(error), allowed=allowed, remedy=_REMEDY)) from error


def _json_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    unreadable: list[DataError] = []
    readable = 0
    with open(path, "rb") as file:
        for number, record in read_objects(file, str(path), unreadable.append):
            readable += 1
            yield number, record
    check_readable(unreadable, readable + len(unreadable))
    if unreadable:
        log.warning("%d lines are left out: %s", len(unreadable), unreadable[0])


def _label(where: str, found: Any, field: str, toxic: Sequence[str]) -> float:
    if toxic and found is not None:
        return float(str(found) in toxic)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= 1:
        allowed = "a number from 0 to 1, or --toxic"
        raise DataError(explain(where, found=f"{found!r} in {field!r}", allowed=allowed, remedy=_REMEDY))
    return value
