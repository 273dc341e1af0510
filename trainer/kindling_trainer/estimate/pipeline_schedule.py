"""How layers are cut into the stages of a pipeline, and in which order a stage computes. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kindling_api.errors import explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.sizes import embedding_parameters, layer_parameters, parameters

Turn = tuple[Literal["forward", "backward"], int]
"""What a stage does next, and with which micro-batch."""


@dataclass(frozen=True)
class Stage:
    """A part of a model: some of its layers, before the first of them the embedding, after the last norm and head."""

    number: int
    of: int
    """Stages there are."""
    layers: range
    parameters: int

    @property
    def is_first(self) -> bool:
        """Whether it has the embedding."""
        return self.number == 0

    @property
    def is_last(self) -> bool:
        """Whether it has the head."""
        return self.number == self.of - 1

    def in_flight(self, micro_batches: int) -> int:
        """Micro-batches whose activations it keeps at once: those that are farther on, in the stages behind it."""
        return min(micro_batches, self.of - self.number)


def stages_of(shape: ModelShape, vocab_size: int, count: int) -> list[Stage]:
    """The model in `count` stages, each of one layer or more, so that the fullest has as few parameters as possible.

    Embedding and head count as what they hold, and so take layers from the first and the last stage, as in Llama 3
    (Grattafiori et al. 2024, arXiv:2407.21783, §3.3.2). A tied embedding is there twice.

    Args:
        vocab_size: after padding.
    """
    layer, embedding = layer_parameters(shape), embedding_parameters(shape, vocab_size)
    if count == 1:
        return [Stage(0, 1, range(shape.layers), parameters(shape, vocab_size))]
    norm_and_head = parameters(shape.model_copy(update={"layers": 0, "tied_embeddings": False}), vocab_size) - embedding
    sizes = [layer] * count
    sizes[0] += embedding
    sizes[-1] += norm_and_head
    for _ in range(shape.layers - count):
        # Of equals the last: the earlier a stage, the more activations it keeps.
        sizes[min(range(count), key=lambda number: (sizes[number], -number))] += layer
    stages: list[Stage] = []
    for number, size in enumerate(sizes):
        others = embedding * (number == 0) + norm_and_head * (number == count - 1)
        first = stages[-1].layers.stop if stages else 0
        stages.append(Stage(number, count, range(first, first + (size - others) // layer), size))
    return stages


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> Iterator[Turn]:
    """The order of a step (Narayanan et al. 2021, arXiv:2104.04473, §2.2.1): as many forward passes as there are stages
    behind, then one forward and one backward in turn, then the backward passes that are left.

    Of one stage: each forward pass with its backward pass.
    """
    ahead = min(stages - 1 - stage, micro_batches)
    for number in range(micro_batches + ahead):
        if number < micro_batches:
            yield "forward", number
        if number >= ahead:
            yield "backward", number - ahead


def bubble(stages: int, micro_batches: int) -> float:
    """The part of a step in which a stage waits for others (Narayanan et al. 2021, §2.2.1)."""
    return (stages - 1) / (micro_batches + stages - 1)


def starved(stages: int, micro_batches: int) -> str | None:
    """What to say of a step with fewer micro-batches than stages; None where there are enough."""
    if micro_batches >= stages:
        return None
    return explain(
        "spec.parallelism.pipeline",
        found=f"{stages} stages for {micro_batches} micro-batch{'es' if micro_batches > 1 else ''} a step, "
        f"so that each process waits {bubble(stages, micro_batches):.0%} of the time",
        allowed=f"any number, though only with {stages} micro-batches or more all are at work at once",
        remedy="raise training.batch.tokens, or lower training.batch.microBatch or parallelism.data",
    )
