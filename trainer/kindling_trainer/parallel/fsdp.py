"""Data parallelism through FSDP2 (Rajbhandari et al. 2020, ZeRO; Zhao et al. 2023, PyTorch FSDP).

One mechanism serves all: sharding over dp_shard, copies over dp_replicate, both (HSDP), or neither, where it only sets
the precision and makes every parameter a DTensor on the one mesh. To it, processes that share sequences are as those
that read other ones: either way gradients add up.
"""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from kindling_api.v1alpha1.parallelism import Layout
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.pipeline import layers_here


def apply_data_parallel(model: Decoder, mesh: DeviceMesh, layout: Layout, precision: torch.dtype) -> None:
    """Wrap each block, and then what is left, in place. Gradients come out as sums over the data-parallel processes.

    The loss is divided by the whole batch's tokens before the backward pass, so averaging over processes would divide
    twice. Sums are forced, too, since gloo takes the average that FSDP2 would ask for and silently returns the sum
    (pytorch#162338), and knows no pre-multiplied sum.
    """
    # An explicit mesh: without one FSDP2 picks CUDA as soon as it sees a GPU (pytorch#132471).
    data = mesh["dp_replicate", "dp_shard"] if layout.replicate > 1 else mesh["dp_shard"]
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    # A stage has several micro-batches under way: gathering its weights for each pass would cost more than memory.
    frees = layout.shard > 1 and layout.pipeline == 1
    layers = layers_here(model)
    last = max(layers)
    for index, layer in layers.items():
        # The backward pass begins with the last block: what it needs is not freed for a moment.
        fully_shard(layer, mesh=data, mp_policy=policy, reshard_after_forward=frees and index < last)
    fully_shard(model, mesh=data, mp_policy=policy, reshard_after_forward=False)
    for module in (model, *layers.values()):
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
