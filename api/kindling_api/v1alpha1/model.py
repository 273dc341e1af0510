"""The model: a preset, or an architecture and its sizes; and the complete shape that both become."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from kindling_api.base import Spec
from kindling_api.errors import SpecError, explain
from kindling_api.rules import cel
from kindling_api.v1alpha1.variant import Variant

Architecture = Literal["llama", "gpt2"]
Dropout = Annotated[float, Field(ge=0, lt=1)]

FOREIGN_FIELDS = {"llama": ("dropout", "bias"), "gpt2": ("rope_theta",)}
"""Fields that an architecture does not have."""


class ModelShape(Spec):
    """A model's sizes, all known but the vocabulary, which is the dataset's."""

    architecture: Architecture
    """`llama` (RoPE, SwiGLU, RMSNorm, grouped-query attention) or `gpt2` (learned positions, GELU, LayerNorm)."""
    layers: Annotated[int, Field(ge=1, le=1024)]
    """Transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=1024)]
    """Attention heads."""
    kv_heads: Annotated[int, Field(ge=1, le=1024)]
    """Key and value heads; fewer than `heads` means grouped-query attention."""
    width: Annotated[int, Field(ge=8, le=131_072)]
    """Width of the residual stream."""
    ffn_width: Annotated[int, Field(ge=8, le=1_048_576)]
    """Inner width of the feed-forward layer."""
    context: Annotated[int, Field(ge=8, le=2**22)]
    """Longest sequence, in tokens."""
    dropout: Dropout = 0.0
    """Dropout rate (gpt2 only)."""
    rope_theta: Annotated[float, Field(gt=1)] = 10_000.0
    """Base of the rotary frequencies (llama only)."""
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Added to the variance in every norm."""
    tied_embeddings: bool = False
    """Whether the output head is the token embedding."""
    bias: bool = False
    """Whether linear layers and LayerNorms have biases (gpt2 only)."""
    vocab_multiple: Annotated[int, Field(ge=1, le=4096)] = 1
    """The vocabulary is padded to a multiple of this."""
    variant: Annotated[Variant, Field(exclude_if=lambda variant: variant == Variant())] = Variant()
    """How it differs from Llama (llama only); left out of what is written where it does not."""

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.variant.head_dim or self.width // self.heads

    def padded_vocab(self, vocab_size: int) -> int:
        """`vocab_size`, rounded up to a multiple of `vocab_multiple`."""
        return -(-vocab_size // self.vocab_multiple) * self.vocab_multiple


def _gpt2(
    layers: int, heads: int, width: int, context: int = 1024, bias: bool = True, vocab_multiple: int = 128
) -> ModelShape:
    return ModelShape(
        architecture="gpt2",
        layers=layers,
        heads=heads,
        kv_heads=heads,
        width=width,
        ffn_width=4 * width,
        context=context,
        tied_embeddings=True,
        bias=bias,
        vocab_multiple=vocab_multiple,
    )


def _llama3(
    layers: int, heads: int, width: int, ffn_width: int, context: int, tied_embeddings: bool = False
) -> ModelShape:
    return ModelShape(
        architecture="llama",
        layers=layers,
        heads=heads,
        kv_heads=8,
        width=width,
        ffn_width=ffn_width,
        context=context,
        rope_theta=500_000.0,
        tied_embeddings=tied_embeddings,
        vocab_multiple=128,
    )


PRESETS: dict[str, ModelShape] = {
    # Radford et al. 2019 (GPT-2), table 2; vocabulary padded as in nanoGPT.
    "gpt2-124m": _gpt2(layers=12, heads=12, width=768),
    "gpt2-350m": _gpt2(layers=24, heads=16, width=1024),
    "gpt2-774m": _gpt2(layers=36, heads=20, width=1280),
    "gpt2-1558m": _gpt2(layers=48, heads=25, width=1600),
    # Sizes for a CPU and for first runs.
    "gpt2-tiny": _gpt2(layers=4, heads=4, width=128, context=128, bias=False, vocab_multiple=1),
    "llama-tiny": ModelShape(
        architecture="llama",
        layers=4,
        heads=4,
        kv_heads=2,
        width=128,
        ffn_width=352,
        context=128,
        tied_embeddings=True,
    ),
    # The sizes of GPT-2 124M in Llama's style.
    "llama-124m": ModelShape(
        architecture="llama",
        layers=12,
        heads=12,
        kv_heads=12,
        width=768,
        ffn_width=2048,
        context=1024,
        tied_embeddings=True,
        vocab_multiple=128,
    ),
    # Grattafiori et al. 2024 (Llama 3, arXiv:2407.21783), table 3, and the model cards of Llama 3.2.
    "llama-1.2b": _llama3(layers=16, heads=32, width=2048, ffn_width=8192, context=2048, tied_embeddings=True),
    "llama-3b": _llama3(layers=28, heads=24, width=3072, ffn_width=8192, context=4096, tied_embeddings=True),
    "llama-8b": _llama3(layers=32, heads=32, width=4096, ffn_width=14_336, context=8192),
    "llama-70b": _llama3(layers=80, heads=64, width=8192, ffn_width=28_672, context=8192),
}

PresetName = Literal[
    "gpt2-124m", "gpt2-350m", "gpt2-774m", "gpt2-1558m", "llama-tiny", "gpt2-tiny",
    "llama-124m", "llama-1.2b", "llama-3b", "llama-8b", "llama-70b",
]  # fmt: skip


_IS_GPT2 = "(has(self.preset) ? self.preset.startsWith('gpt2') : has(self.architecture) && self.architecture == 'gpt2')"


class ModelSpec(Spec):
    """A preset whose fields may be overridden, or an architecture with at least layers, heads, width and context."""

    model_config = cel(
        (
            "has(self.preset) || (has(self.architecture) && has(self.layers) && has(self.heads)"
            " && has(self.width) && has(self.context))",
            "give preset, or architecture with layers, heads, width and context",
        ),
        (
            "!has(self.width) || !has(self.heads) || self.width % self.heads == 0",
            "width must be a multiple of heads",
        ),
        (
            "!has(self.heads) || !has(self.kvHeads) || self.heads % self.kvHeads == 0",
            "heads must be a multiple of kvHeads",
        ),
        (
            "!has(self.preset) || !has(self.architecture) || self.preset.startsWith(self.architecture)",
            "architecture must be the one of the preset: remove one of the two",
        ),
        (
            f"{_IS_GPT2} || ((!has(self.dropout) || self.dropout == 0.0) && (!has(self.bias) || !self.bias))",
            "llama has neither dropout nor bias: remove them",
        ),
        (
            f"!({_IS_GPT2}) || (!has(self.ropeTheta)"
            " && (!has(self.kvHeads) || !has(self.heads) || self.kvHeads == self.heads))",
            "gpt2 has no ropeTheta, and as many kvHeads as heads: remove them",
        ),
    )

    preset: PresetName | None = None
    """A known model; the fields below override its sizes."""
    architecture: Architecture | None = None
    """`llama` (RoPE, SwiGLU, RMSNorm, grouped-query attention) or `gpt2` (learned positions, GELU, LayerNorm)."""
    layers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Attention heads."""
    kv_heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Key and value heads; absent means as many as `heads`; llama only."""
    width: Annotated[int, Field(ge=8, le=131_072)] | None = None
    """Width of the residual stream; a multiple of `heads`."""
    ffn_width: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Inner width of the feed-forward layer; absent means 4 × width (gpt2), or 8/3 × width rounded up to 32 (llama)."""
    context: Annotated[int, Field(ge=8, le=2**22)] | None = None
    """Longest sequence, in tokens."""
    dropout: Dropout | None = None
    """Dropout rate; gpt2 only."""
    rope_theta: Annotated[float, Field(gt=1)] | None = None
    """Base of the rotary frequencies; llama only."""
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Added to the variance in every norm."""
    tied_embeddings: bool | None = None
    """Whether the output head is the token embedding; absent means true for gpt2, false for llama."""
    bias: bool | None = None
    """Whether linear layers and LayerNorms have biases; gpt2 only."""
    vocab_multiple: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Pad the vocabulary to a multiple of this, so that it divides by the degree of tensor parallelism."""

    @model_validator(mode="after")
    def _is_complete_and_consistent(self) -> Self:
        self.shape()
        return self

    def shape(self) -> ModelShape:
        """The complete sizes.

        Raises:
            SpecError: sizes are missing, do not divide, or do not belong to the architecture.
        """
        given = {name: value for name, value in self if value is not None and name != "preset"}
        if self.preset is not None:
            base = PRESETS[self.preset]
            if self.architecture not in (None, base.architecture):
                raise _wrong(
                    "architecture",
                    found=self.architecture,
                    allowed=f"{base.architecture}, as in {self.preset}",
                    remedy="remove one of architecture and preset",
                )
            sizes = {**dict(base), **given}
            if "heads" in given and "kv_heads" not in given and base.kv_heads == base.heads:
                sizes["kv_heads"] = given["heads"]
            if "width" in given and "ffn_width" not in given:
                sizes["ffn_width"] = _default_ffn_width(base.architecture, self.width or 0)
        else:
            sizes = _from_scratch(given)
        return _checked(ModelShape(**sizes), given)


