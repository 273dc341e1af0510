"""Parameters, bytes and FLOPs of a model, from its shape alone: no torch, so that `kindling plan` answers at once.

`vocab_size` is the padded one everywhere, as `ModelShape.padded_vocab` gives it: padding is computed like the rest.
"""

from __future__ import annotations

from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.model import ModelShape

MASTER_BYTES = 4
"""Weights are kept in fp32 whatever the arithmetic (Micikevicius et al. 2018, Mixed Precision Training, §3.1)."""
ADAM_BYTES = 8
"""Two fp32 moments for each parameter (Loshchilov & Hutter 2019)."""
MOMENTUM_BYTES = 4
"""One, for each parameter that Muon trains."""


def parameters(shape: ModelShape, vocab_size: int) -> int:
    """Every trained number of the model; a tied head counts once, with the embedding."""
    head = 0 if shape.tied_embeddings else vocab_size * shape.width
    return embedding_parameters(shape, vocab_size) + shape.layers * layer_parameters(shape) + _norm(shape) + head


def scored_parameters(shape: ModelShape, vocab_size: int) -> int:
    """The same of a reward model, whose head is one number for each dimension of the hidden state."""
    return parameters(shape.model_copy(update={"tied_embeddings": True}), vocab_size) + shape.width


def matmul_parameters(shape: ModelShape, vocab_size: int) -> int:
    """N of the FLOPs formula: the parameters by which every token is multiplied.

    The head counts, tied or not; looking up an embedding multiplies nothing.
    """
    return shape.layers * layer_parameters(shape) + _norm(shape) + vocab_size * shape.width


def adapter_parameters(shape: ModelShape, lora: LoRA) -> int:
    """Trained numbers of low-rank adapters: rank · (in + out) for each linear layer that has one.

    Raises:
        SpecError: the model's blocks have no such layer.
    """
    inner, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    into = {"q_proj": inner, "k_proj": kv_width, "v_proj": kv_width, "o_proj": inner}  # the other side is the width
    sides = sum(shape.width + into.get(target, shape.ffn_width) for target in lora.targets_in(shape))
    return shape.layers * lora.rank * sides


def checkpoint_bytes(shape: ModelShape, vocab_size: int, *, muon: bool = False, lora: LoRA | None = None) -> int:
    """Bytes of one checkpoint in the store: what is trained, in fp32, and the optimizer's moments."""
    if lora is not None:
        return (MASTER_BYTES + ADAM_BYTES) * adapter_parameters(shape, lora)
    less = (ADAM_BYTES - MOMENTUM_BYTES) * shape.layers * layer_matrices(shape) if muon else 0
    return (MASTER_BYTES + ADAM_BYTES) * parameters(shape, vocab_size) - less


def flops_per_token(shape: ModelShape, vocab_size: int, context: int, lora: LoRA | None = None) -> int:
    """FLOPs of training on one token: 6N + 12·L·H·Q·T (Chowdhery et al. 2022, PaLM, appendix B).

    L layers, H heads of width Q, sequences of T = `context` tokens. Forward and backward; attention is counted whole,
    though its causal half is never used; recomputation under activation checkpointing is not counted. Of N weights that
    are frozen, no gradient is computed: 4N, and 6 for each number of the adapters.
    """
    attention = 12 * shape.layers * shape.heads * shape.head_width * context
    multiplied = matmul_parameters(shape, vocab_size)
    if lora is None:
        return 6 * multiplied + attention
    return 4 * multiplied + 6 * adapter_parameters(shape, lora) + attention


def embedding_parameters(shape: ModelShape, vocab_size: int) -> int:
    """Of what stands before the layers: tokens and, where they are learned, positions."""
    positions = shape.context if shape.architecture == "gpt2" else 0
    return (vocab_size + positions) * shape.width


def layer_matrices(shape: ModelShape) -> int:
    """Of one layer, those in matrices."""
    inner, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    attention = 2 * shape.width * (inner + kv_width)  # query and output, key and value
    return attention + (3 if shape.architecture == "llama" else 2) * shape.width * shape.ffn_width


def layer_parameters(shape: ModelShape) -> int:
    """Parameters of one layer."""
    variant = shape.variant
    inner, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    biases = inner + 2 * kv_width if shape.bias or variant.attention_bias != "none" else 0
    biases += shape.width if shape.bias or variant.attention_bias == "all" else 0
    biases += shape.ffn_width + shape.width if shape.bias else 0
    head_norms = {"none": 0, "head": 2 * shape.head_width, "width": inner + kv_width}[variant.qk_norm]
    norms = (4 if variant.norms == "both" else 2) * _norm(shape)
    return layer_matrices(shape) + biases + head_norms + norms


def _norm(shape: ModelShape) -> int:
    return 2 * shape.width if shape.bias else shape.width
