"""What parts hand on to the stages after theirs: small, and written into their records (see `work`)."""

from __future__ import annotations

from kindling_api.base import Status
from kindling_api.v1alpha1.products import TokenizerKind


class NoFacts(Status):
    """Of a part whose files are all that there is to know."""


class LineFacts(Status):
    """Of the notes of lines (see `stages.line_counts`)."""

    documents: int
    """Whose lines were noted."""
    boilerplate: list[int] = []
    """Where each range of hashes begins among the notes, and how many notes there are; empty where none were asked."""
    lines: list[int] = []
    """The same of the notes for the rule `lines`."""


class DamageFacts(Status):
    """Of what could not be read (see `damage`)."""

    unread: int
    """Bytes."""
    places: int
    """How many bad places they lie in."""
    largest: list[tuple[int, str]]
    """The bytes of the places that cost most, and a sentence of each."""
    ignored: list[str]
    """A sentence of each thing that was passed over."""


class RemovalFacts(Status):
    """Of every stage that removes documents."""

    removed: dict[str, int]
    """Documents, by rule."""


class CleanFacts(RemovalFacts):
    """Of the first stage."""

    kept: int
    bad_records: list[str]
    """Some, each with what is wrong with it."""
    damage: DamageFacts
    lines_removed: dict[str, int]
    """Lines taken out of documents, by rule."""


class DuplicateCluster(Status):
    """Documents that are copies of one another."""

    kept: str
    """The id of the document that stays."""
    size: int
    removed: list[str]
    """The ids of some of the others."""


class DuplicateFacts(RemovalFacts):
    """Of deduplication."""

    candidates: int | None = None
    """Pairs that MinHash proposed; absent without it."""
    verified: int | None = None
    """Those of them that are near-duplicates."""
    clusters: list[DuplicateCluster]
    """The largest."""


class ShingleFacts(Status):
    """Of the shingles that deduplication compares."""

    groups: list[int]
    """The group that each row group is for."""


class PersonalFacts(RemovalFacts):
    """Of the stage that looks for personal information."""

    found: dict[str, int]
    """Pieces of it, by kind."""


class TokenizerFacts(Status):
    """Of the tokenizer."""

    kind: TokenizerKind
    vocab_size: int
    end_of_document: int | None = None
    """The token that ends each document."""


class EncodingFacts(Status):
    """Of the tokens that an encoding task wrote."""

    documents: int
    """Whose tokens they are."""
