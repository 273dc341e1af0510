"""What both decoders promise: causality, the cache, grouped heads, compilation, other dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kindling_api.v1alpha1.model import PRESETS, ModelShape
from kindling_api.v1alpha1.sizes import flops_per_token, matmul_parameters, parameters
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.kv_cache import KVCache
from kindling_trainer.models.layers import Attention
from kindling_trainer.models.rotary import Rotary, rotate

VOCAB = 37
SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "kv_heads": 4, "width": 32, "ffn_width": 48, "context": 24}
SHAPES = {
    "llama": ModelShape(architecture="llama", **SIZES),
    "llama-grouped-tied": ModelShape(architecture="llama", **SIZES | {"kv_heads": 2}, tied_embeddings=True),
    "gpt2": ModelShape(architecture="gpt2", **SIZES, tied_embeddings=True),
    "gpt2-bias-untied": ModelShape(architecture="gpt2", **SIZES, bias=True),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def make(shape: ModelShape, seed: int = 1) -> Decoder:
    model = build_model(shape, VOCAB)
    initialize(model, seed)
    return model.eval()


def some_tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(length))


@every_shape
def test_later_tokens_do_not_change_earlier_logits(shape: ModelShape) -> None:
    model, tokens = make(shape), some_tokens(2, 20)
    other = tokens.clone()
    other[:, 12:] = (other[:, 12:] + 1) % VOCAB
    before, after = model(tokens), model(other)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, 12:], after[:, 12:])


@every_shape
@pytest.mark.parametrize("cuts", [[24], [1] * 24, [10, 1, 1, 12], [5, 19]], ids=str)
def test_reading_with_a_cache_gives_the_same_logits_as_reading_at_once(shape: ModelShape, cuts: list[int]) -> None:
    model, tokens = make(shape), some_tokens(3, 24)
    cache = KVCache(shape.layers, rows=3)
    with torch.no_grad():
        in_parts = torch.cat([model(part, cache) for part in tokens.split(cuts, dim=1)], dim=1)
        torch.testing.assert_close(in_parts, model(tokens), rtol=0, atol=1e-5)
    assert cache.lengths == [24, 24, 24]


def test_rotation_by_complex_numbers_is_the_rotation_matrix_of_each_pair() -> None:
    x = torch.randn(2, 6, 3, 8)
    rotary = Rotary(SHAPES["llama"])
    turned = rotate(x, rotary(slice(2, 8)))
    for position in range(6):
        for pair in range(4):
            angle = torch.tensor((position + 2) * 10_000.0 ** (-2 * pair / 8))
            matrix = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
            expected = x[:, position, :, 2 * pair : 2 * pair + 2] @ matrix.T
            torch.testing.assert_close(turned[:, position, :, 2 * pair : 2 * pair + 2], expected, rtol=0, atol=1e-5)


def test_rotated_scores_depend_only_on_the_distance() -> None:
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    rotary = Rotary(SHAPES["llama"])
    at = [rotary(torch.tensor([position])) for position in range(24)]
    scores = [(rotate(query, at[start + 3]) * rotate(key, at[start])).sum() for start in (0, 7, 20)]
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


def test_the_rotary_table_survives_the_meta_device_and_keeps_its_precision() -> None:
    shape = SHAPES["llama"]
    expected = Rotary(shape).table
    with torch.device("meta"):
        model = build_model(shape, VOCAB)
    model.to_empty(device="cpu")
    assert torch.equal(model.rotary.table, expected)
    assert torch.equal(model.to(torch.bfloat16).rotary.table, expected)
    assert not any("table" in name for name in model.state_dict())


def test_grouped_query_attention_is_attention_with_repeated_heads() -> None:
    grouped = Attention(SHAPES["llama-grouped-tied"])
    repeated = Attention(SHAPES["llama"])
    state = grouped.state_dict()
    for name in ("key.weight", "value.weight"):
        state[name] = state[name].unflatten(0, (2, -1)).repeat_interleave(2, dim=0).flatten(0, 1)
    repeated.load_state_dict(state)
    x = torch.randn(2, 10, 32)
    rotation = Rotary(SHAPES["llama"])(slice(10))
    torch.testing.assert_close(grouped(x, rotation), repeated(x, rotation), rtol=0, atol=1e-6)


@every_shape
def test_a_tied_head_stays_the_embedding_through_the_meta_device(shape: ModelShape) -> None:
    with torch.device("meta"):
        model = build_model(shape, VOCAB)
    model.to_empty(device="cpu")
    assert (model.head.weight is model.embedding.weight) == shape.tied_embeddings


def test_dropout_works_in_training_and_not_in_evaluation() -> None:
    model = make(SHAPES["gpt2"].model_copy(update={"dropout": 0.5}))
    tokens = some_tokens(1, 8)
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_smallest_model_runs_in_both_precisions(architecture: str, dtype: torch.dtype) -> None:
    sizes = {"layers": 1, "heads": 1, "kv_heads": 1, "width": 8, "ffn_width": 8, "context": 8}
    shape = ModelShape.model_validate({"architecture": architecture, **sizes})
    model = build_model(shape, 3)
    initialize(model, 0)
    tokens = torch.tensor([[0, 1, 2, 1, 0, 1, 2, 2]])
    exact = model(tokens)
    logits = model.to(dtype)(tokens)
    assert logits.dtype == dtype
    assert logits.shape == (1, 8, 3)
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=2e-2)


@pytest.mark.slow
@every_shape
def test_compilation_takes_the_model_as_one_graph(shape: ModelShape) -> None:
    model, tokens = make(shape), some_tokens(2, 24)
    assert torch._dynamo.explain(model)(tokens).graph_break_count == 0
    torch._dynamo.reset()


@every_shape
def test_parameters_are_counted_exactly(shape: ModelShape) -> None:
    model = build_model(shape, VOCAB)
    assert parameters(shape, VOCAB) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_every_preset_are_counted_exactly(preset: str) -> None:
    shape = PRESETS[preset]
    with torch.device("meta"):
        model = build_model(shape, 50_304)
    assert parameters(shape, 50_304) == sum(parameter.numel() for parameter in model.parameters())


def test_flops_of_gpt2_follow_the_formula_by_hand() -> None:
    shape = PRESETS["gpt2-124m"]
    assert parameters(shape, 50_257) == 124_439_808  # the released GPT-2
    matmul = 124_439_808 - 1024 * 768  # all but the positions: the tied head multiplies
    assert matmul_parameters(shape, 50_257) == matmul
    assert flops_per_token(shape, 50_257, 1024) == 6 * matmul + 12 * 12 * 12 * 64 * 1024
