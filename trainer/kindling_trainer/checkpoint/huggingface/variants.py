"""What config.json says beyond sizes: how a family differs from Llama, both ways."""

from __future__ import annotations

import math
from typing import Any

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.variant import RopeScaling, Variant
from kindling_trainer.checkpoint.huggingface.families import Config

_ROPE_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
        "mscale_all_dim", "truncate", "finetuned",
    ),
}  # fmt: skip
"""The kinds of rotary positions, with the fields of each."""
_ROPE_NUMBERS = (
    "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "beta_fast", "beta_slow",
    "attention_factor", "mscale", "mscale_all_dim", "rope_theta",
)  # fmt: skip
_ROPE_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def read_variant(config: Config, where: str) -> tuple[float, Variant]:
    """The base of the rotary frequencies, and what else differs from Llama, of a configuration with all defaults.

    Raises:
        SpecError: it has what ours do not; `where` names the file.
    """
    family = config["model_type"]
    gemma = family == "gemma3_text"
    theta, scaling, window_theta = (_gemma_rope if gemma else _rope)(config, where)
    window, windowed = _windowed(config, where)
    biased = "qkv" if family == "qwen2" else "all" if config["attention_bias"] else "none"
    return theta, Variant(
        family=family,
        head_dim=_head_dim(config),
        attention_bias=biased,  # type: ignore[arg-type]
        qk_norm={"qwen3": "head", "gemma3_text": "head", "olmo2": "width"}.get(family, "none"),  # type: ignore[arg-type]
        norms={"olmo2": "after", "gemma3_text": "both"}.get(family, "before"),  # type: ignore[arg-type]
        offset_norms=gemma,
        activation="gelu" if gemma else "silu",
        embedding_scale=config["hidden_size"] ** 0.5 if gemma else 1.0,
        attention_scalar=float(config["query_pre_attn_scalar"]) if gemma else None,
        rope_scaling=scaling,
        unrotated_layers=_unrotated(config, where) if family == "smollm3" else (),
        window=window,
        windowed_layers=windowed,
        window_rope_theta=window_theta,
    )


def write_variant(shape: ModelShape) -> Config:
    """The fields of config.json beyond sizes."""
    variant = shape.variant
    family, window = variant.family, variant.window
    config: Config = {"hidden_act": "silu", "attention_bias": variant.attention_bias == "all", "mlp_bias": False}
    if family != "llama":
        config["pad_token_id"] = None  # some classes have one by default
    if variant.rope_scaling is not None:
        config["rope_scaling"] = _write_scaling(variant.rope_scaling)
    match family:
        case "mistral":
            return config | {"sliding_window": window}
        case "qwen2":
            return config | _write_layers(shape) | {"attention_bias": True}
        case "qwen3":
            return config | _write_layers(shape)
        case "smollm3":
            rotated = [int(index not in variant.unrotated_layers) for index in range(shape.layers)]
            return config | _write_layers(shape) | {"no_rope_layers": rotated}
        case "gemma3_text":
            scalar = variant.attention_scalar or shape.head_width
            layers = _write_layers(shape)
            del layers["use_sliding_window"]
            return config | layers | {
                "hidden_act": "gelu_pytorch_tanh",
                "hidden_activation": "gelu_pytorch_tanh",
                "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
                "rope_local_base_freq": variant.window_rope_theta,
            }  # fmt: skip
    return config


def refusal(where: str, field: str, found: object, allowed: str) -> SpecError:
    """What is said of a field that ours cannot honour."""
    return SpecError(
        explain(f"{where}: {field}", found=found, allowed=allowed, remedy="start from a model that Kindling can build")
    )


def _head_dim(config: Config) -> int | None:
    """Where it is not width / heads."""
    given, width, heads = config.get("head_dim"), config["hidden_size"], config["num_attention_heads"]
    return None if given is None or given * heads == width else given


def _rope(config: Config, where: str) -> tuple[float, RopeScaling | None, float | None]:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}  # transformers before 5; from 5 on
    _check_rope(rope, "rope_scaling", where)
    return rope.get("rope_theta") or config["rope_theta"], _read_scaling(rope, config), None


def _gemma_rope(config: Config, where: str) -> tuple[float, RopeScaling | None, float | None]:
    """Global and local layers have frequencies of their own."""
    both = config.get("rope_parameters") or {}
    if not isinstance(both, dict) or both.keys() - {"full_attention", "sliding_attention"}:
        raise refusal(where, "rope_parameters", both, "full_attention and sliding_attention")
    full, local = both.get("full_attention") or {}, both.get("sliding_attention") or {}
    _check_rope(full, "rope_parameters", where)
    _check_rope(local, "rope_parameters", where)
    _check_rope(config.get("rope_scaling") or {}, "rope_scaling", where)
    full = {**full, **(config.get("rope_scaling") or {})}
    if _kind(local) != "default":
        raise refusal(where, "rope_parameters", local, "plain rotary positions in layers with a window")
    theta = full.get("rope_theta") or config["rope_theta"]
    return theta, _read_scaling(full, config), local.get("rope_theta") or config["rope_local_base_freq"]


