"""A decoder that scores: one number for each position, in the place of logits."""

from __future__ import annotations

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.layers import ValueHead


def build_scored(shape: ModelShape, vocab_size: int) -> Decoder:
    """The decoder of `shape` with a value head in the place of its own: tokens [B, T] → [B, T].

    The number at a position scores all up to there; at the last token it is the reward of the whole text.
    """
    model = build_model(shape.model_copy(update={"tied_embeddings": False}), vocab_size)
    model.head = ValueHead(shape.width)  # type: ignore[assignment]
    return model


def is_scored(model: Decoder) -> bool:
    """Whether the decoder scores."""
    return isinstance(model.head, ValueHead)