def _from_scratch(given: dict[str, object]) -> dict[str, object]:
    missing = [name for name in ("architecture", "layers", "heads", "width", "context") if name not in given]
    if missing:
        raise SpecError(
            explain(
                "spec.model",
                found=f"no {', '.join(missing)}",
                allowed="a preset, or architecture with layers, heads, width and context",
                remedy=f"add {', '.join(missing)}, or preset: llama-tiny",
            )
        )
    architecture, width = str(given["architecture"]), int(given["width"])  # type: ignore[call-overload]
    defaults = {
        "kv_heads": given["heads"],
        "ffn_width": _default_ffn_width(architecture, width),
        "tied_embeddings": architecture == "gpt2",
    }
    return {**defaults, **given}


def _default_ffn_width(architecture: str, width: int) -> int:
    """4 × width for GELU; 8/3 × width for SwiGLU (Shazeer 2020, arXiv:2002.05202), rounded up to 32."""
    return 4 * width if architecture == "gpt2" else -(-8 * width // 3 // 32) * 32


def _checked(shape: ModelShape, given: dict[str, object]) -> ModelShape:
    if shape.width % shape.heads:
        raise _wrong(
            "width",
            found=shape.width,
            allowed=f"a multiple of heads = {shape.heads}",
            remedy=f"use {max(1, shape.width // shape.heads) * shape.heads}",
        )
    if shape.heads % shape.kv_heads:
        raise _wrong(
            "kvHeads",
            found=shape.kv_heads,
            allowed=f"a divisor of heads = {shape.heads}",
            remedy="use 1, or as many as heads",
        )
    if shape.architecture == "llama" and shape.head_width % 2:
        raise _wrong(
            "width",
            found=f"{shape.width}, a head width of {shape.head_width}",
            allowed="an even head width, since RoPE turns pairs",
            remedy="change width or heads",
        )
    if shape.architecture == "gpt2" and shape.kv_heads != shape.heads:
        raise _wrong(
            "kvHeads",
            found=shape.kv_heads,
            allowed=f"absent for gpt2, or heads = {shape.heads}",
            remedy="remove kvHeads, or use architecture: llama",
        )
    for name in FOREIGN_FIELDS[shape.architecture]:
        if given.get(name):
            raise _wrong(
                to_camel(name),
                found=given[name],
                allowed=f"absent, since {shape.architecture} has no such thing",
                remedy="remove it",
            )
    return shape


def _wrong(field: str, *, found: object, allowed: str, remedy: str) -> SpecError:
    return SpecError(explain(f"spec.model.{field}", found=found, allowed=allowed, remedy=remedy))
