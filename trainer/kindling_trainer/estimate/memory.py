"""What a run will need, by formula: memory of one process, arithmetic, bytes in the store. No torch, no effects.

Figures are estimates of the large terms. Left out are the allocator's fragments, the kernels' workspaces, the few bytes
of norms' statistics, and of a GPU's memory what the framework itself takes (a CUDA context is about half a GiB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kindling_api.base import Status
from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.sizes import (
    ADAM_BYTES,
    MASTER_BYTES,
    MOMENTUM_BYTES,
    adapter_parameters,
    layer_matrices,
    parameters,
    scored_parameters,
)
from kindling_trainer.estimate.pipeline_schedule import Stage, stages_of

Precision = Literal["fp32", "bf16"]
Checkpointing = Literal["none", "selective", "full"]

COMPUTE_BYTES = {"fp32": 4, "bf16": 2}


PROGRAM_BYTES = 820 * 2**20
"""Python, torch and what a training loads beside them: the peak of one whose model has a few hundred weights
(`bench/plan`)."""


class Memory(Status):
    """Bytes of one process, at the peak of a step: of the GPU's memory where it has one, else of the machine's."""

    parameters: float
    """This process' part of the fp32 weights, frozen ones among them."""
    gradients: float
    """As large as what is trained; where a step has several micro-batches, or stages, those of whole layers: they are
    sharded once, when they have been summed."""
    optimizer: float
    """AdamW's two moments of what is trained, or Muon's one of the layers' matrices."""
    working_weights: float
    """Weights gathered from other processes, or cast to bf16, while they are used."""
    activations: float
    """What the forward pass keeps for the backward pass."""
    logits: float
    """The logits of a micro-batch, their log-softmax and their gradient."""
    whole_models: float = 0.0
    """Models that the process holds whole beside its part of the one that learns: to draw answers, to compare them with
    the base, to score them."""
    masks: float = 0.0
    """Of a document mask: for each position, which it sees."""
    snapshot: float = 0.0
    """Without a GPU: the copy of weights and moments from which a checkpoint is written while steps are taken."""
    programs: float = 0.0
    """Without a GPU: Python and torch."""

    @property
    def total(self) -> float:
        """The sum."""
        return sum(size for _, size in self)


def memory(
    shape: ModelShape,
    vocab_size: int,
    layout: Layout,
    *,
    micro_batch: int,
    accumulation: int = 1,
    precision: Precision,
    checkpointing: Checkpointing,
    whole_models: float = 0.0,
    context: int | None = None,
    masked: bool = False,
    muon: bool = False,
    gpu: bool = True,
    lora: LoRA | None = None,
) -> Memory:
    """Memory of one process at its peak, in bytes; of a pipeline's, the one that needs most.

    Args:
        vocab_size: after padding.
        micro_batch: sequences that the process computes at once.
        accumulation: micro-batches of a step; a pipeline's stage has several of them under way.
        whole_models: bytes of them, where there are any.
        context: tokens of a sequence; None means as many as the model can have.
        masked: whether a token sees its own document alone.
        muon: whether the optimizer is that.
        gpu: whether the process has one; else it has but one memory, for the model and for all else.
        lora: the adapters that are trained beside frozen weights, where not all is trained.

    Raises:
        SpecError: the model's blocks have no layer that an adapter is for.
    """
    adapters = 0 if lora is None else adapter_parameters(shape, lora)

    def of(stage: Stage) -> Memory:
        held = stage.parameters / layout.tensor
        stored = held / layout.shard
        trained, summed = (stored, held) if lora is None else (adapters / layout.shard, float(adapters))
        tokens = micro_batch * (context or shape.context) / layout.context
        under_way = tokens * stage.in_flight(accumulation)
        kept = len(stage.layers) if checkpointing == "none" else 1
        state = ADAM_BYTES * trained
        if muon:
            matrices = len(stage.layers) * layer_matrices(shape) / layout.tensor / layout.shard
            state -= (ADAM_BYTES - MOMENTUM_BYTES) * matrices
        logits = tokens * vocab_size / layout.tensor * (COMPUTE_BYTES[precision] + 4 + 4)
        return Memory(
            parameters=MASTER_BYTES * (stored + adapters / layout.shard),
            gradients=MASTER_BYTES * (trained if layout.pipeline == accumulation == 1 else summed),
            optimizer=state,
            working_weights=_working_weights(shape, vocab_size, layout, held, precision),
            activations=under_way
            * _activations_per_token(shape, layout, len(stage.layers), precision, checkpointing, lora),
            logits=logits if stage.is_last else 0.0,
            whole_models=whole_models,
            masks=under_way * (context or shape.context) * _mask_bytes(kept, precision, gpu) if masked else 0.0,
            snapshot=0.0 if gpu else MASTER_BYTES * trained + state,
            programs=0.0 if gpu else PROGRAM_BYTES,
        )

    return max(map(of, stages_of(shape, vocab_size, layout.pipeline)), key=lambda memory: memory.total)


