"""DatasetBuild: raw text in, tokenised shards out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from kindling_api.base import API_VERSION, Metadata, Spec
from kindling_api.errors import SpecError, explain
from kindling_api.quantities import COUNT_PATTERN, Count, IntOrString, parse_count
from kindling_api.rules import OneOf, cel, cel_name
from kindling_api.v1alpha1.filters import MEASURING, Filter, Formatting, Fraction
from kindling_api.v1alpha1.resources import PodResources, RunControls
from kindling_api.v1alpha1.status import DatasetBuildStatus
from kindling_api.v1alpha1.storage import Uri

VocabSize = Annotated[int, Field(ge=257, le=2**24), BeforeValidator(parse_count), IntOrString(COUNT_PATTERN)]
SourceFormat = Literal["text", "code", "jsonl", "parquet", "warc", "wet"]


class Source(Spec):
    """Files to read. A glob may name many; `.gz` and `.zst` are unpacked."""

    uri: Uri
    """A file, a folder, or a glob: `s3://raw/cc/*.warc.gz`, `./books/*.jsonl`, or `builtin:python-stdlib`."""
    format: SourceFormat | None = None
    """How the files are read; absent means by their suffix. A document is a line (jsonl), a row (parquet), the main
    text of a page (warc), the text of a record (wet), or a file (text, code), cut after every 8 MiB at a line's end."""
    text_field: Annotated[str, Field(min_length=1, max_length=128)] = "text"
    """The field (jsonl) or column (parquet) that holds the text."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often the source's documents are repeated in the result, on average."""


class MinHash(Spec):
    """Near-duplicates: MinHash signatures, LSH bands, exact verification of every candidate pair."""

    shingle: Annotated[int, Field(ge=1, le=64)] = 5
    """Words in a shingle."""
    bands: Annotated[int, Field(ge=1, le=256)] = 20
    """LSH bands; 20 bands of 6 rows find 99.77 % of pairs at Jaccard 0.8."""
    rows: Annotated[int, Field(ge=1, le=64)] = 6
    """Rows in a band."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Two documents are duplicates when the Jaccard similarity of their shingle sets is at least this."""
    keep: Literal["longest", "best"] = "longest"
    """Which document of a cluster stays: the `longest`, or the `best`, which passes the filters by the widest margin:
    the mean, over all thresholds, of |measure - threshold| / threshold, each at most 1. Among equals it is the
    longest, then the first."""


class LineDuplicates(Spec):
    """Lines or paragraphs that an earlier document held are taken out; the first document keeps them."""

    unit: Literal["line", "paragraph"] = "line"
    """What is compared; paragraphs are separated by blank lines."""
    min_length: Annotated[int, Field(ge=1)] = 100
    """Shorter ones, in characters, stay: they repeat by chance."""


class Deduplicate(Spec):
    """Exact and near duplicates."""

    exact: bool = True
    """Remove documents whose normalised text occurred before."""
    min_hash: MinHash | None = None
    """Remove near-duplicates; absent means that they stay. (A spec without `deduplicate` removes both.)"""
    lines: LineDuplicates | None = None
    """Take repeated lines out of documents, before these are measured; absent means that they stay."""


class Toxicity(Spec):
    """Remove documents that a classifier finds toxic."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Documents with a higher score are removed."""
    model: Uri = "builtin"
    """`builtin`, or the URI of a model made by `kindling toxicity train`."""


class Decontaminate(Spec):
    """Remove documents that share an n-gram of words with an evaluation set."""

    uri: Uri
    """The evaluation set: jsonl, parquet or text."""
    ngram: Annotated[int, Field(ge=3, le=64)] = 13
    """Words in the n-gram."""


class TrainTokenizer(Spec):
    """A byte-level BPE tokenizer, trained on the documents that stay."""

    algorithm: Literal["bpe"] = "bpe"
    """Byte-level byte-pair encoding, as in GPT-2."""
    vocab_size: VocabSize = 32_000
    """Number of tokens: 256 bytes, the end-of-document token, and the merges learnt."""


class TokenizerFrom(Spec):
    """A tokenizer that exists."""

    uri: Uri
    """A `tokenizer.json`, or a Hugging Face folder that holds one."""


class CharTokenizer(Spec):
    """One token for each character that occurs in the documents that stay."""


class ByteTokenizer(Spec):
    """One token for each byte, and one for the end of a document: 257 in all."""


