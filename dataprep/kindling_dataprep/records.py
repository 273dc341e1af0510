"""The three things that flow through a build: a file to read, a document, and a document's removal.

They are plain and small because they cross process boundaries, and because the ledger is made of nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.v1alpha1.dataset_build import SourceFormat

EXCERPT_CHARACTERS = 200
"""How much of a removed document the ledger shows."""

BAD_RECORD = "badRecord"
"""The rule that removes what cannot be read."""


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


@dataclass(frozen=True, slots=True)
class Document:
    """One text on its way to becoming tokens."""

    id: str
    """`<source>/<relative path>#<record number>`; records count from 1, as editors count lines."""
    source: int
    """Position of the source in `spec.sources`."""
    text: str
    """Encodable as UTF-8: it holds no lone surrogate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One document that does not stay, and why: a row of the ledger."""

    id: str
    """The document's id; for what could not be read, of the record that would have been one."""
    rule: str
    """BAD_RECORD, a filter's name as the spec spells it, `exact`, `minHash`, or `toxicity`."""
    measure: str
    """What was measured."""
    value: float | None
    """What was found; None where the reason is no number."""
    threshold: float | None
    """The bound that the value broke."""
    kept: str | None = None
    """For a duplicate, the document that stays in its place."""
    excerpt: str
    """Its beginning, on one line."""


def excerpt_of(text: str | bytes) -> str:
    """The first characters of a text on one line, undecodable bytes shown as U+FFFD."""
    beginning = text[: 4 * EXCERPT_CHARACTERS]
    if isinstance(beginning, bytes):
        beginning = beginning.decode("utf-8", errors="replace")
    return " ".join(beginning.split())[:EXCERPT_CHARACTERS]
