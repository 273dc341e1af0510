"""The manifests that finished products carry: written last, and with one conditional put, so that a product either
has one and is whole, or has none and does not exist.

A manifest holds no times and no host names: the same work gives the same bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from kindling_api.base import Digest, Status, canonical_json, digest_of, short_key
from kindling_api.v1alpha1.adapter import Adapter
from kindling_api.v1alpha1.best import Best
from kindling_api.v1alpha1.divergence import Divergence
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.status import DocumentCounts, InputDamage
from kindling_api.v1alpha1.windows import WindowRange

MANIFEST = "manifest.json"
"""The name of every product's manifest, in the product's folder."""

REPORT = "report.html"
"""The page for people beside the manifest; no part of the product, for it holds times."""

INPUTS = "inputs.jsonl"
"""In a dataset: every file read, with its size and digest."""

TOKENIZER = "tokenizer.json"
"""In a dataset as in a Hugging Face folder: the tokenizer, in the form of the `tokenizers` library."""

MODEL_FOLDER = "model"
"""In a finished run: the model as a Hugging Face folder."""

ADAPTER_FOLDER = "adapter"
"""In a finished run that trained adapters: these, as a PEFT folder, beside the model that has them in its weights."""

TokenType = Literal["uint16", "int32"]
"""Type of the tokens in shards, as Megatron's index spells them."""

TokenizerKind = Literal["bpe", "char", "byte", "other"]
"""How a tokenizer was made; `other` is one taken from elsewhere."""


def dataset_folder(key: str) -> str:
    """Where in a store the dataset with this key lies."""
    return f"datasets/{short_key(key)}"


def model_folder(key: str) -> str:
    """Where in a store the run with this key keeps its checkpoints and its model."""
    return f"models/{short_key(key)}"


class FileEntry(Status):
    """One file of a product."""

    path: str
    """Relative to the product's folder, with forward slashes."""
    size: int
    """In bytes."""
    digest: Digest
    """SHA-256 of the file's content."""


class Manifest(Status):
    """What all manifests share."""

    key: Digest
    """Identity of the work: inputs, spec, step versions."""
    files: list[FileEntry]
    """Every file that belongs to the product, sorted by path."""

    def to_bytes(self) -> bytes:
        """Canonical JSON; the digest of a product is the digest of these bytes."""
        return canonical_json(self.document())

    @property
    def digest(self) -> str:
        """The product's digest."""
        return digest_of(self.to_bytes())


class TokenizerEntry(Status):
    """The tokenizer of a dataset."""

    path: str = TOKENIZER
    """The file."""
    digest: Digest
    """SHA-256 of the input file."""
    kind: TokenizerKind
    """How it was made."""
    vocab_size: int
    """Number of token ids."""
    end_of_document: int | None = None
    """The token id that ends each document; None where the tokenizer has none (char)."""


class Shard(Status):
    """One Megatron `.bin`/`.idx` pair; `path` is without suffix. Tokens include each document's end token."""

    path: str
    tokens: int
    documents: int


class DatasetManifest(Manifest):
    """A finished dataset."""

    kind: Literal["Dataset"] = "Dataset"
    spec: dict[str, Any]
    """The content-affecting part of the spec that it was built from."""
    inputs: Digest
    """Digest of inputs.jsonl: every file read, with its size and digest."""
    versions: dict[str, int]
    """Version of each step that was applied."""
    documents: DocumentCounts
    """read = kept + the sum of removed."""
    damage: InputDamage | None = None
    """What of the inputs could not be read; absent where everything was."""
    tokenizer: TokenizerEntry
    dtype: TokenType
    """Type of the tokens in the shards."""
    train: list[Shard]
    validation: list[Shard]

    @property
    def train_tokens(self) -> int:
        """Tokens of the training part."""
        return sum(shard.tokens for shard in self.train)

    @property
    def validation_tokens(self) -> int:
        """Tokens of the validation part."""
        return sum(shard.tokens for shard in self.validation)


class SkippedStep(Status):
    """A step that was not taken with what it would have read, but with what follows that."""

    step: int
    """Which one, from 1."""
    windows: tuple[WindowRange, ...]
    """What was left out."""
    why: str
    """Its loss and the norm of its gradient, and what they were compared with."""
    rolled_back_to: int | None = None
    """The step of the checkpoint that the run went back to, where the weights were at fault; what was left out is then
    what the steps from this one on read, and what was left out in vain before."""

    @property
    def sentence(self) -> str:
        """What was left out, and why."""
        if self.rolled_back_to is None:
            return f"what step {self.step:,} was to read: {self.why}"
        back = f"from where the run went back to step {self.rolled_back_to:,}"
        return f"what was read from step {self.step:,} on, {back}: {self.why}"


class CheckpointManifest(Manifest):
    """A committed checkpoint: weights, optimizer, and how far the run was."""

    kind: Literal["Checkpoint"] = "Checkpoint"
    step: int
    """Optimizer steps done."""
    tokens: int
    """Tokens seen."""
    attempt: int
    """The attempt that wrote it."""
    layout: Layout
    """The layout that wrote it; any other can read it."""
    dataset: Digest
    """Digest of the dataset it was trained on."""
    tokenizer: Digest
    """Digest of the tokenizer."""
    shape: ModelShape
    vocab_size: int
    """Before padding."""
    skipped: tuple[SkippedStep, ...] | None = None
    """Steps that were not taken with what they would have read."""
    adapter: Adapter | None = None
    """What was trained, where that is not the model's weights: then these are not in the checkpoint."""
    recent: tuple[tuple[float, float], ...] | None = None
    """Loss and norm of the gradient of the newest steps, where the next ones are compared with them."""
    best: Best | None = None
    """With `training.keepBest`: the best evaluation so far; its checkpoint stays."""


class ModelManifest(Manifest):
    """A finished run: the model in Hugging Face form, under `model/`, and where it came from."""

    kind: Literal["Model"] = "Model"
    spec: dict[str, Any]
    """The content-affecting part of the spec that it was trained from."""
    dataset: Digest
    """Digest of the dataset."""
    dataset_uri: str
    """Where the dataset was when the run read it."""
    inputs: tuple[FileEntry, ...] | None = None
    """Of an alignment: the files of its data, by URI; `dataset` is the digest of these entries."""
    base: Digest | None = None
    """Digest of the model it started from."""
    base_uri: str | None = None
    """Where a model of the Hugging Face Hub lies that it started from, with the commit; absent for others."""
    tokenizer: Digest
    shape: ModelShape
    vocab_size: int
    """Before padding."""
    steps: int
    tokens: int
    loss: float | None = None
    validation_loss: float | None = None
    evaluation: dict[str, float] | None = None
    """Of an alignment: figures of the last evaluation by name, and those of the base, as `…_before`."""
    divergence: Divergence | None = None
    """How far the loss is from its best, where it ended well above it; absent where it did not."""
    skipped: tuple[SkippedStep, ...] | None = None
    """Steps that were not taken with what they would have read; absent where all were."""
    best: Best | None = None
    """With `training.keepBest`: the evaluation by which the weights were chosen; `steps` and `tokens` are theirs."""
