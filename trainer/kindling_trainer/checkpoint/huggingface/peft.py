"""Adapters as a PEFT folder, both ways: adapter_config.json and adapter_model.safetensors, as `peft` loads them on the
base (its documentation, "Checkpoint format").

GPT-2. transformers has query, key and value as one matrix, and so one adapter: ours stand in it side by side, with as
many times the rank, and the same scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from kindling_api.base import digest_of
from kindling_api.errors import SpecError, explain
from kindling_api.hub import parse_hub_uri
from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import put_file
from kindling_trainer.checkpoint.huggingface.folder import load_tensors, put_json
from kindling_trainer.checkpoint.huggingface.tokenizer import read_json
from kindling_trainer.checkpoint.huggingface.weights import Named, from_hugging_face, to_hugging_face
from kindling_trainer.checkpoint.part_stream import read_header
from kindling_trainer.models.lora import DOWN, TARGETS, UP

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

BASE = "kindling.base"
"""Where the metadata of the weights has the fingerprint of the base that they were trained on."""

_PREFIX = "base_model.model."
_FUSED = ("attention.query", "attention.key", "attention.value")
_GPT2 = {"attention.output": "attn.c_proj", "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"}
_VOCABULARY = ("embedding.weight", "head.weight")
_REFUSED = (
    "modules_to_save", "use_dora", "lora_bias", "layer_replication", "trainable_token_indices", "target_parameters",
    "alora_invocation_tokens", "use_qalora",
)  # fmt: skip
"""Settings of an adapter that is more than W + scale · BA."""


def export_adapter(
    store: ObjectStore, parts: dict[str, Tensor], shape: ModelShape, lora: LoRA, *, base_uri: str | None, base: str
) -> list[FileEntry]:
    """Write the adapters into the folder `store`.

    Args:
        parts: both matrices of each adapter by our names, whole, on the CPU; what else the base has not: the head of a
            model that scores, or the embedding and the head, where they have got rows for new tokens.
        base_uri: of a base on the Hugging Face Hub; None for others, whose place means nothing elsewhere.
        base: the fingerprint of the base.

    Raises:
        StorageError: the store cannot be written.
    """
    scored = parts.get("head.weight") is not None and parts["head.weight"].dim() == 1
    tensors = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in _to_peft(shape, parts)}
    return [
        put_json(store, ADAPTER_CONFIG, _config(shape, lora, scored=scored, base_uri=base_uri)),
        put_file(store, ADAPTER_WEIGHTS, save(tensors, metadata={"format": "pt", BASE: base})),
    ]


def fingerprinted(shape: ModelShape) -> str:
    """The weight by which a base is known: no two that are worth an adapter have it in common."""
    return f"layers.{shape.layers - 1}.feed_forward.down.weight"


def fingerprint(weight: Tensor) -> str:
    """Its digest in bfloat16: the same for a base that is kept in another precision."""
    return digest_of(weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())


def _config(shape: ModelShape, lora: LoRA, *, scored: bool, base_uri: str | None) -> dict[str, Any]:
    """What peft.LoraConfig reads."""
    modules = [TARGETS[target] for target in lora.targets_in(shape)]
    fused = sum(module in _FUSED for module in modules) if shape.architecture == "gpt2" else 0
    times = fused**0.5 if lora.rank_stabilized else fused
    base = None if base_uri is None else parse_hub_uri(base_uri)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if scored else "CAUSAL_LM",
        "base_model_name_or_path": base and base.name,
        "revision": base and base.revision,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilized,
        "target_modules": sorted(dict.fromkeys(_suffix(shape, module) for module in modules)),
        "rank_pattern": {"c_attn": fused * lora.rank} if fused > 1 else {},
        "alpha_pattern": {"c_attn": times * lora.alpha} if fused > 1 else {},
        "fan_in_fan_out": shape.architecture == "gpt2",
        "modules_to_save": ["score"] if scored else None,
        "bias": "none",
        "inference_mode": True,
    }


def _suffix(shape: ModelShape, module: str) -> str:
    """The end of the name of a linear layer in transformers."""
    if shape.architecture == "llama":
        return next(target for target, ours in TARGETS.items() if ours == module)
    return "attn.c_attn" if module in _FUSED else _GPT2[module]


def _to_peft(shape: ModelShape, parts: dict[str, Tensor]) -> Iterator[Named]:
    """The tensors by transformers' names."""
    lows = {name.removesuffix(f".{DOWN}"): tensor for name, tensor in parts.items() if name.endswith(DOWN)}
    pairs = {module: (low, parts[f"{module}.{UP}"]) for module, low in lows.items()}
    for module, (low, high) in (_gpt2 if shape.architecture == "gpt2" else _llama)(shape, pairs).items():
        yield f"{module}.{DOWN}.weight", low
        yield f"{module}.{UP}.weight", high
    body = "transformer.wte" if shape.architecture == "gpt2" else "model.embed_tokens"
    for name, theirs in (("embedding.weight", body), ("head.weight", "lm_head")):
        tensor = parts.get(name)
        if tensor is not None:
            scores = tensor.dim() == 1
            yield f"{'score' if scores else theirs}.weight", tensor[None] if scores else tensor


