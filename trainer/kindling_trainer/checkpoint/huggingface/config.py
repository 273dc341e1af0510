"""A model's sizes as transformers writes them in config.json, both ways."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.model import ModelShape

Config = dict[str, Any]


def to_config(shape: ModelShape, vocab_size: int, end_of_document: int | None) -> Config:
    """The config.json of `LlamaForCausalLM` or `GPT2LMHeadModel`, with fp32 weights; see `judging`."""
    common = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "torch_dtype": "float32",
        "bos_token_id": end_of_document,  # given even when null: the classes have defaults of their own
        "eos_token_id": end_of_document,
        "initializer_range": 0.02,
    }
    return common | (_to_llama(shape) if shape.architecture == "llama" else _to_gpt2(shape))


def judging(config: Config, padding: int | None) -> Config:
    """The config.json of the same model with a head that judges: a sequence classification with one label. It reads the
    last token that is not `padding`."""
    (name,) = config["architectures"]
    return config | {
        "architectures": [_JUDGES[name]],
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "pad_token_id": padding,
    }


def judges(config: Config) -> bool:
    """Whether config.json declares a model that judges."""
    return any(name in _JUDGES.values() for name in config.get("architectures") or ())


def from_config(config: Config, where: str) -> tuple[ModelShape, int]:
    """The shape and the vocabulary's size that config.json declares.

    `vocab_multiple` is 1, and `bias` is true for GPT-2: there it always has them, though they may be zeros.

    Raises:
        SpecError: the model is of another kind, or uses what ours do not have; `where` names the file.
    """
    kind = config.get("model_type")
    if kind not in ("llama", "gpt2"):
        raise _refusal(where, "model_type", kind, "llama or gpt2")
    fixed = _LLAMA_FIXED if kind == "llama" else _GPT2_FIXED
    for field, allowed in (_COMMON_FIXED | fixed).items():
        if config.get(field, allowed[0]) not in allowed:
            raise _refusal(where, field, config[field], " or ".join(str(value) for value in allowed))
    try:
        shape = _from_llama(config, where) if kind == "llama" else _from_gpt2(config)
        vocab_size = config["vocab_size"]
    except KeyError as error:
        raise _refusal(where, str(error.args[0]), "nothing", "a size") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(where, str(first["loc"][-1]), first["msg"], "a size that Kindling can build") from error
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise _refusal(where, "vocab_size", vocab_size, "a whole number from 1")
    if shape.width % shape.heads or shape.heads % shape.kv_heads:
        found = f"width {shape.width}, {shape.heads} heads, {shape.kv_heads} key-value heads"
        raise _refusal(where, "sizes", found, "sizes that divide")
    if kind == "llama" and shape.head_width % 2:
        raise _refusal(where, "sizes", f"a head width of {shape.head_width}", "an even one, since RoPE turns pairs")
    if config.get("head_dim") not in (None, shape.head_width):
        raise _refusal(where, "head_dim", config["head_dim"], f"width / heads = {shape.head_width}")
    return shape, vocab_size


def _to_llama(shape: ModelShape) -> Config:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn_width,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def _to_gpt2(shape: ModelShape) -> Config:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_embd": shape.width,
        "n_inner": shape.ffn_width,
        "n_positions": shape.context,
        "layer_norm_epsilon": shape.norm_epsilon,
        "activation_function": "gelu_new",
        "embd_pdrop": shape.dropout,
        "attn_pdrop": shape.dropout,
        "resid_pdrop": shape.dropout,
    }


def _from_llama(config: Config, where: str) -> ModelShape:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # transformers from 5 on; before
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise _refusal(where, "rope_scaling", rope, "none: plain rotary positions")
    return ModelShape(
        architecture="llama",
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        width=config["hidden_size"],
        ffn_width=config["intermediate_size"],
        context=config["max_position_embeddings"],
        rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10_000.0,
        norm_epsilon=config.get("rms_norm_eps", 1e-6),
        tied_embeddings=config.get("tie_word_embeddings", False),
    )


def _from_gpt2(config: Config) -> ModelShape:
    return ModelShape(
        architecture="gpt2",
        layers=config["n_layer"],
        heads=config["n_head"],
        kv_heads=config["n_head"],
        width=config["n_embd"],
        ffn_width=config.get("n_inner") or 4 * config["n_embd"],
        context=config["n_positions"],
        dropout=config.get("resid_pdrop", 0.1),
        norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=config.get("tie_word_embeddings", True),
        bias=True,
    )


_JUDGES = {
    "LlamaForCausalLM": "LlamaForSequenceClassification",
    "GPT2LMHeadModel": "GPT2ForSequenceClassification",
}

# Fields of config.json that change what the model computes, and the values that ours compute; the first is the
# default of transformers' own class.
_COMMON_FIXED: dict[str, tuple[Any, ...]] = {"quantization_config": (None,)}
_LLAMA_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
}
_GPT2_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def _refusal(where: str, field: str, found: object, allowed: str) -> SpecError:
    return SpecError(
        explain(f"{where}: {field}", found=found, allowed=allowed, remedy="start from a model that Kindling can build")
    )
