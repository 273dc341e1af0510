"""What can be wrong with a record, and the row of the ledger that says so.

One damaged record must not cost the records around it, and no input may take more memory than its records are allowed.
Whatever cannot be read comes in its place as a Removal by `badRecord`, whose measure, one of FAULTS, says what failed.
"""

from __future__ import annotations

from kindling_dataprep.records import BAD_RECORD, NO_PAGE, Document, InputFile, Removal, excerpt_of

MAX_RECORD_BYTES = 16 * 2**20
"""Larger records are not read: while a document is measured it takes many times its size in memory."""

MOST_UNPACKED = 200
"""Times its size that a compressed file may unpack to; text packs to a tenth, or a fiftieth where it repeats itself."""

MOST_NESTED = 1000
"""HTML elements within each other; browsers stop at 512, and extracting text takes time by the square of it."""

FAULTS = {
    "binary": "no text",
    "bytes": "too large",
    "json": "no JSON",
    "textField": "no string in its textField",
    "readable": "the file is damaged from here on",
    "unpacked": f"the file unpacks to more than {MOST_UNPACKED} times its size",
    "http": "no HTTP message that can be decoded",
    "nesting": "HTML nested too deeply",
}
"""What the measure of a bad record means."""


class Bomb(OSError):
    """A compressed file unpacks to more than MOST_UNPACKED times its size."""


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


def broken(file: InputFile, number: int, error: Exception) -> Removal:
    """The rest of a file, or of a row group, that cannot be read further: it counts as one record."""
    if isinstance(error, Bomb):
        return bad_record(file, number, "unpacked", str(error), threshold=float(MOST_UNPACKED))
    return bad_record(file, number, "readable", str(error))


def _id(file: InputFile, number: int) -> str:
    return f"{file.source}/{file.path}#{number}"
