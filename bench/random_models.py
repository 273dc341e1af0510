"""What several benches of training need: small models with random weights, and random text to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from kindling_api.v1alpha1.model import ModelShape
from kindling_storage import open_store
from kindling_trainer.checkpoint.huggingface import export
from kindling_trainer.checkpoint.huggingface.folder import ChatFiles
from kindling_trainer.loop.objective import Evaluation, Figures, LocalBatch
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.parallel.apply import ParallelModel

TokensAndTargets = tuple[Tensor, Tensor]
"""int64 [micro-batch, T] each."""


@dataclass(frozen=True)
class RandomText:
    """The objective of pretraining, on the same tokens in each step."""

    model: ParallelModel
    batches: list[TokensAndTargets]

    @property
    def tokens(self) -> int:
        """Targets of a step."""
        return sum(targets.numel() for _, targets in self.batches)

    def local_batch(self, step: int, interruptible: object = None) -> LocalBatch[TokensAndTargets]:
        return LocalBatch(self.batches, len(self.batches), self.tokens)

    def loss(self, batch: TokensAndTargets) -> tuple[Tensor, Figures]:
        return self.model.token_loss(*batch), {}

    def evaluate(self, *, whole: bool, interruptible: object) -> Evaluation:
        return Evaluation()


def shifted(windows: Tensor) -> TokensAndTargets:
    """Windows of T + 1 tokens as inputs and targets."""
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def byte_tokenizer() -> Tokenizer:
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return on_bytes(Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, [])))


def on_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, made to read and to write bytes."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def export_random(
    folder: Path, shape: ModelShape, tokenizer: Tokenizer, seed: int, chat: ChatFiles | None = None
) -> None:
    """A model with random weights, as a Hugging Face folder."""
    vocab_size = tokenizer.get_vocab_size()
    model = build_model(shape, vocab_size)
    initialize(model, seed)
    weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    export(
        open_store(folder.as_uri()), weights, shape, vocab_size=vocab_size, tokenizer=tokenizer.to_str().encode(),
        end_of_document=None, chat=chat,
    )  # fmt: skip
