"""A model's tensors under transformers' names and in its arrangement, both ways.

Rotary positions. Ours turn pairs of neighbours (0, 1), (2, 3), …, each a complex number; transformers turns element i
with element i + D/2. The angles are the same, so it is enough to reorder the rows of each query and key head: even
rows first, then odd ones. A score is a sum over the elements of a head, and does not see their order.

Norms over all heads together have weights [H, D] here, in a vector there. Those of Gemma count from 1: `offset`.

Scores. The head of a model that gives one number for each position is a vector of ours, and in transformers' sequence
classification a matrix of one row, `score`.

GPT-2. transformers keeps query, key and value as one matrix, all matrices transposed ([in, out]), and always has
biases; where ours has none, they are zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from kindling_api.v1alpha1.model import ModelShape

Named = tuple[str, Tensor]

_LLAMA = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_NORMS = {
    "before": {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"},
    "after": {
        "attention_output_norm": "post_attention_layernorm",
        "feed_forward_output_norm": "post_feedforward_layernorm",
    },
    "both": {
        "attention_norm": "input_layernorm",
        "attention_output_norm": "post_attention_layernorm",
        "feed_forward_norm": "pre_feedforward_layernorm",
        "feed_forward_output_norm": "post_feedforward_layernorm",
    },
}
"""The norms of a layer, by where they stand."""
_GPT2 = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attention_norm": "ln_1",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
_GPT2_OURS = {theirs: ours for ours, theirs in _GPT2.items()}

_PROJECTIONS = ("attention.query", "attention.key", "attention.value")
_ROTATED = ("attention.query", "attention.key", "attention.query_norm", "attention.key_norm")
_HEAD_NORMS = _ROTATED[2:]
_TRANSPOSED = ("attention.output", "feed_forward.up", "feed_forward.down")  # Conv1D: [in, out]
_BUFFERS = ("attn.bias", "attn.masked_bias", "self_attn.rotary_emb.inv_freq")  # old files hold what is computed, too

_SCORE = "score.weight"

_OURS_IN_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_THEIRS_IN_LAYER = re.compile(r"(?:model\.layers|layers|transformer\.h|h)\.(\d+)\.(.+)")
_BARE = ("embed_tokens.weight", "norm.weight")  # of files of a bare model, without its head


def to_hugging_face(shape: ModelShape, weights: Iterable[Named]) -> Iterator[Named]:
    """Our tensors as transformers' ones; they must come in the model's order, layer by layer.

    At any time no more than one layer is in memory.
    """
    if shape.architecture == "llama":
        theirs: Iterable[Named] = (_to_llama(shape, name, tensor) for name, tensor in weights)
    else:
        theirs = _to_gpt2(shape, weights)
    for name, tensor in theirs:
        is_score = name == "lm_head.weight" and tensor.dim() == 1
        yield (_SCORE, tensor[None]) if is_score else (name, tensor)


def from_hugging_face(shape: ModelShape, name: str, tensor: Tensor) -> list[Named]:
    """Our tensors in one of transformers': none (a buffer, or a head that is tied), one, or query, key and value."""
    layer = _THEIRS_IN_LAYER.fullmatch(name)
    prefix, path = (f"layers.{layer[1]}.", layer[2]) if layer else ("", name)
    if path == _SCORE:
        return [("head.weight", tensor[0] if len(tensor) == 1 else tensor)]  # one row a label, of which ours has one
    if path in _BUFFERS or (path == "lm_head.weight" and shape.tied_embeddings):
        return []
    module, _, kind = path.rpartition(".")
    if shape.architecture == "llama":
        return [_from_llama(shape, prefix, f"model.{path}" if path in _BARE and not layer else path, tensor)]
    if module == "attn.c_attn":
        parts = (tensor.T if kind == "weight" else tensor).chunk(3)
        return [(f"{prefix}{ours}.{kind}", part) for ours, part in zip(_PROJECTIONS, parts, strict=True)]
    if not layer and not path.startswith(("transformer.", "lm_head.")):
        module = f"transformer.{module}"  # files of the bare GPT2Model have no prefix
    ours = _GPT2_OURS.get(module, module)
    return [(f"{prefix}{ours}.{kind}", tensor.T if ours in _TRANSPOSED and kind == "weight" else tensor)]


