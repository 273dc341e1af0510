"""The processes of a run, and the mesh on which they stand.

Processes are told who they are by torchrun's environment variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT), whoever sets them. A run of one process starts no process group at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_trainer.parallel.context import Cut
from kindling_trainer.parallel.rendezvous import OnArrival, rendezvous

AXES = ("pp", "dp_replicate", "dp_shard", "tp")

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of the run."""

    rank: int
    layout: Layout
    device: torch.device
    mesh: DeviceMesh | None
    """How weights lie: axes pp, dp_replicate, dp_shard, tp; None in a run of one process. Processes that share
    sequences hold shards, or copies, as those that read other data do: they are neighbours along dp_shard, or
    dp_replicate."""
    control: dist.ProcessGroup | None
    """All processes over gloo, for small facts about the run; None in a run of one process."""
    background: dist.ProcessGroup | None
    """The same, for the thread that writes checkpoints: collectives of two threads must not meet in one group."""
    upstream: dist.ProcessGroup | None = None
    """The processes of `pipeline_group`, for what goes back from stage to stage: on a GPU, transfers of one group are
    done in turn, and two neighbours that send to each other would wait for ever."""
    context: Cut | None = None
    """How this process shares sequences with others; None where it has whole ones."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes what only one may write."""
        return self.rank == 0

    def describe(self) -> str:
        """The layout and the devices, for people."""
        degrees = self.layout.document().items()
        split = ", ".join(f"{axis} {degree}" for axis, degree in degrees if isinstance(degree, int) and degree > 1)
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        count = self.layout.processes
        return f"{count} {'process' if count == 1 else 'processes'}{f' ({split})' if split else ''} on {device}"

    @property
    def batch_rank(self) -> int:
        """Which part of each batch this process reads; equal along tp, cp and pp."""
        return self.rank // (self.layout.context * self.layout.tensor) % self.layout.batch_ranks

    @property
    def stage(self) -> int:
        """Which of the pipeline's stages of layers this process has."""
        return self.rank // self.stage_size

    @property
    def stage_size(self) -> int:
        """Processes that share a stage."""
        return self.layout.processes // self.layout.pipeline

    @property
    def on_last_stage(self) -> bool:
        """Whether this process has the last layers, and so the logits and the loss."""
        return self.stage == self.layout.pipeline - 1

    @property
    def pipeline_group(self) -> dist.ProcessGroup | None:
        """One process of each stage, in their order; None where there is one stage."""
        if self.mesh is None or self.layout.pipeline == 1:
            return None
        return self.mesh["pp"].get_group()

    @property
    def tensor_group(self) -> dist.ProcessGroup | None:
        """The processes that share each layer; None where each has whole layers."""
        if self.mesh is None or self.layout.tensor == 1:
            return None
        return self.mesh["tp"].get_group()

    def sum_over_batch(self, value: Tensor) -> Tensor:
        """The sum over all parts of a batch of a value that is the same along cp and tp; the last stage's counts."""
        if self.mesh is None:
            return value
        total = value.clone() if self.on_last_stage else torch.zeros_like(value)
        dist.all_reduce(total)
        return total / (self.layout.context * self.layout.tensor)

    def largest(self, *values: int) -> tuple[int, ...]:
        """Each value's largest over all processes: what any one wants, all do, in the same step."""
        if self.control is None:
            return values
        together = torch.tensor(values)
        dist.all_reduce(together, dist.ReduceOp.MAX, group=self.control)
        return tuple(together.tolist())

    def from_first(self, value: Shared) -> Shared:
        """What the first process has; it must be something that pickles."""
        if self.control is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, group=self.control)
        return box[0]

    def from_each(self, value: Shared) -> list[Shared]:
        """What every process has, in the order of their ranks; it must be something that pickles."""
        if self.control is None:
            return [value]
        values: list[Shared] = [value] * self.layout.processes
        dist.all_gather_object(values, value, group=self.control)
        return values


def join(
    layout: Layout,
    resources: TrainingResources,
    waiting: OnArrival = lambda here, processes: None,
    attempt: str = "",
) -> Ranks:
    """Meet the other processes of the attempt, if any; until they have come, `waiting` is told how many have.

    Raises:
        SpecError: `resources.gpu` is asked for and there are fewer than the processes of this machine.
        LostContactError: the first process does not answer.
    """
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    device = _device(resources, local_rank)
    if layout.processes == 1:
        return Ranks(rank, layout, device, mesh=None, control=None, background=None)
    rendezvous("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", waiting, attempt)
    sizes = (layout.pipeline, layout.replicate, layout.shard, layout.tensor)
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=AXES)
    return Ranks(
        rank, layout, device, mesh, _gloo_group(), _gloo_group(), _upstream_group(layout), _context_cut(layout, device)
    )


def _upstream_group(layout: Layout) -> dist.ProcessGroup | None:
    if layout.pipeline == 1:
        return None
    stage_size = layout.processes // layout.pipeline
    lines = [list(range(place, layout.processes, stage_size)) for place in range(stage_size)]
    group, _ = dist.new_subgroups_by_enumeration(lines)
    assert isinstance(group, dist.ProcessGroup)
    return group


def _context_cut(layout: Layout, device: torch.device) -> Cut | None:
    if layout.context == 1:
        return None
    sizes = (layout.processes // (layout.context * layout.tensor), layout.context, layout.tensor)
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=("batch", "cp", "tp"))["cp"]
    return Cut(mesh.get_group(), mesh.get_local_rank(), layout.context)


def _gloo_group() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


def _device(resources: TrainingResources, local_rank: int) -> torch.device:
    if resources.gpu is None:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise SpecError(
            explain(
                "spec.resources.gpu",
                found=f"{resources.processes_per_node} processes, and {torch.cuda.device_count()} GPUs on this machine",
                allowed="at most one process for each GPU",
                remedy="remove gpu to train on the CPU, or lower processesPerNode",
            )
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
