"""What can be wrong with a record, and the row of the ledger that says so.

One damaged record must not cost the records around it, and no input may take more memory than its records are allowed.
Whatever cannot be read comes in its place as a Removal by `badRecord`, whose measure, one of FAULTS, says what failed.
"""

from __future__ import annotations

from dataclasses import replace

from kindling_dataprep.records import BAD_RECORD, NO_PAGE, Document, InputFile, Removal, excerpt_of
from kindling_storage.jsonl import MAX_RECORD_BYTES as MAX_RECORD_BYTES
from kindling_storage.jsonl import MOST_UNPACKED

MOST_NESTED = 1000
"""HTML elements within each other; browsers stop at 512, and extracting text takes time by the square of it."""

FAULTS = {
    "binary": "no text",
    "encoding": "neither UTF-8 nor another encoding that is recognised; iconv(1) converts it",
    "bytes": "too large",
    "json": "no JSON",
    "row": "another number of fields than the first row",
    "textField": "no string in its textField",
    "readable": "the file is damaged here",
    "unpacked": f"the file unpacks to more than {MOST_UNPACKED} times its size",
    "http": "no HTTP message that can be decoded",
    "nesting": "HTML nested too deeply",
}
"""What the measure of a bad record means."""


EXPLAINED_BY_EXCERPT = ("readable", "unpacked")
"""Faults of a file rather than of a record: the excerpt says what is wrong, and where."""


def document(file: InputFile, number: int, text: str, url: str = "") -> Document:
    """Record `number` of a file as a document."""
    return Document(_id(file, number), file.source, text, url)


def bad_record(
    file: InputFile, number: int, measure: str, excerpt: str | bytes, threshold: float | None = None
) -> Removal:
    """Record `number` of a file as what cannot be read, by the fault `measure`."""
    return Removal(
        id=_id(file, number),
        rule=BAD_RECORD,
        measure=measure,
        value=None,
        threshold=threshold,
        excerpt=excerpt_of(excerpt),
    )


def no_page(
    file: InputFile, number: int, measure: str, excerpt: str, value: float | None = None, threshold: float | None = None
) -> Removal:
    """Record `number` of an archive as one that is no page, by its `type`, or its `status` or `contentType`."""
    return Removal(
        id=_id(file, number),
        rule=NO_PAGE,
        measure=measure,
        value=value,
        threshold=threshold,
        excerpt=excerpt_of(excerpt),
    )


def too_large(file: InputFile, number: int, beginning: bytes) -> Removal:
    """A record that is not read for its size."""
    return bad_record(file, number, "bytes", beginning, threshold=float(MAX_RECORD_BYTES))


def broken(file: InputFile, number: int, measure: str, why: str, offset: int, unread: int) -> Removal:
    """A stretch of a file that cannot be read: it counts as one record, and by its bytes."""
    threshold = float(MOST_UNPACKED) if measure == "unpacked" else None
    excerpt = f"{why[:_WHY_CHARACTERS]} ({unread:,} bytes from byte {offset:,} on)"
    return replace(bad_record(file, number, measure, excerpt, threshold), offset=offset, unread=unread)


_WHY_CHARACTERS = 80


def _id(file: InputFile, number: int) -> str:
    return f"{file.source}/{file.name}#{number}"
