"""DatasetBuild: raw text in, tokenised shards out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from kindling_api.base import API_VERSION, Metadata, Name, Spec
from kindling_api.errors import SpecError, explain, finding
from kindling_api.quantities import COUNT_PATTERN, Count, IntOrString, parse_count
from kindling_api.rules import OneOf, cel, cel_name
from kindling_api.v1alpha1.filters import MEASURING, Filter, Formatting, Fraction
from kindling_api.v1alpha1.resources import PodResources, RunControls
from kindling_api.v1alpha1.status import DatasetBuildStatus
from kindling_api.v1alpha1.storage import ENDPOINT_PATTERN, DataUri, FileUri, Uri

END_OF_DOCUMENT = "<|endoftext|>"
"""The token that ends each document, where the tokenizer is made here."""
FEWEST_TOKENS = 257
"""All bytes, and the end of a document."""

SpecialToken = Annotated[str, Field(min_length=1, max_length=256)]
VocabSize = Annotated[int, Field(ge=FEWEST_TOKENS, le=2**24), BeforeValidator(parse_count), IntOrString(COUNT_PATTERN)]
SourceFormat = Literal["text", "code", "jsonl", "parquet", "csv", "html", "warc", "wet"]


class SourceStorage(Spec):
    """The S3 server that a source lies on, where it is another than that of the products."""

    model_config = cel(
        (
            "!has(self.unsigned) || !has(self.requesterPays) || !self.unsigned || !self.requesterPays",
            "requesterPays goes with a key: unsigned has none",
        ),
        (
            "!has(self.unsigned) || !has(self.credentialsSecret) || !self.unsigned",
            "credentialsSecret holds a key: unsigned has none",
        ),
    )

    endpoint: Annotated[str, Field(pattern=ENDPOINT_PATTERN, max_length=512)] | None = None
    """The server's address, as in `https://data.example.org`; absent means AWS."""
    region: Annotated[str, Field(max_length=64)] | None = None
    """The S3 region; us-east-1 unless given."""
    unsigned: bool = False
    """Ask without a key, as public buckets allow; otherwise the key is that of `credentialsSecret`, or, without it, of
    the products' store."""
    requester_pays: bool = False
    """Pay for what is read, which such buckets ask for."""
    credentials_secret: Name | None = None
    """The Secret in this namespace that holds this server's key, as that of `spec.storage` does; without a cluster the
    key is found where boto3 looks (environment, AWS profile)."""

    @model_validator(mode="after")
    def _unsigned_has_no_key(self) -> Self:
        beside = "requesterPays" if self.requester_pays else "credentialsSecret" if self.credentials_secret else None
        if self.unsigned and beside is not None:
            remedy = "remove one of them"
            raise ValueError(finding(found=f"{beside} beside unsigned", allowed="one of them", remedy=remedy))
        return self


class Source(Spec):
    """Files to read. A glob may name many; `.gz`, `.zst`, `.bz2` and `.xz` are unpacked."""

    model_config = cel(("!has(self.storage) || self.uri.startsWith('s3://')", "storage goes with an s3:// uri"))

    uri: DataUri
    """A file, a folder, or a glob: `s3://raw/cc/*.warc.gz`, `./books/*.jsonl`, or `builtin:python-stdlib`; or
    `hf://datasets/owner/name[@revision][/path]`, of the Hugging Face Hub; on a cluster the revision is a commit, in
    full."""
    format: SourceFormat | None = None
    """How the files are read; absent means by their suffix. A document is a line (jsonl), a row (parquet, csv), the
    main text of a page (warc, and html, in which each file is one), the text of a record (wet), or a file (text, code),
    cut after every 8 MiB at a line's end."""
    text_field: Annotated[str, Field(min_length=1, max_length=128)] = "text"
    """The field (jsonl) or column (parquet, csv) that holds the text; `doc.text` is `text` within `doc`."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often the source's documents are repeated in the result, on average."""
    storage: SourceStorage | None = None
    """The server of an `s3://` source; absent means that of the products."""

    @model_validator(mode="after")
    def _storage_of_s3(self) -> Self:
        if self.storage is not None and not self.uri.startswith("s3://"):
            remedy = "remove storage"
            raise ValueError(finding(found=f"storage beside {self.uri!r}", allowed="s3://…", remedy=remedy))
        return self


