"""A decoder that judges: one number for each position, instead of logits."""

from __future__ import annotations

from torch import nn

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models import Decoder, build_model


def build_scored(shape: ModelShape, vocab_size: int) -> Decoder:
    """The decoder of `shape` with a head of one row: tokens [B, T] → [B, T, 1].

    The number at a position judges all up to there, so that at the last token it is a reward for the whole text, and
    along a text it is the value of each state.
    """
    model = build_model(scored_shape(shape), vocab_size)
    model.head = nn.Linear(shape.width, 1, bias=False)
    return model


def scored_shape(shape: ModelShape) -> ModelShape:
    """The same sizes; a head of one row cannot be the embedding."""
    return shape.model_copy(update={"tied_embeddings": False})


def is_scored(model: Decoder) -> bool:
    """Whether the decoder judges."""
    return model.head.out_features == 1
