"""What flows through a build: a file to read, a span of its records, a document, and a document's removal.

They are plain and small because they cross process boundaries, and because the ledger is made of nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from kindling_api.v1alpha1.dataset_build import SourceFormat

EXCERPT_CHARACTERS = 200
"""How much of a removed document the ledger shows."""

BAD_RECORD = "badRecord"
"""The rule that removes what cannot be read."""

NO_PAGE = "noPage"
"""The rule that removes what an archive holds besides pages: requests, redirects, images."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file that a source named."""

    source: int
    """Position of the source in `spec.sources`."""
    uri: str
    """The store that holds it: a `file://` or `s3://` folder, or `builtin:python-stdlib`."""
    path: str
    """Within that store, with forward slashes; where the store lies on a machine is not part of it."""
    size: int
    """Bytes as stored."""
    digest: str
    """`sha256:…` of the bytes as stored."""
    format: SourceFormat
    """How it is read."""
    etag: str = ""
    """The store's; it changes whenever the file does. A copy elsewhere has another one, so no key depends on it."""

    @property
    def name(self) -> str:
        r"""The path as text: a byte of a local name that is no UTF-8 is shown as `\xe9`."""
        return self.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive records of one file. Where spans begin is decided by the file's bytes alone."""

    file: InputFile
    start: int
    """Where the first record begins: a byte, or, in Parquet, the number of a row group."""
    stop: int | None
    """Where the span ends, likewise; None for the end of the file."""
    first: int
    """Number of the first record."""
    size: int
    """Bytes to read; in Parquet, those of the texts unpacked."""

    @classmethod
    def whole(cls, file: InputFile) -> Self:
        """All of a file."""
        return cls(file, 0, None, 1, file.size)

    def joined(self, other: Span) -> Span | None:
        """Both as one span, where `other` follows this one in the same file."""
        if other.file == self.file and other.start == self.stop:
            return replace(self, stop=other.stop, size=self.size + other.size)
        return None


@dataclass(frozen=True, slots=True)
class Document:
    """One text on its way to becoming tokens."""

    id: str
    """`<source>/<relative path>#<record number>`; records count from 1, as editors count lines."""
    source: int
    """Position of the source in `spec.sources`."""
    text: str
    """Encodable as UTF-8: it holds no lone surrogate."""
    url: str = ""
    """Where the text was found, if the record says so."""


@dataclass(frozen=True, slots=True)
class LinesRemoved:
    """What a rule took out of a document that it did not remove: a row of the ledger of lines."""

    id: str
    """The document's id."""
    rule: str
    lines: int
    characters: int
    excerpt: str
    """The first of the lines, where the rule tells them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One document that does not stay, and why: a row of the ledger."""

    id: str
    """The document's id; for what could not be read, of the record that would have been one."""
    rule: str
    """BAD_RECORD, NO_PAGE, a filter's name as the spec spells it, `exact`, `minHash`, `lines`, `toxicity`, or
    `decontaminate`."""
    measure: str
    """What was measured."""
    value: float | None
    """What was found; None where the reason is no number."""
    threshold: float | None
    """The bound that the value broke."""
    kept: str | None = None
    """For a duplicate, the document that stays in its place."""
    offset: int | None = None
    """Of a bad record that cost bytes of its file: where in the file, as stored, they begin."""
    unread: int | None = None
    """How many they are; no byte of a file counts twice."""
    note: str = ""
    """What was found instead, for the message of a build that is refused."""
    excerpt: str
    """The beginning of the text, on one line."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A stretch of a file that was passed over, and cost nothing."""

    path: str
    offset: int
    """Where in the file, as stored, it begins."""
    size: int
    """In bytes."""
    what: str


def excerpt_of(text: str | bytes) -> str:
    """The first characters of a text on one line, undecodable bytes shown as U+FFFD."""
    beginning = text[: 4 * EXCERPT_CHARACTERS]
    if isinstance(beginning, bytes):
        beginning = beginning.decode("utf-8", errors="replace")
    return " ".join(beginning.split())[:EXCERPT_CHARACTERS]
