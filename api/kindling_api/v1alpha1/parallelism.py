"""How processes share the work: degrees for each axis, and their product against the processes there are."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from kindling_api.base import Spec
from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.model import ModelShape

Degree = Annotated[int, Field(ge=1, le=65_536)]


class ParallelismSpec(Spec):
    """Degrees of parallelism; tensor × pipeline × context × data × replicas = nodes × processesPerNode."""

    tensor: Degree = 1
    """Processes that share each layer (tensor parallelism, with sequence parallelism outside the matrices)."""
    pipeline: Degree = 1
    """Stages of layers (pipeline parallelism), in pretraining. A step should have at least as many micro-batches as
    stages, better four times as many."""
    context: Degree = 1
    """Processes that share each sequence (context parallelism): for contexts whose activations do not fit in one."""
    data: Degree | Literal["auto"] = "auto"
    """Processes that read different data; `auto` is what the other degrees leave."""
    replicas: Degree = 1
    """Groups that each hold a whole copy; with `sharding: full`, more than one is hybrid sharding (HSDP)."""
    sharding: Literal["full", "none"] = "full"
    """`full`: parameters, gradients and optimizer are sharded over `data` × `context` (FSDP2). `none`: each process has
    all."""


class Layout(Spec):
    """Degrees with nothing left open."""

    tensor: Degree = 1
    pipeline: Degree = 1
    context: Degree = 1
    data: Degree = 1
    replicas: Degree = 1
    sharding: Literal["full", "none"] = "full"

    @property
    def processes(self) -> int:
        """The product of all degrees."""
        return self.tensor * self.pipeline * self.context * self.data * self.replicas

    @property
    def batch_ranks(self) -> int:
        """Groups that read different sequences."""
        return self.data * self.replicas

    @property
    def shard(self) -> int:
        """Processes over which each parameter is sharded (dp_shard)."""
        return self.data * self.context if self.sharding == "full" else 1

    @property
    def replicate(self) -> int:
        """Copies of each parameter shard (dp_replicate)."""
        return self.batch_ranks * self.context // self.shard

    @property
    def length_multiple(self) -> int:
        """What the length of a sequence is a multiple of: tensor parallelism cuts what a process has of it into equal
        parts, and context parallelism gives each process two."""
        return self.tensor if self.context == 1 else self.context * math.lcm(2, self.tensor)


def layout_of(spec: ParallelismSpec, processes: int) -> Layout:
    """The layout of `processes` processes.

    Raises:
        SpecError: the product of the degrees is not `processes`.
    """
    fixed = spec.tensor * spec.pipeline * spec.context * spec.replicas
    data = spec.data if spec.data != "auto" else max(1, processes // fixed)
    product = fixed * data
    if product != processes:
        raise SpecError(
            explain(
                "spec.parallelism",
                found=f"tensor {spec.tensor} × pipeline {spec.pipeline} × context {spec.context} × data {data}"
                f" × replicas {spec.replicas} = {product}",
                allowed=f"resources.nodes × resources.processesPerNode = {processes}",
                remedy="change the degrees, or nodes and processesPerNode, until the two products agree",
            )
        )
    return Layout(
        tensor=spec.tensor,
        pipeline=spec.pipeline,
        context=spec.context,
        data=data,
        replicas=spec.replicas,
        sharding=spec.sharding,
    )


def check_divides(layout: Layout, shape: ModelShape) -> None:
    """Check that the model can be cut as the layout says.

    Raises:
        SpecError: heads, key/value heads, widths, context or layers do not divide.
    """
    halves = 2 if layout.context > 1 else 1  # of each process's part of a sequence: one early, one late
    cuts = [
        ("tensor", layout.tensor, 1, "heads", shape.heads),
        ("tensor", layout.tensor, 1, "kvHeads", shape.kv_heads),
        ("tensor", layout.tensor, 1, "ffnWidth", shape.ffn_width),
        ("context", layout.context, halves, "context", shape.context),
        ("tensor × context", layout.tensor * layout.context, 1, "context", shape.context),
    ]
    for axis, degree, pieces, size_name, size in cuts:
        if size % (degree * pieces):
            raise SpecError(
                explain(
                    f"spec.parallelism.{axis}",
                    found=degree,
                    allowed=f"{'half ' * (pieces == 2)}a divisor of model.{size_name} = {size}",
                    remedy=f"use {_nearest_degree(size, degree, pieces)}, or change model.{size_name}",
                )
            )
    if layout.pipeline > shape.layers:
        raise SpecError(
            explain(
                "spec.parallelism.pipeline",
                found=layout.pipeline,
                allowed=f"at most model.layers = {shape.layers}",
                remedy="use fewer stages or more layers",
            )
        )


def _nearest_degree(size: int, degree: int, pieces: int) -> int:
    fitting = (candidate for candidate in range(min(degree, size), 0, -1) if size % (candidate * pieces) == 0)
    return next(fitting, 1)
