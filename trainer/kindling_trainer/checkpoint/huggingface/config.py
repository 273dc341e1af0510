"""A model's sizes as transformers writes them in config.json, both ways; `families` has the table of fields."""

from __future__ import annotations

from pydantic import ValidationError

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.checkpoint.huggingface.families import FAMILIES, Config, FamilyFiles, nearest_family
from kindling_trainer.checkpoint.huggingface.variants import read_variant, refusal, write_variant

_NUMBERS = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window",
    "sliding_window_pattern", "max_position_embeddings", "query_pre_attn_scalar", "no_rope_layer_interval",
    "max_window_layers", "rope_theta", "rope_local_base_freq",
}  # fmt: skip
_REMEDY = "start from a model that Kindling can build"


def to_config(shape: ModelShape, vocab_size: int, special: SpecialTokens) -> Config:
    """The config.json of a decoder of this shape, with fp32 weights; see `reward_model_config`.

    Of a model that was made from one of this shape, the fields of that one stay.
    """
    kept = dict(special.config)
    kept = kept if _describes(kept, shape) else {}
    config = kept or (_to_llama(shape) if shape.architecture == "llama" else _to_gpt2(shape))
    dtype = "dtype" if "dtype" in kept else "torch_dtype"
    tokens = {"bos_token_id": special.bos, "eos_token_id": special.eos}  # even null: the classes have defaults
    return {
        "initializer_range": 0.02,
        **config,
        "vocab_size": vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        dtype: "float32",
        **tokens,
        **special.numbered,
    }


def reward_model_config(config: Config, padding: int | None) -> Config:
    """The config.json of the same model with a head that scores: a sequence classification with one label. It reads the
    last token that is not `padding`."""
    return config | {
        "architectures": [FAMILIES[config["model_type"]].classifier],
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "pad_token_id": padding,
    }


def is_reward_model(config: Config) -> bool:
    """Whether config.json declares a model that scores."""
    classifiers = {files.classifier for files in FAMILIES.values()}
    return any(name in classifiers for name in config.get("architectures") or ())


def check_labels(config: Config, where: str) -> None:
    """Refuse a classifier with several labels: which of them is the reward, and with which sign, nothing says.

    Raises:
        SpecError: it has; `where` names the file. One that leaves their number out is told by its weights.
    """
    labels = config.get("id2label")
    count = config.get("num_labels", 1) if labels is None else len(labels)
    if count != 1:
        found = f"{count} labels" if labels is None else f"{count} labels: {', '.join(map(str, labels.values()))}"
        remedy = "train a reward model with one output, which is the reward"
        raise SpecError(explain(f"{where}: id2label", found=found, allowed="one label", remedy=remedy))


def from_config(config: Config, where: str) -> tuple[ModelShape, int]:
    """The shape and the vocabulary's size that config.json declares.

    `vocab_multiple` is 1, and `bias` is true for GPT-2: there it always has them, though they may be zeros.

    Raises:
        SpecError: the model is of another kind, or uses what ours do not have; `where` names the file.
    """
    kind = config.get("model_type")
    files = FAMILIES.get(str(kind))
    if files is None:
        raise _unknown_family(config, where)
    _check_fields(config, files, where)
    try:
        shape = _from_gpt2(config, where) if kind == "gpt2" else _from_llama(files.defaults | config, where)
        vocab_size = config["vocab_size"]
    except KeyError as error:
        raise refusal(where, str(error.args[0]), "nothing", "a size") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise refusal(where, str(first["loc"][-1]), first["msg"], "a size that Kindling can build") from error
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise refusal(where, "vocab_size", vocab_size, "a whole number from 1")
    if (shape.variant.head_dim is None and shape.width % shape.heads) or shape.heads % shape.kv_heads:
        found = f"width {shape.width}, {shape.heads} heads, {shape.kv_heads} key-value heads"
        raise refusal(where, "sizes", found, "sizes that divide")
    if kind != "gpt2" and shape.head_width % 2:
        raise refusal(where, "sizes", f"a head width of {shape.head_width}", "an even one, since RoPE turns pairs")
    return shape, vocab_size


def _check_fields(config: Config, files: FamilyFiles, where: str) -> None:
    for field, values in files.fixed.items():
        if config.get(field, values[0]) not in values:
            raise refusal(where, field, config[field], " or ".join(str(value) for value in values))
    if unknown := sorted(config.keys() - files.known):
        allowed = f"the fields that are known of a {config['model_type']} model"
        remedy = "remove it if it does not change what the model computes; otherwise " + _REMEDY
        found = config[unknown[0]]
        raise SpecError(explain(f"{where}: {unknown[0]}", found=found, allowed=allowed, remedy=remedy))
    for field in _NUMBERS & config.keys():
        if type(value := config[field]) not in (int, float, type(None)):
            raise refusal(where, field, f"{value}, of type {type(value).__name__}", "a number")


def _unknown_family(config: Config, where: str) -> SpecError:
    nearest, unknown = nearest_family(config)
    lacks = f", which has no {', '.join(unknown)}" if unknown else ", which has all of its fields"
    found = f"{config.get('model_type')} (the nearest is {nearest}{lacks})"
    return refusal(where, "model_type", found, f"one of {', '.join(FAMILIES)}")


def _describes(config: Config, shape: ModelShape) -> bool:
    """Whether a configuration is that of a model of this shape, whatever its vocabulary, and whether or not its head is
    tied: that of a model that scores is not."""
    if not config:
        return False
    try:
        found, _ = from_config(config, "")
    except SpecError:
        return False
    same = {"vocab_multiple": shape.vocab_multiple, "tied_embeddings": shape.tied_embeddings}
    return found.model_copy(update=same) == shape


def _to_llama(shape: ModelShape) -> Config:
    family = shape.variant.family
    return {
        "model_type": family,
        "architectures": [FAMILIES[family].decoder],
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn_width,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        **write_variant(shape),
    }


def _from_llama(config: Config, where: str) -> ModelShape:
    theta, variant = read_variant(config, where)
    return ModelShape(
        architecture="llama",
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"] or config["num_attention_heads"],
        width=config["hidden_size"],
        ffn_width=config["intermediate_size"],
        context=config["max_position_embeddings"],
        rope_theta=theta,
        norm_epsilon=config["rms_norm_eps"],
        tied_embeddings=config["tie_word_embeddings"],
        variant=variant,
    )


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


def _from_gpt2(config: Config, where: str) -> ModelShape:
    dropout = config.get("resid_pdrop", 0.1)
    for field in ("embd_pdrop", "attn_pdrop"):
        if config.get(field, 0.1) != dropout:
            raise refusal(where, field, config.get(field, 0.1), f"{dropout}, as resid_pdrop")
    return ModelShape(
        architecture="gpt2",
        layers=config["n_layer"],
        heads=config["n_head"],
        kv_heads=config["n_head"],
        width=config["n_embd"],
        ffn_width=config.get("n_inner") or 4 * config["n_embd"],
        context=config["n_positions"],
        dropout=dropout,
        norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=config.get("tie_word_embeddings", True),
        bias=True,
    )
