"""Initial weights depend on the seed and the name alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initial_weight, initialize, plain_name

SHAPE = ModelShape(architecture="gpt2", layers=3, heads=4, kv_heads=4, width=32, ffn_width=64, context=16, bias=True)


@pytest.fixture
def last_of_four() -> Iterator[None]:
    """Makes this process the last rank of a group that never communicates."""
    dist.init_process_group("fake", rank=3, world_size=4, store=FakeStore())
    yield
    dist.destroy_process_group()


def test_each_kind_of_parameter_has_its_distribution() -> None:
    model = build_model(SHAPE, 1000)
    initialize(model, 1)
    weights = dict(model.named_parameters())
    assert weights["norm.weight"].eq(1).all()
    assert weights["layers.0.attention_norm.weight"].eq(1).all()
    assert weights["layers.0.attention.query.bias"].eq(0).all()
    assert weights["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert weights["layers.1.feed_forward.up.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    for residual in ("attention.output", "feed_forward.down"):
        assert weights[f"layers.2.{residual}.weight"].std().item() == pytest.approx(0.02 / math.sqrt(6), rel=0.05)


def test_the_weights_of_a_seed_never_change() -> None:
    weight = initial_weight("layers.0.attention.query.weight", torch.Size([2, 3]), 1337, 4)
    expected = torch.tensor([[0.0365, 0.0270, 0.0216], [0.0134, -0.0017, 0.0293]])
    torch.testing.assert_close(weight, expected, rtol=0, atol=1e-4)


def test_names_and_seeds_give_different_weights() -> None:
    size = torch.Size([8, 8])
    base = initial_weight("layers.0.attention.query.weight", size, 1, 2)
    assert torch.equal(base, initial_weight("layers.0.attention.query.weight", size, 1, 2))
    assert not torch.equal(base, initial_weight("layers.1.attention.query.weight", size, 1, 2))
    assert not torch.equal(base, initial_weight("layers.0.attention.query.weight", size, 2, 2))


def test_a_deeper_model_has_the_same_first_layers_but_for_the_residual_scale() -> None:
    shallow, deep = build_model(SHAPE, 50), build_model(SHAPE.model_copy(update={"layers": 5}), 50)
    initialize(shallow, 7)
    initialize(deep, 7)
    assert torch.equal(shallow.layers[2].attention.query.weight, deep.layers[2].attention.query.weight)


def test_wrappers_do_not_change_the_name() -> None:
    assert plain_name("layers.0._checkpoint_wrapped_module._orig_mod.norm.weight") == "layers.0.norm.weight"


def test_a_rank_of_tensor_and_data_parallelism_holds_its_part_of_the_same_weights(last_of_four: None) -> None:
    whole = build_model(SHAPE, 50)
    initialize(whole, 5)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    with torch.device("meta"):
        model = build_model(SHAPE, 50)
    plan = {"embedding": RowwiseParallel(), "layers.*.attention.query": ColwiseParallel()}
    parallelize_module(model, mesh["tensor"], {**plan, "layers.*.feed_forward.down": RowwiseParallel()})
    for layer in model.layers:
        fully_shard(layer, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    model.to_empty(device="cpu")
    initialize(model, 5)

    data, tensor = 1, 1
    full = dict(whole.named_parameters())
    local = {name: weight.to_local() for name, weight in model.named_parameters() if isinstance(weight, DTensor)}
    assert len(local) == len(full)
    query = full["layers.0.attention.query.weight"]  # rows: by tensor, then by data
    assert torch.equal(local["layers.0.attention.query.weight"], query.chunk(2)[tensor].chunk(2)[data])
    down = full["layers.1.feed_forward.down.weight"]  # columns by tensor, rows by data
    assert torch.equal(local["layers.1.feed_forward.down.weight"], down.chunk(2, dim=1)[tensor].chunk(2)[data])
    assert torch.equal(local["norm.weight"], full["norm.weight"].chunk(2)[data])
    embedding = full["embedding.weight"]  # 50 rows: 25 by tensor, of which 13 and 12 by data
    assert torch.equal(local["embedding.weight"], embedding.chunk(2)[tensor].chunk(2)[data])
