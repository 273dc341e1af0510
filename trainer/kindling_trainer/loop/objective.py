"""What a run learns, apart from how it runs. Pretraining and every method of alignment are one loop (`train`) over one
of these; docs/design/0009-one-loop-for-every-method.md says why it is cut here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from kindling_trainer.loop.evaluate import Sample
from kindling_trainer.loop.win_rate import AnswerScores

Batch = TypeVar("Batch")
Item = TypeVar("Item")

Figures = dict[str, Tensor]
"""Figures of a part of a batch, by name, each as its sum and its count [2]: parts add up, and the figure of all is the
one over the other."""

Interruptible = Callable[[Iterable[Item]], Iterator[Item]]
"""Goes through something long, the same on all processes: between two items, the run may be asked to stop."""


@dataclass(frozen=True)
class LocalBatch(Generic[Batch]):
    """This process's part of the batch of one step."""

    micro_batches: Iterable[Batch]
    count: int
    """How many micro-batches there are: the same on all processes."""
    normaliser: float
    """What the sum of the losses over the whole batch, all processes', is divided by."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; equal on all processes."""

    loss: float | None = None
    """The loss on what is held out, in nats a token (or a pair); None where nothing is."""
    figures: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    answer_scores: AnswerScores | None = None
    """The scores of all answers, where a model compares them."""


class Objective(Protocol[Batch]):
    """A method: its batches, its loss, and its evaluation. All processes call the same methods in the same order."""

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[Batch]:
        """This process's part of the step that follows `step` finished ones: a function of `step`, and of nothing that
        a run that resumes would not find again. What takes long before that, such as drawing answers, is
        `interruptible`.

        Raises:
            UserError: the batch cannot be made, as where a reward is no number.
        """
        ...

    def loss(self, batch: Batch) -> tuple[Tensor, Figures]:
        """The sum of the losses of a micro-batch (scalar fp32, equal along tp), and what the curves show beside it."""
        ...

    def evaluate(self, *, whole: bool, interruptible: Interruptible[Any]) -> Evaluation:
        """Try the model on what is held out: a part of it, or, at the end of the run, the whole."""
        ...
