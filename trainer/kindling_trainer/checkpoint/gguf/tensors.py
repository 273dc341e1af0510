"""A model's tensors under llama.cpp's names and in its arrangement.

Rotary positions. llama.cpp turns pairs of neighbours in Llama and SmolLM3, as ours do, and element i with element
i + D/2 in the others (`llama_model_rope_type`), for which rows are reordered as for transformers.

Norms that count from 1 have that 1 added. GPT-2's query, key and value are one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from gguf import MODEL_ARCH, MODEL_TENSOR, TENSOR_NAMES, GGMLQuantizationType

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.checkpoint.gguf.architecture import ARCHITECTURES, family_of
from kindling_trainer.checkpoint.huggingface.weights import Named, rotated_rows
from kindling_trainer.models.rotary import rotary_frequencies

_NAMES = {
    "embedding": MODEL_TENSOR.TOKEN_EMBD,
    "positions": MODEL_TENSOR.POS_EMBD,
    "norm": MODEL_TENSOR.OUTPUT_NORM,
    "head": MODEL_TENSOR.OUTPUT,
    "attention_norm": MODEL_TENSOR.ATTN_NORM,
    "attention.query": MODEL_TENSOR.ATTN_Q,
    "attention.key": MODEL_TENSOR.ATTN_K,
    "attention.value": MODEL_TENSOR.ATTN_V,
    "attention.output": MODEL_TENSOR.ATTN_OUT,
    "attention.query_norm": MODEL_TENSOR.ATTN_Q_NORM,
    "attention.key_norm": MODEL_TENSOR.ATTN_K_NORM,
    "attention_output_norm": MODEL_TENSOR.ATTN_POST_NORM,
    "feed_forward_norm": MODEL_TENSOR.FFN_NORM,
    "feed_forward.gate": MODEL_TENSOR.FFN_GATE,
    "feed_forward.up": MODEL_TENSOR.FFN_UP,
    "feed_forward.down": MODEL_TENSOR.FFN_DOWN,
    "feed_forward_output_norm": MODEL_TENSOR.FFN_POST_NORM,
}
"""By our modules."""
_PAIRS_OF_NEIGHBOURS = (MODEL_ARCH.LLAMA, MODEL_ARCH.SMOLLM3)
_PROJECTIONS = ("attention.query", "attention.key", "attention.value")
_IN_LAYER = re.compile(r"layers\.(\d+)\.(.+)")

TYPES = {
    torch.float32: GGMLQuantizationType.F32,
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
}


def to_gguf(shape: ModelShape, weights: Iterable[Named], dtype: torch.dtype | None) -> Iterator[Named]:
    """Our tensors as llama.cpp's: matrices in `dtype`, or as they are, vectors and positions in fp32.

    Query, key and value of a layer of GPT-2 must come one after the other.
    """
    if (factors := rope_factors(shape)) is not None:
        yield f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FREQS]}.weight", factors
    parts: list[torch.Tensor] = []
    for name, tensor in weights:
        layer = _IN_LAYER.fullmatch(name)
        module, _, kind = (layer[2] if layer else name).rpartition(".")
        if shape.architecture == "gpt2" and module in _PROJECTIONS:
            parts.append(tensor)
            if len(parts) < len(_PROJECTIONS):
                continue
            target, arranged, parts = MODEL_TENSOR.ATTN_QKV, torch.cat(parts), []
        else:
            target, arranged = _NAMES[module], _arranged(shape, module, kind, tensor)
        is_matrix = arranged.dim() > 1 and target != MODEL_TENSOR.POS_EMBD  # ggml adds positions in fp32
        path = TENSOR_NAMES[target].format(bid=layer[1] if layer else None)
        yield (
            f"{path}.{kind.replace('offset', 'weight')}",
            arranged.to((dtype or arranged.dtype) if is_matrix else torch.float32),
        )


def rope_factors(shape: ModelShape) -> torch.Tensor | None:
    """What the rotary frequencies are divided by, of Llama 3's scaling: fp32 [D/2]."""
    scaling = shape.variant.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return None
    device = torch.device("cpu")
    plain = rotary_frequencies(shape.head_width, shape.rope_theta, None, device)
    return plain / rotary_frequencies(shape.head_width, shape.rope_theta, scaling, device)


def _arranged(shape: ModelShape, module: str, kind: str, tensor: torch.Tensor) -> torch.Tensor:
    if module.endswith(("query_norm", "key_norm")):
        tensor = tensor.flatten()  # one over all heads has their two dimensions
    if kind == "offset":
        tensor = tensor.float() + 1
    if shape.architecture == "gpt2" or ARCHITECTURES[family_of(shape)] in _PAIRS_OF_NEIGHBOURS:
        return tensor
    return rotated_rows(shape, tensor, module, to_pairs=False)
