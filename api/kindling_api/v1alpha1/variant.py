"""What families of open decoders have that the first Llama has not: small differences of one block.

A user never writes these: they are read from the config.json of a model to start from, and stand in manifests.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kindling_api.base import Spec

Family = Literal["llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "gemma3_text"]
"""Families by the names that transformers gives them in `model_type`."""

Positive = Annotated[float, Field(gt=0)]
Layers = tuple[Annotated[int, Field(ge=0)], ...]
"""Some of a model's layers, by their numbers from 0."""


class RopeScaling(Spec):
    """How rotary frequencies are lowered for a context longer than the one that a model was first trained on."""

    kind: Literal["linear", "llama3", "yarn"]
    """`linear` divides all; `llama3` the low ones; `yarn` the low ones, with a ramp over the pairs of a head."""
    factor: Positive
    """What a frequency is divided by."""
    original_context: Annotated[int, Field(ge=1)] | None = None
    """Of the first training, in tokens (llama3, yarn)."""
    low_frequency_factor: Positive = 1.0
    """Turns in the original context below which a frequency is divided whole (llama3)."""
    high_frequency_factor: Positive = 4.0
    """Turns in the original context above which it stays (llama3)."""
    beta_fast: Positive = 32.0
    """Turns above which it stays (yarn)."""
    beta_slow: Positive = 1.0
    """Turns below which it is divided whole (yarn)."""
    truncate: bool = True
    """Whether the ramp begins and ends at whole pairs (yarn)."""
    attention_factor: Positive = 1.0
    """Queries and keys are multiplied by this (yarn)."""


class Variant(Spec):
    """How a decoder in Llama's style differs from Llama; the defaults are Llama's own."""

    family: Family = "llama"
    """Whose names its files have in Hugging Face form."""
    head_dim: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Width of an attention head, where it is not width / heads."""
    attention_bias: Literal["none", "qkv", "all"] = "none"
    """Which of attention's projections have biases: those of queries, keys and values, or that of the output, too."""
    qk_norm: Literal["none", "head", "width"] = "none"
    """Whether queries and keys are normalised, each head by itself or all heads together."""
    norms: Literal["before", "after", "both"] = "before"
    """Whether attention and feed-forward read a normalised stream, or their results are normalised."""
    offset_norms: bool = False
    """Whether norms multiply by one more than their weights."""
    activation: Literal["silu", "gelu"] = "silu"
    """Of the gate: SwiGLU or GeGLU."""
    embedding_scale: Positive = 1.0
    """What embeddings are multiplied by."""
    attention_scalar: Positive | None = None
    """Scores are divided by the square root of this, where it is not a head's width."""
    rope_scaling: RopeScaling | None = None
    """How rotary frequencies are lowered, but for those of `window_rope_theta`."""
    unrotated_layers: Layers = ()
    """Layers without rotary positions."""
    window: Annotated[int, Field(ge=1)] | None = None
    """Positions that a windowed layer sees, itself included."""
    windowed_layers: Layers = ()
    """Layers that see the newest `window` positions only."""
    window_rope_theta: Annotated[float, Field(gt=1)] | None = None
    """Base of the rotary frequencies of windowed layers, where it is another."""
