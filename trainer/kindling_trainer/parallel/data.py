"""Data parallelism through FSDP2 (Rajbhandari et al. 2020, ZeRO; Zhao et al. 2023, PyTorch FSDP).

One mechanism serves all: sharding over dp_shard, copies over dp_replicate, both (HSDP), or neither, where it only sets
the precision and makes every parameter a DTensor on the one mesh.
"""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from kindling_api.v1alpha1.parallelism import Layout
from kindling_trainer.models import Decoder


def apply_data_parallel(model: Decoder, mesh: DeviceMesh, layout: Layout, precision: torch.dtype) -> None:
    """Wrap each block, and then what is left, in place. Gradients come out as sums over the data-parallel processes.

    The loss is divided by the whole batch's tokens before the backward pass, so averaging over processes would divide
    twice. Sums are forced, too, since gloo takes the average that FSDP2 would ask for and silently returns the sum
    (pytorch#162338), and knows no pre-multiplied sum.
    """
    # An explicit mesh: without one FSDP2 picks CUDA as soon as it sees a GPU (pytorch#132471).
    data = mesh["dp_replicate", "dp_shard"] if layout.replicate > 1 else mesh["dp_shard"]
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    shards = layout.shard > 1
    last = len(model.layers) - 1
    for index, layer in enumerate(model.layers):
        # The backward pass begins with the last block: what it needs is not freed for a moment.
        fully_shard(layer, mesh=data, mp_policy=policy, reshard_after_forward=shards and index < last)
    fully_shard(model, mesh=data, mp_policy=policy, reshard_after_forward=False)
    assert isinstance(model, FSDPModule)
    for module in (model, *model.layers):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