class Tokenizer(OneOf):
    """How text becomes tokens."""

    train: TrainTokenizer | None = None
    """Train one on this dataset."""
    from_: Annotated[TokenizerFrom | None, Field(alias="from")] = None
    """Take one that exists."""
    char: CharTokenizer | None = None
    """One token a character."""
    byte: ByteTokenizer | None = None
    """One token a byte."""


class Shards(Spec):
    """How the tokens are cut into files; a document is never cut."""

    tokens_per_shard: Count = 100_000_000
    """Tokens after which a new shard begins."""


class Validation(OneOf):
    """Which part is held out."""

    fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    """By document digest: about this fraction of the documents, the same ones whatever else changes."""
    tail: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The last part of the token stream, of this fraction."""


class BadRecords(Spec):
    """What may be wrong with the input before the build fails."""

    max_fraction: Fraction = 0.01
    """Largest fraction of records that may be unreadable; each of them is in the ledger. Records of web archives that
    are no pages do not count."""


class Engine(Spec):
    """How the build is run; none of it changes the result."""

    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """0: one pod with Ray inside; N: a KubeRay RayJob with N workers."""
    resources: PodResources = PodResources()
    """CPU and memory of each worker."""


_EACH_FILTER_ONCE = " && ".join(
    f"self.filters.filter(rules, has(rules.{cel_name(Filter.alias_of(name))})).size() <= 1"
    for name in Filter.model_fields
)

_MEASURES_FOR_THE_BEST = (
    "!has(self.deduplicate.minHash) || self.deduplicate.minHash.keep != 'best' || "
    f"self.filters.exists(rules, {' || '.join(f'has(rules.{name})' for name in MEASURING)})"
)


class DatasetBuildSpec(RunControls):
    """Raw text in, tokenised shards out."""

    model_config = cel(
        (_EACH_FILTER_ONCE, "filters: each rule set may be given once"),
        (_MEASURES_FOR_THE_BEST, "deduplicate.minHash.keep: best needs a filter that measures documents"),
    )

    sources: Annotated[tuple[Source, ...], Field(min_length=1, max_length=256)]
    """What to read."""
    filters: Annotated[tuple[Filter, ...], Field(max_length=32)] = (Filter(formatting=Formatting()),)
    """Rule sets that decide what stays; they run in a fixed order, whatever the order here."""
    deduplicate: Deduplicate = Deduplicate(min_hash=MinHash())
    """Which duplicates are removed."""
    toxicity: Toxicity | None = None
    """Remove toxic documents."""
    decontaminate: Annotated[tuple[Decontaminate, ...], Field(max_length=64)] = ()
    """Evaluation sets that must not leak into the data."""
    tokenizer: Tokenizer = Tokenizer(train=TrainTokenizer())
    """How text becomes tokens."""
    shards: Shards = Shards()
    """How tokens become files."""
    validation: Validation = Validation(fraction=0.005)
    """Which part is held out."""
    bad_records: BadRecords = BadRecords()
    """What may be wrong with the input before the build fails."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1337
    """Seed of the document order."""
    engine: Engine = Engine()
    """How the build is run."""

    @model_validator(mode="after")
    def _each_filter_once(self) -> Self:
        names = [rules.chosen[0] for rules in self.filters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            allowed, remedy = "each rule set once", "keep one of them"
            raise SpecError(explain("spec.filters", found=f"{', '.join(twice)} twice", allowed=allowed, remedy=remedy))
        return self

    @model_validator(mode="after")
    def _measures_for_the_best(self) -> Self:
        wants_best = self.deduplicate.min_hash is not None and self.deduplicate.min_hash.keep == "best"
        if wants_best and not any(rules.chosen[0] in MEASURING for rules in self.filters):
            found, allowed = "best without a filter that measures documents", f"best with one of {', '.join(MEASURING)}"
            remedy = f"add {MEASURING[0]} to spec.filters, or keep the longest"
            raise SpecError(explain("spec.deduplicate.minHash.keep", found=found, allowed=allowed, remedy=remedy))
        return self


class DatasetBuild(Spec):
    """Raw text in, tokenised shards out: filtered, deduplicated, with a ledger of every document removed."""

    api_version: Literal["kindling.dev/v1alpha1"] = API_VERSION
    kind: Literal["DatasetBuild"] = "DatasetBuild"
    metadata: Metadata
    spec: DatasetBuildSpec
    """What to build."""
    status: DatasetBuildStatus | None = None
    """How far it is; written by the operator."""
