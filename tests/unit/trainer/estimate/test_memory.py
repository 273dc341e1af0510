"""The memory formula, held against what autograd really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.model import PRESETS, ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.sizes import (
    adapter_parameters,
    checkpoint_bytes,
    flops_per_token,
    matmul_parameters,
    parameters,
    scored_parameters,
)
from kindling_trainer.estimate.memory import block_activations, memory, recomputed, whole_models
from kindling_trainer.estimate.pipeline_schedule import stages_of
from kindling_trainer.models import build_model
from kindling_trainer.models.layers import document_mask
from kindling_trainer.models.lora import add_adapters, freeze_base
from kindling_trainer.models.rotary import Rotary
from kindling_trainer.models.scored import build_scored

SHAPE = ModelShape(architecture="llama", layers=4, heads=4, kv_heads=2, width=64, ffn_width=192, context=32)
GPT2 = SHAPE.model_copy(update={"architecture": "gpt2", "kv_heads": 4, "ffn_width": 256})


def kept_bytes(shape: ModelShape, documents: torch.Tensor | None = None, lora: LoRA | None = None) -> int:
    """Bytes of all distinct tensors, parameters aside, that one block keeps for its backward pass."""
    llama = shape.architecture == "llama"
    model = build_model(shape, 64)
    if lora is not None:
        add_adapters(model, lora)
        freeze_base(model)
    block = model.layers[0]
    own = {parameter.untyped_storage().data_ptr() for parameter in block.parameters()}
    arguments = (Rotary(shape)(slice(shape.context)),) if llama else ()
    own |= {argument.untyped_storage().data_ptr() for argument in arguments}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    x = torch.randn(2, shape.context, shape.width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(x, *arguments, mask=None if documents is None else document_mask(documents))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("shape", [SHAPE, GPT2], ids=lambda shape: shape.architecture)
def test_a_block_keeps_what_the_formula_says(shape: ModelShape) -> None:
    estimated = block_activations(shape, "fp32") * 2 * shape.context
    assert kept_bytes(shape) == pytest.approx(estimated, rel=0.15)


def test_a_layer_keeps_a_document_mask_as_numbers() -> None:
    documents = torch.arange(SHAPE.context).expand(2, -1) // 5
    parts = memory(SHAPE, 512, Layout(), micro_batch=2, precision="fp32", checkpointing="none", masked=True, gpu=False)
    truth = documents.numel() * SHAPE.context
    more = kept_bytes(SHAPE, documents) - kept_bytes(SHAPE)
    assert parts.masks - truth == pytest.approx(SHAPE.layers * more, rel=0.01)


@pytest.mark.parametrize("shape", [SHAPE, GPT2], ids=lambda shape: shape.architecture)
def test_adapters_are_counted_and_what_is_frozen_has_neither_gradient_nor_moments(shape: ModelShape) -> None:
    lora = LoRA(rank=8, targets=("q_proj", "k_proj", "o_proj", "up_proj", "down_proj"))
    model = build_model(shape, 512)
    add_adapters(model, lora)
    freeze_base(model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapter_parameters(shape, lora) == trained
    full, adapted = (
        memory(shape, 512, Layout(), micro_batch=2, precision="fp32", checkpointing="none", gpu=False, lora=each)
        for each in (None, lora)
    )
    assert (adapted.gradients, adapted.optimizer, adapted.snapshot) == (4 * trained, 8 * trained, 12 * trained)
    assert adapted.parameters == full.parameters + 4 * trained
    assert checkpoint_bytes(shape, 512, lora=lora) == 12 * trained
    spared = flops_per_token(shape, 512, 32) - flops_per_token(shape, 512, 32, lora)
    assert spared == 2 * matmul_parameters(shape, 512) - 6 * trained


@pytest.mark.parametrize("shape", [SHAPE, GPT2], ids=lambda shape: shape.architecture)
def test_a_block_with_adapters_keeps_what_the_formula_says(shape: ModelShape) -> None:
    lora = LoRA()
    layout = {"micro_batch": 2, "precision": "fp32", "checkpointing": "none"}
    of_one, of_two = (
        memory(shape.model_copy(update={"layers": layers}), 512, Layout(), **layout, lora=lora).activations  # type: ignore[arg-type]
        for layers in (1, 2)
    )
    assert kept_bytes(shape, lora=lora) == pytest.approx(of_two - of_one, rel=0.15)


def test_a_bf16_gpt2_block_agrees_with_the_published_count() -> None:
    shape = PRESETS["gpt2-124m"].model_copy(update={"dropout": 0.1})
    published = 34 * shape.width  # Korthikanti et al. 2022, table 2, without the attention scores
    assert block_activations(shape, "bf16") == pytest.approx(published, rel=0.01)


def test_checkpointing_trades_memory_for_arithmetic() -> None:
    kept = {
        mode: memory(SHAPE, 512, Layout(), micro_batch=4, precision="fp32", checkpointing=mode).activations
        for mode in ("none", "selective", "full")
    }
    assert kept["full"] < kept["selective"] < kept["none"]
    assert (recomputed("none"), recomputed("full")) == (1.0, 4 / 3)


def test_a_shorter_sequence_keeps_less_of_what_a_step_computes() -> None:
    whole, half = (
        memory(SHAPE, 512, Layout(), micro_batch=4, precision="fp32", checkpointing="none", context=context)
        for context in (None, SHAPE.context // 2)
    )
    assert (half.activations, half.logits) == (whole.activations / 2, whole.logits / 2)
    assert half.parameters == whole.parameters


def test_sharding_divides_what_is_stored_and_gathers_what_is_used() -> None:
    held = parameters(SHAPE, 512)
    whole = memory(SHAPE, 512, Layout(data=4, sharding="none"), micro_batch=1, precision="fp32", checkpointing="none")
    sharded = memory(SHAPE, 512, Layout(data=4), micro_batch=1, precision="fp32", checkpointing="none")
    assert (whole.parameters, whole.gradients, whole.optimizer) == (4 * held, 4 * held, 8 * held)
    assert (sharded.parameters, sharded.optimizer) == (held, 2 * held)
    assert whole.working_weights == 0 < sharded.working_weights < 4 * held


def test_tensor_parallelism_divides_all_but_the_gathered_inputs() -> None:
    alone = block_activations(SHAPE, "bf16")
    gathered = 2 * SHAPE.width * 2
    assert block_activations(SHAPE, "bf16", tensor=4) == pytest.approx(gathered + (alone - gathered) / 4)


@pytest.mark.parametrize(
    ("micro_batches", "fullest"),
    [(1, 1), (8, 0)],
    ids=["one under way: the last, which has the logits", "several: the first, which keeps most of them"],
)
def test_a_pipeline_needs_what_its_fullest_stage_needs(micro_batches: int, fullest: int) -> None:
    stages = stages_of(SHAPE, 512, 2)
    found = memory(
        SHAPE,
        512,
        Layout(pipeline=2),
        micro_batch=4,
        accumulation=micro_batches,
        precision="fp32",
        checkpointing="none",
    )
    whole = memory(SHAPE, 512, Layout(), micro_batch=4, precision="fp32", checkpointing="none")
    assert found.parameters == 4 * stages[fullest].parameters
    assert (found.logits > 0) == stages[fullest].is_last
    assert found.activations == pytest.approx(whole.activations / 2 * (1 if fullest else 2), rel=0.1)


def test_context_parallelism_divides_all_but_the_keys_and_values_and_shards_what_is_stored() -> None:
    one, shared = (
        memory(SHAPE, 512, layout, micro_batch=1, precision="bf16", checkpointing="none")
        for layout in (Layout(), Layout(context=4, data=2))
    )
    keys_and_values = SHAPE.layers * SHAPE.context * 2 * 2 * SHAPE.kv_heads * SHAPE.head_width
    results = SHAPE.layers * SHAPE.context * 2 * SHAPE.width  # once more, by chunks
    assert shared.activations == pytest.approx(keys_and_values + (one.activations - keys_and_values + results) / 4)
    assert (shared.logits, shared.parameters, shared.optimizer) == (
        one.logits / 4,
        one.parameters / 8,
        one.optimizer / 8,
    )


@pytest.mark.parametrize(
    ("layout", "micro_batches", "shards"),
    [
        (Layout(data=4), 1, 4),
        (Layout(data=4), 2, 1),
        (Layout(data=4, tensor=2), 2, 2),
        (Layout(data=4, pipeline=2), 8, 2),
    ],
)
def test_gradients_that_add_up_over_micro_batches_are_sharded_when_they_have(
    layout: Layout, micro_batches: int, shards: int
) -> None:
    found = memory(
        SHAPE, 512, layout, micro_batch=1, accumulation=micro_batches, precision="bf16", checkpointing="none"
    )
    assert found.gradients == pytest.approx(4 * parameters(SHAPE, 512) / shards, rel=0.1)


def test_a_checkpoint_holds_weights_and_two_moments() -> None:
    assert checkpoint_bytes(SHAPE, 512) == 12 * parameters(SHAPE, 512)


@pytest.mark.parametrize(
    ("method", "processes", "copies"),
    [
        ({"sft": {}}, 2, 0),
        ({"dpo": {}}, 2, 0),
        ({"grpo": {"rewards": [{"exactAnswer": {}}]}}, 1, 1),
        ({"grpo": {"rewards": [{"exactAnswer": {}}]}}, 2, 2),
        ({"grpo": {"rewards": [{"exactAnswer": {}}], "klCoefficient": 0}}, 1, 0),
        ({"grpo": {"rewards": [{"exactAnswer": {}}], "klCoefficient": 0}}, 2, 1),
        ({"ppo": {"rewards": [{"exactAnswer": {}}], "klCoefficient": 0}}, 2, 2),
        ({"ppo": {"rewards": [{"exactAnswer": {}}]}, "adapter": {"lora": {}}}, 1, 0),
        ({"grpo": {"rewards": [{"exactAnswer": {}}]}, "adapter": {"lora": {}}}, 2, 1),
    ],
)
def test_answers_are_drawn_and_compared_with_whole_models(method: dict[str, Any], processes: int, copies: int) -> None:
    method, adapter = method.copy(), method.get("adapter")
    method.pop("adapter", None)
    spec = {
        "adapter": adapter,
        "base": {"uri": "b"},
        "method": method,
        "data": [{"uri": "d"}],
        "resources": {"processesPerNode": processes},
    }
    found = AlignmentRunSpec.model_validate(spec, strict=False)
    assert whole_models(found, SHAPE, 512, []) == 4 * copies * parameters(SHAPE, 512)
    judged = whole_models(found, SHAPE, 512, [(GPT2, 256)]) - whole_models(found, SHAPE, 512, [])
    assert judged == 4 * scored_parameters(GPT2, 256)


@pytest.mark.parametrize("shape", [SHAPE, GPT2], ids=lambda shape: shape.architecture)
def test_a_reward_model_has_as_many_parameters_as_are_counted(shape: ModelShape) -> None:
    with torch.device("meta"):
        model = build_scored(shape, 512)
    assert scored_parameters(shape, 512) == sum(parameter.numel() for parameter in model.parameters())