def _to_llama(shape: ModelShape, name: str, tensor: Tensor) -> Named:
    layer = _OURS_IN_LAYER.fullmatch(name)
    prefix, path = (f"model.layers.{layer[1]}.", layer[2]) if layer else ("", name)
    module, _, kind = path.rpartition(".")
    theirs = (_LLAMA | _NORMS[shape.variant.norms])[module]
    rows = rotated_rows(shape, tensor.flatten() if module in _HEAD_NORMS else tensor, module, to_pairs=False)
    return f"{prefix}{theirs}.{kind.replace('offset', 'weight')}", rows


def _from_llama(shape: ModelShape, prefix: str, path: str, tensor: Tensor) -> Named:
    module, _, kind = path.rpartition(".")
    ours = {theirs: ours for ours, theirs in (_LLAMA | _NORMS[shape.variant.norms]).items()}.get(module, module)
    if shape.variant.offset_norms and ours.endswith("norm"):
        kind = kind.replace("weight", "offset")
    rows = rotated_rows(shape, tensor, ours, to_pairs=True)
    if shape.variant.qk_norm == "width" and ours in _HEAD_NORMS:
        rows = rows.unflatten(0, (-1, shape.head_width))  # a norm over all heads has their two dimensions
    return f"{prefix}{ours}.{kind}", rows


def rotated_rows(shape: ModelShape, tensor: Tensor, module: str, *, to_pairs: bool) -> Tensor:
    """The rows of a query or key matrix in the order of the other rotation; any other tensor as it is."""
    if module not in _ROTATED or tensor.shape[0] % shape.head_width:
        return tensor  # of another size: whoever reads it finds that
    split = (2, shape.head_width // 2) if to_pairs else (shape.head_width // 2, 2)
    return tensor.unflatten(0, (-1, *split)).transpose(1, 2).flatten(0, 2)


def _to_gpt2(shape: ModelShape, weights: Iterable[Named]) -> Iterator[Named]:
    for layer, items in groupby(weights, key=lambda named: _layer_of(named[0])):
        tensors = dict(items)
        if layer is not None:
            yield from _to_gpt2_layer(int(layer), {name.split(".", 2)[2]: tensor for name, tensor in tensors.items()})
            continue
        for name, tensor in tensors.items():
            module, _, kind = name.rpartition(".")
            yield f"{_GPT2[module]}.{kind}", tensor
            if module == "norm" and not shape.bias:
                yield f"{_GPT2[module]}.bias", torch.zeros_like(tensor)


def _to_gpt2_layer(layer: int, tensors: dict[str, Tensor]) -> Iterator[Named]:
    prefix = f"transformer.h.{layer}."
    modules = ("attention_norm", "attention.output", "feed_forward_norm", "feed_forward.up", "feed_forward.down")
    for module in modules:
        weight = tensors[f"{module}.weight"]
        yield f"{prefix}{_GPT2[module]}.weight", weight.T if module in _TRANSPOSED else weight
        yield f"{prefix}{_GPT2[module]}.bias", _bias(tensors, module)
    yield f"{prefix}attn.c_attn.weight", torch.cat([tensors[f"{module}.weight"] for module in _PROJECTIONS]).T
    yield f"{prefix}attn.c_attn.bias", torch.cat([_bias(tensors, module) for module in _PROJECTIONS])


def _bias(tensors: dict[str, Tensor], module: str) -> Tensor:
    weight = tensors[f"{module}.weight"]
    bias = tensors.get(f"{module}.bias")
    return weight.new_zeros(weight.shape[0]) if bias is None else bias


def _layer_of(name: str) -> str | None:
    layer = _OURS_IN_LAYER.fullmatch(name)
    return layer[1] if layer else None