class MinHash(Spec):
    """Near-duplicates: MinHash signatures, LSH bands, exact verification of every candidate pair."""

    shingle: Annotated[int, Field(ge=1, le=64)] = 5
    """Words in a shingle; in scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese), characters."""
    bands: Annotated[int, Field(ge=1, le=256)] | None = None
    """LSH bands, 20 unless `threshold` asks for others; 20 bands of 6 rows find 99.77 % of pairs at Jaccard 0.8."""
    rows: Annotated[int, Field(ge=1, le=64)] | None = None
    """Rows in a band, 6 unless `threshold` asks for others."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Two documents are duplicates when the Jaccard similarity of their shingle sets is at least this. Below 0.8, where
    neither `bands` nor `rows` is given, they are those that datasketch's optimiser finds for it among 128 hashes, at
    which about 99 % of the pairs at this similarity are found."""
    keep: Literal["longest", "best"] = "longest"
    """Which document of a cluster stays: the `longest`, or the `best`, which passes the filters by the widest margin:
    the mean, over all thresholds, of |measure - threshold| / threshold, each at most 1. Among equals it is the
    longest, then the first."""
    index: bool = False
    """Keep the signatures of the documents that stay, to be asked by `kindling similar`: 4 bytes for each row of each
    band and document, 480 as a rule."""


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
    """Remove documents that share an n-gram of words with an evaluation set, or hold a shorter text of it whole.

    A text of fewer than 8 words cannot be recognised; how many there are is told. In Chinese and Japanese two
    characters stand for a word, in Thai, Lao, Khmer and Burmese four.
    """

    uri: DataUri
    """The evaluation set: jsonl, parquet or text."""
    ngram: Annotated[int, Field(ge=3, le=64)] = 13
    """Words in the n-gram."""


class TrainTokenizer(Spec):
    """A byte-level BPE tokenizer, trained on the documents that stay."""

    model_config = cel(
        (
            "!has(self.specialTokens) || self.specialTokens.all(token, self.specialTokens.exists_one(one, one == token)"
            f" && token != '{END_OF_DOCUMENT}')",
            f"specialTokens: each may be given once, and {END_OF_DOCUMENT} is there anyway",
        ),
        (
            "!has(self.specialTokens) || type(self.vocabSize) != int"
            f" || int(self.vocabSize) >= {FEWEST_TOKENS} + self.specialTokens.size()",
            f"vocabSize must hold {FEWEST_TOKENS} tokens and the specialTokens",
        ),
    )

    algorithm: Literal["bpe"] = "bpe"
    """Byte-level byte-pair encoding, as in GPT-2."""
    vocab_size: VocabSize = 32_000
    """Number of tokens: 256 bytes, the end-of-document token, `specialTokens`, and the learned merges."""
    split: Literal["gpt2", "gpt4", "llama3", "qwen2"] = "gpt2"
    """Whose pattern cuts texts into the words within which tokens are merged: `gpt2` takes numbers whole, with the
    space before them; `gpt4` and `llama3`, which are one, digits by threes, and line ends with the white space or
    punctuation before them; `qwen2` the same with single digits. Runs of spaces become tokens by all of them."""
    special_tokens: Annotated[tuple[SpecialToken, ...], Field(max_length=256)] = ()
    """Tokens besides `<|endoftext|>` that no text contains, as in `<|im_start|>`; they have the ids after it."""
    sample: Count = 64 * 2**20
    """Bytes of text to learn from, as in `64Mi`: of more text a sample of about this size, in which documents occur as
    often, compared with one another, as in the result (see `sources.weight`). Text without spaces takes some 150 bytes
    of memory a byte, English a tenth of that."""

    @model_validator(mode="after")
    def _special_tokens(self) -> Self:
        tokens = (END_OF_DOCUMENT, *self.special_tokens)
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        if twice:
            where, remedy = "spec.tokenizer.train.specialTokens", "keep one of them"
            found, allowed = f"{', '.join(twice)} twice", f"each token once, besides {END_OF_DOCUMENT}"
            raise SpecError(explain(where, found=found, allowed=allowed, remedy=remedy))
        if self.vocab_size < (least := FEWEST_TOKENS + len(self.special_tokens)):
            found, allowed = f"{self.vocab_size} for {len(self.special_tokens)} specialTokens", f"at least {least}"
            where, remedy = "spec.tokenizer.train.vocabSize", "give more tokens"
            raise SpecError(explain(where, found=found, allowed=allowed, remedy=remedy))
        return self


class TokenizerFrom(Spec):
    """A tokenizer that exists."""

    uri: FileUri
    """A `tokenizer.json`, or a Hugging Face folder that holds one; or `hf://owner/name[@revision]`, of the Hugging Face
    Hub; on a cluster the revision is a commit, in full."""
    end_of_document: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The token that ends each document, as in `<|endoftext|>`; absent means the one that the files beside
    tokenizer.json name as `eos_token`, or else one of the usual names."""


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
    """Largest fraction of records that may be unreadable, and largest fraction of the inputs' bytes; each of them is in
    the ledger. Records of web archives that are no pages do not count. A compressed member that ends early, or whose
    checksum is wrong, counts whole."""


class Engine(Spec):
    """How the build is run; none of it changes the result."""

    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    """0: one pod with Ray inside; N: a KubeRay RayJob with N workers."""
    resources: PodResources = PodResources()
    """CPU and memory of each worker."""
    zstd_window: Literal["128Mi", "256Mi", "512Mi", "1Gi", "2Gi"] = "128Mi"
    """Largest window of a `.zst` file, which a worker holds in memory while it reads one. `zstd --long=31` needs
    2Gi."""


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
