"""The families that llama.cpp computes, what of them it does not, and the keys by which it is told of sizes.

After llama.cpp's `src/models/*.cpp` (what a graph reads) and `conversion/*.py` (what is written), of July 2026.
"""

from __future__ import annotations

import math

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.variant import RopeScaling

ARCHITECTURES = {
    "gpt2": MODEL_ARCH.GPT2,
    "llama": MODEL_ARCH.LLAMA,
    "mistral": MODEL_ARCH.LLAMA,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "smollm3": MODEL_ARCH.SMOLLM3,
    "olmo2": MODEL_ARCH.OLMO2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
}
"""By our family."""

_ROPE_KINDS = {
    "llama": ("linear", "llama3", "yarn"),
    "mistral": ("linear", "llama3", "yarn"),
    "gemma3_text": ("linear",),
}
"""Kinds of lowered rotary frequencies, by family; of the others `linear` and `yarn`."""
_GEMMA3_27B, _GEMMA3_PERIOD = 62, 6
"""Layers of the one Gemma 3 whose scores are divided by the root of width / heads; each so many layers one sees all."""
_GEMMA3_WINDOW_THETA = 10_000.0
_ROPELESS_PERIOD = 4
"""Each so many layers of SmolLM3 one has no rotary positions (`n_no_rope_layer_step`)."""


def family_of(shape: ModelShape) -> str:
    """The name by which a shape's family is found in tables."""
    return "gpt2" if shape.architecture == "gpt2" else shape.variant.family


def architecture_of(shape: ModelShape, where: str) -> MODEL_ARCH:
    """What llama.cpp calls the model.

    Raises:
        SpecError: llama.cpp has no such family, or computes it otherwise; `where` names the model.
    """
    family = family_of(shape)
    if family not in ARCHITECTURES:
        raise _refusal(where, "model_type", family, ", ".join(ARCHITECTURES))
    for field, found, allowed, holds in _conditions(shape, family):
        if not holds:
            raise _refusal(where, field, found, f"{allowed}, since llama.cpp computes no other {family}")
    return ARCHITECTURES[family]


def write_sizes(writer: GGUFWriter, shape: ModelShape, vocab_size: int) -> None:
    """The keys of a model's sizes and rotary positions."""
    writer.add_vocab_size(vocab_size)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.heads)
    if shape.architecture == "gpt2":
        writer.add_layer_norm_eps(shape.norm_epsilon)
        return
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_theta)
    if shape.variant.rope_scaling is not None:
        _write_scaling(writer, shape.variant.rope_scaling)
    if shape.variant.family == "gemma3_text" and shape.variant.window is not None:
        _write_windows(writer, shape)


def _conditions(shape: ModelShape, family: str) -> list[tuple[str, object, str, bool]]:
    """Fields of config.json, what is there, what llama.cpp computes, and whether that is so."""
    variant, scaling = shape.variant, shape.variant.rope_scaling
    kinds = _ROPE_KINDS.get(family, ("linear", "yarn"))
    ropeless = tuple(range(_ROPELESS_PERIOD - 1, shape.layers, _ROPELESS_PERIOD)) if family == "smollm3" else ()
    root = family == "gemma3_text" and shape.layers == _GEMMA3_27B
    scalar = shape.width // shape.heads if root else shape.head_width
    sees_all = not variant.windowed_layers or (variant.window or 0) >= shape.context
    whole_width = shape.head_width * shape.heads == shape.width
    return [
        ("sliding_window", variant.window, "none", sees_all or family == "gemma3_text"),
        ("rope_scaling.rope_type", scaling and scaling.kind, " or ".join(kinds), not scaling or scaling.kind in kinds),
        ("rope_scaling.truncate", False, "true", not scaling or scaling.truncate),
        ("attention_bias", True, "false", variant.attention_bias != "all" or family == "llama"),
        (
            "head_dim", shape.head_width, "hidden_size / num_attention_heads",
            whole_width or family not in ("qwen2", "olmo2"),
        ),
        (
            "no_rope_layers", variant.unrotated_layers, f"0 for each {_ROPELESS_PERIOD}th layer alone",
            variant.unrotated_layers == ropeless,
        ),
        ("query_pre_attn_scalar", variant.attention_scalar, str(scalar), variant.attention_scalar in (None, scalar)),
        ("tie_word_embeddings", True, "false", not shape.tied_embeddings or family != "olmo2"),
    ]  # fmt: skip


def _write_scaling(writer: GGUFWriter, scaling: RopeScaling) -> None:
    if scaling.kind == "llama3":
        return  # a tensor says so (`tensors.rope_factors`)
    writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "linear":
        return
    assert scaling.original_context is not None
    writer.add_rope_scaling_orig_ctx_len(scaling.original_context)
    writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
    writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)
    of_llama_cpp = 1.0 + 0.1 * math.log(scaling.factor) if scaling.factor > 1 else 1.0  # YaRN, equation 22
    if not math.isclose(scaling.attention_factor, of_llama_cpp):
        writer.add_rope_scaling_attn_factors(scaling.attention_factor / of_llama_cpp)


def _write_windows(writer: GGUFWriter, shape: ModelShape) -> None:
    """What differs from Gemma 3 as published has keys that only newer readers know."""
    variant, windowed = shape.variant, set(shape.variant.windowed_layers)
    assert variant.window is not None
    writer.add_sliding_window(variant.window)
    if windowed != {each for each in range(shape.layers) if (each + 1) % _GEMMA3_PERIOD}:
        writer.add_sliding_window_pattern([each in windowed for each in range(shape.layers)])
    theta = variant.window_rope_theta or shape.rope_theta
    if theta != _GEMMA3_WINDOW_THETA:
        writer.add_rope_freq_base_swa(theta)


def name_of(architecture: MODEL_ARCH) -> str:
    """As in `general.architecture`."""
    return MODEL_ARCH_NAMES[architecture]


def _refusal(where: str, field: str, found: object, allowed: str) -> SpecError:
    remedy = "export it without --to gguf, for transformers"
    return SpecError(explain(f"{where}: {field}", found=found, allowed=allowed, remedy=remedy))
