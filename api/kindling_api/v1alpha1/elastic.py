"""Over how many nodes an elastic run may go: those of its sizes at which its layout exists and its batch divides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindling_api.errors import SpecError, explain

if TYPE_CHECKING:
    from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec


def at_size(spec: PretrainRunSpec, nodes: int) -> PretrainRunSpec:
    """The same work over exactly so many nodes."""
    resources = spec.resources.model_copy(update={"nodes": nodes, "min_nodes": None})
    return spec.model_copy(update={"resources": resources})


def sizes_of(spec: PretrainRunSpec) -> tuple[int, ...]:
    """The numbers of nodes over which the run may go, ascending; `nodes` alone where it is not elastic.

    Raises:
        SpecError: it cannot go over `minNodes`, or `nodes`, of them.
    """
    most, fewest = spec.resources.nodes, spec.resources.min_nodes
    if fewest is None:
        return (most,)
    if fewest > most:
        allowed, remedy = f"at most resources.nodes = {most}", "lower it, or raise nodes"
        raise SpecError(explain("spec.resources.minNodes", found=fewest, allowed=allowed, remedy=remedy))
    if spec.parallelism.data != "auto":
        found, allowed = spec.parallelism.data, "auto, with resources.minNodes: it takes up the difference"
        raise SpecError(explain("spec.parallelism.data", found=found, allowed=allowed, remedy="leave it out"))
    spec.batch_plan()
    sizes = tuple(nodes for nodes in range(1, most + 1) if _why_not(spec, nodes) is None)
    possible = tuple(nodes for nodes in sizes if nodes >= fewest)
    if (why := _why_not(spec, fewest)) is not None:
        allowed = f"a number of nodes at which the model and the batch divide: {' or '.join(map(str, sizes))}"
        remedy = f"use {possible[0]}, the smallest above it that works ({why})"
        raise SpecError(explain("spec.resources.minNodes", found=fewest, allowed=allowed, remedy=remedy))
    return possible


def _why_not(spec: PretrainRunSpec, nodes: int) -> str | None:
    """Why the run cannot go over so many nodes; None where it can."""
    try:
        at_size(spec, nodes).batch_plan()
    except SpecError as error:
        return str(error)
    return None