def whole_models(
    spec: AlignmentRunSpec, shape: ModelShape, vocab_size: int, judges: Sequence[tuple[ModelShape, int]]
) -> float:
    """Bytes of the models in fp32 that each process of an alignment holds whole beside its part of the one that learns
    (docs/design/0010-rounds-of-answers.md).

    Args:
        judges: shape and padded vocabulary of each reward model that scores answers.
    """
    ppo, grpo = spec.method.ppo, spec.method.grpo
    drawing = (ppo is not None or grpo is not None) and spec.layout().processes > 1  # one process draws with its own
    # A model with adapters is its base without them.
    penalty = spec.lora is None and (ppo is not None or (grpo is not None and grpo.kl_coefficient > 0))
    copies = (drawing + penalty) * parameters(shape, vocab_size)
    return MASTER_BYTES * (copies + sum(scored_parameters(*judge) for judge in judges))


def block_activations(shape: ModelShape, precision: Precision, tensor: int = 1, context: int = 1) -> float:
    """Bytes that one block keeps for each token without checkpointing.

    The count is the one of Korthikanti et al. 2022 (arXiv:2205.05198, §4.1), made for our blocks: the inputs of the
    norms, those of queries, keys and results among them, and of the query and output projections, queries and the
    attention's result, keys and values, and in the feed-forward layer its input and the inner vectors: two for GELU,
    four for SwiGLU. Attention scores are not among them: the fused kernel computes them again, and keeps one fp32 sum
    for each head and position. Sequence parallelism divides all by `tensor` (§4.2.2, equation 4) but the gathered
    inputs of attention and feed-forward, which PyTorch keeps whole. Under context parallelism a process has T /
    `context` tokens, and keeps the keys and values of all T, and the attention's result twice: by chunks, and together.
    """
    size = COMPUTE_BYTES[precision]
    inner = 4 if shape.architecture == "llama" else 2
    kv_width = shape.kv_heads * shape.head_width
    head_vectors = shape.heads * shape.head_width
    gathered = 2 * shape.width
    norms = 4 if shape.variant.norms == "both" else 2
    cut = norms * shape.width + (2 if context == 1 else 3) * head_vectors
    cut += 2 * kv_width * context + inner * shape.ffn_width
    cut += 0 if shape.variant.qk_norm == "none" else head_vectors + kv_width
    masks = 2 * shape.width if shape.dropout else 0  # one byte an element, after both residual branches
    return gathered * size + (cut * size + 4 * shape.heads + masks) / tensor


def recomputed(checkpointing: Checkpointing) -> float:
    """Arithmetic with recomputation over that without: a second forward pass is a third more (a step is one forward
    pass and a backward pass of twice its arithmetic: Korthikanti et al. 2022, appendix A)."""
    return 4 / 3 if checkpointing == "full" else 1.0


def _mask_bytes(layers: int, precision: Precision, gpu: bool) -> int:
    """Of one position and one that it may see: as a truth value, and as a number in the attention of each of the layers
    that keep it for the backward pass."""
    return 1 + (COMPUTE_BYTES[precision] if gpu else 4) * layers


def _working_weights(shape: ModelShape, vocab_size: int, layout: Layout, held: float, precision: Precision) -> float:
    if layout.shard > 1 and layout.pipeline > 1:  # what a stage has gathered stays until its last micro-batch
        return COMPUTE_BYTES[precision] * held
    if layout.shard > 1:  # FSDP2 gathers one block while the one before it computes
        embeddings = vocab_size * shape.width / layout.tensor
        block = max(0.0, held - embeddings) / shape.layers
        return COMPUTE_BYTES[precision] * (2 * block + embeddings)
    return COMPUTE_BYTES[precision] * held if precision == "bf16" else 0.0


def _activations_per_token(
    shape: ModelShape,
    layout: Layout,
    layers: int,
    precision: Precision,
    checkpointing: Checkpointing,
    lora: LoRA | None,
) -> float:
    size = COMPUTE_BYTES[precision]
    block = block_activations(shape, precision, layout.tensor, layout.context)
    if lora is not None:  # the input of an adapter is that of its layer, and counted there
        block += lora.rank * len(lora.targets_in(shape)) * size
    around = 3 * shape.width * size / layout.tensor  # the embedding's result, the last norm's input and result
    match checkpointing:
        case "none":
            return layers * block + around
        case "selective":  # the matrix products' results stay, what is cheap to compute again goes
            return layers * (block - _cheap(shape, precision, layout)) + block + around
        case "full":  # the input of each block stays, and one block at a time is computed again
            return layers * shape.width * size / layout.tensor + block + around


def _cheap(shape: ModelShape, precision: Precision, layout: Layout) -> float:
    """Bytes of a block that selective checkpointing drops: results of both norms, and of the activation function, and
    the keys and values of other processes."""
    inner = 2 if shape.architecture == "llama" else 1
    others = 2 * shape.kv_heads * shape.head_width * (layout.context - 1)
    return COMPUTE_BYTES[precision] * (2 * shape.width + (inner * shape.ffn_width + others) / layout.tensor)