def _llama(shape: ModelShape, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """The rows of B are those of the matrix, in the order of the other rotation."""
    found = {}
    for module, (low, high) in pairs.items():
        ((theirs, rows),) = to_hugging_face(shape, [(f"{module}.weight", high)])
        found[theirs.removesuffix(".weight")] = low, rows
    return found


def _gpt2(shape: ModelShape, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for layer in range(shape.layers):
        there = {module: pairs[f"layers.{layer}.{module}"] for module in (*_FUSED, *_GPT2)
                 if f"layers.{layer}.{module}" in pairs}  # fmt: skip
        for module, theirs in _GPT2.items():
            if module in there:
                found[f"transformer.h.{layer}.{theirs}"] = there[module]
        if fused := [module for module in _FUSED if module in there]:
            found[f"transformer.h.{layer}.attn.c_attn"] = _side_by_side({module: there[module] for module in fused})
    return found


def _side_by_side(pairs: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One adapter for query, key and value [3W, W], from those [W, W] of some of them."""
    low = torch.cat([low for low, _ in pairs.values()])
    width, rank = next(iter(pairs.values()))[1].shape
    high = low.new_zeros(len(_FUSED) * width, len(low))
    for place, (module, (_, each)) in enumerate(pairs.items()):
        row = _FUSED.index(module) * width
        high[row : row + width, place * rank : (place + 1) * rank] = each
    return low, high


@dataclass(frozen=True)
class LowRank:
    """What is added to one linear layer: scale · BA."""

    low: Tensor
    """A [rank, in]."""
    high: Tensor
    """B [out, rank]."""
    scale: float


@dataclass(frozen=True)
class PeftAdapter:
    """What a PEFT folder holds, by our names."""

    uri: str
    layers: dict[str, LowRank]
    """By the name of the linear layer."""
    rows: dict[str, Tensor]
    """The embedding, and the head where it is another matrix, of an adapter that has brought tokens."""
    base: str | None = None
    """The fingerprint of the base that it was trained on; None where another program wrote it."""


def read_adapter(store: ObjectStore, shape: ModelShape) -> PeftAdapter:
    """The adapters in the folder `store`, for a base of `shape`.

    Raises:
        SpecError: there are none, or such as Kindling has not; or they are of another rank than the folder says.
        IntegrityError: the file is torn.
        StorageError: the store cannot be read.
    """
    config = _checked_config(store)
    where = f"{store.uri}/{ADAPTER_WEIGHTS}"
    if not store.exists(ADAPTER_WEIGHTS):
        remedy = "save it with PEFT's save_pretrained, or with kindling export --to peft"
        raise SpecError(explain(where, found="no such file", allowed="safetensors", remedy=remedy))
    tensors = {name.removeprefix(_PREFIX): each.float() for name, each in load_tensors(store, ADAPTER_WEIGHTS).items()}
    layers: dict[str, LowRank] = {}
    rows: dict[str, Tensor] = {}
    for name, tensor in sorted(tensors.items()):
        module, _, part = name.removesuffix(".weight").rpartition(".")
        if part == DOWN and (high := tensors.get(f"{module}.{UP}.weight")) is not None:
            rank, scale = _rank_and_scale(config, module)
            if not rank == tensor.shape[0] == high.shape[1]:
                found = f"{module} of rank {tensor.shape[0]}"
                remedy = f"fetch or export the adapter again: {ADAPTER_CONFIG} is of another one"
                raise SpecError(
                    explain(where, found=found, allowed=f"rank {rank}, as {ADAPTER_CONFIG} says", remedy=remedy)
                )
            turned = high.T if shape.architecture == "gpt2" else high
            for ours, each in from_hugging_face(shape, f"{module}.weight", turned):
                layers[ours.removesuffix(".weight")] = LowRank(tensor, each, scale)
        elif part != UP:
            for ours, each in from_hugging_face(shape, name, tensor):
                if ours not in _VOCABULARY:
                    allowed, remedy = "low-rank adapters of linear layers", "merge it into its base, and serve that"
                    raise SpecError(explain(where, found=name, allowed=allowed, remedy=remedy))
                rows[ours] = each
    return PeftAdapter(store.uri, layers, rows, _base_of(store))


def _base_of(store: ObjectStore) -> str | None:
    _, header = read_header(store, ADAPTER_WEIGHTS)
    found: str | None = header.get("__metadata__", {}).get(BASE)
    return found


def _checked_config(store: ObjectStore) -> dict[str, Any]:
    where = f"{store.uri}/{ADAPTER_CONFIG}"
    if not store.exists(ADAPTER_CONFIG):
        remedy = "name the folder that PEFT's save_pretrained or kindling export --to peft wrote"
        raise SpecError(explain(where, found="no such file", allowed="a PEFT folder", remedy=remedy))
    config = read_json(store, ADAPTER_CONFIG)
    others = {name: config[name] for name in _REFUSED if config.get(name)}
    others |= {} if config.get("peft_type") == "LORA" else {"peft_type": config.get("peft_type")}
    others |= {} if config.get("bias", "none") == "none" else {"bias": config["bias"]}
    if others:
        name, value = next(iter(others.items()))
        remedy = "merge the adapter into its base with PEFT's merge_and_unload, and serve that"
        raise SpecError(explain(where, found=f"{name} {value!r}", allowed="plain LoRA, without biases", remedy=remedy))
    return config


def _rank_and_scale(config: dict[str, Any], module: str) -> tuple[int, float]:
    """Those of one linear layer, for which patterns may say others than the folder's own."""

    def of(pattern: str, default: str) -> Any:
        given = (config.get(pattern) or {}).items()
        return next((value for key, value in given if re.fullmatch(rf"(.*\.)?({key})", module)), config[default])

    rank, alpha = int(of("rank_pattern", "r")), float(of("alpha_pattern", "lora_alpha"))
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)
