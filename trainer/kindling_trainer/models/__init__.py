"""The decoders. Plain PyTorch: sharding, compilation and checkpointing are applied to them from outside."""

from __future__ import annotations

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models.gpt2 import GPT2
from kindling_trainer.models.llama import Llama

Decoder = Llama | GPT2


def build_model(shape: ModelShape, vocab_size: int) -> Decoder:
    """The model of `shape`, with PyTorch's own initial weights; `initialize` sets ours.

    Under `torch.device("meta")` it takes no memory; `to_empty` and `initialize` then make it real.

    Args:
        vocab_size: after padding, as `shape.padded_vocab` gives it.
    """
    return Llama(shape, vocab_size) if shape.architecture == "llama" else GPT2(shape, vocab_size)