def _kind(rope: Config) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def _check_rope(rope: Any, field: str, where: str) -> None:
    kinds = f"rotary positions of the kind {', '.join(_ROPE_FIELDS)}"
    if not isinstance(rope, dict) or _kind(rope) not in _ROPE_FIELDS:
        raise refusal(where, field, rope, kinds)
    fields = _ROPE_FIELDS[_kind(rope)]
    if unknown := sorted(rope.keys() - {*fields, *_ROPE_COMMON}):
        raise refusal(where, f"{field}.{unknown[0]}", rope[unknown[0]], f"of {_kind(rope)}, {', '.join(fields)}")
    if (part := rope.get("partial_rotary_factor")) not in (None, 1, 1.0):
        raise refusal(where, f"{field}.partial_rotary_factor", part, "1: whole heads are turned")
    needed = {"linear": fields, "llama3": fields[:3]}.get(_kind(rope), ())
    for name in (*needed, *(rope.keys() & {*_ROPE_NUMBERS})):
        if type(rope.get(name)) not in (int, float) and (name in needed or rope[name] is not None):
            raise refusal(where, f"{field}.{name}", rope.get(name, "nothing"), "a number")


def _read_scaling(rope: Config, config: Config) -> RopeScaling | None:
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    original = original or config["max_position_embeddings"]
    match _kind(rope):
        case "linear":
            return RopeScaling(kind="linear", factor=rope["factor"])
        case "llama3":
            return RopeScaling(
                kind="llama3",
                factor=rope["factor"],
                original_context=original,
                low_frequency_factor=rope["low_freq_factor"],
                high_frequency_factor=rope["high_freq_factor"],
            )
        case "yarn":
            factor = rope.get("factor") or config["max_position_embeddings"] / original
            return RopeScaling(
                kind="yarn",
                factor=factor,
                original_context=original,
                beta_fast=rope.get("beta_fast") or 32.0,
                beta_slow=rope.get("beta_slow") or 1.0,
                truncate=rope.get("truncate", True),
                attention_factor=_attention_factor(rope, factor),
            )
    return None


def _attention_factor(rope: Config, factor: float) -> float:
    """Peng et al. 2023, YaRN, equation 22; DeepSeek-V2 divides two of these."""

    def of(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    given, scale, all_scale = rope.get("attention_factor"), rope.get("mscale"), rope.get("mscale_all_dim")
    if given is not None:
        return float(given)
    return of(scale) / of(all_scale) if scale and all_scale else of(1.0)


def _write_scaling(scaling: RopeScaling) -> Config:
    config: Config = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.original_context is not None:
        config["original_max_position_embeddings"] = scaling.original_context
    match scaling.kind:
        case "llama3":
            low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
            config |= {"low_freq_factor": low, "high_freq_factor": high}
        case "yarn":
            config |= {name: getattr(scaling, name) for name in ("beta_fast", "beta_slow", "truncate")}
            config["attention_factor"] = scaling.attention_factor
    return config


def _windowed(config: Config, where: str) -> tuple[int | None, tuple[int, ...]]:
    """The window, and the layers that have it."""
    family, layers, window = config["model_type"], config["num_hidden_layers"], config["sliding_window"]
    if family in ("qwen2", "qwen3", "smollm3") and not config["use_sliding_window"]:
        window = None
    types = _layer_types(config, window)
    if len(types) != layers or set(types) - {_WINDOWED, _WHOLE}:
        raise refusal(where, "layer_types", types, f"{_WHOLE} or {_WINDOWED} for each of {layers} layers")
    windowed = tuple(index for index, kind in enumerate(types) if kind == _WINDOWED)
    if windowed and window is None:
        raise refusal(where, "sliding_window", window, f"positions, since there are layers of {_WINDOWED}")
    return (window, windowed) if windowed else (None, ())


_WINDOWED, _WHOLE = "sliding_attention", "full_attention"


def _layer_types(config: Config, window: int | None) -> list[str]:
    """What each layer sees, as the file says, or else as the family's own rule has it."""
    layers = range(config["num_hidden_layers"])
    if config.get("layer_types") is not None:
        return list(config["layer_types"])
    match config["model_type"]:
        case "mistral":
            windowed = set(layers) if window is not None else set()
        case "qwen2" | "qwen3":
            windowed = set(layers[config["max_window_layers"] :]) if window is not None else set()
        case "smollm3":
            windowed = {index for index, rotated in enumerate(_rotated(config)) if not rotated and window is not None}
        case "gemma3_text":
            windowed = {index for index in layers if (index + 1) % config["sliding_window_pattern"]}
        case _:
            windowed = set()
    return [_WINDOWED if index in windowed else _WHOLE for index in layers]


def _write_layers(shape: ModelShape) -> Config:
    windowed = shape.variant.windowed_layers
    types = [_WINDOWED if index in windowed else _WHOLE for index in range(shape.layers)]
    window = shape.variant.window
    return {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": types}


def _rotated(config: Config) -> list[int]:
    given, every = config.get("no_rope_layers"), config.get("no_rope_layer_interval", 4)
    layers = range(config["num_hidden_layers"])
    return list(given) if given is not None else [int((index + 1) % every != 0) for index in layers]


def _unrotated(config: Config, where: str) -> tuple[int, ...]:
    rotated = _rotated(config)
    if len(rotated) < config["num_hidden_layers"]:
        raise refusal(where, "no_rope_layers", rotated, "1 or 0 for each layer")
    return tuple(index for index in range(config["num_hidden_layers"]) if not rotated[index])
