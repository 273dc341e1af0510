"""When the run is saved, evaluated and started again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kindling_api.base import Spec
from kindling_api.quantities import Count, Duration
from kindling_api.v1alpha1.storage import ModelReference


class CheckpointSpec(Spec):
    """When a checkpoint is written, and how many stay."""

    every: Annotated[int, Field(ge=1)] | Duration = "10m"
    """Steps between checkpoints, as a number, or time between them, as in `10m`."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Committed checkpoints that stay; older ones are deleted."""
    async_: Annotated[bool, Field(alias="async")] = True
    """Write in the background while training goes on."""


class EvaluationSpec(Spec):
    """How often the model is evaluated on the validation part, and what is generated on the way."""

    every: Annotated[int, Field(ge=1)] = 500
    """Steps between evaluations."""
    batches: Annotated[int, Field(ge=1)] = 50
    """Micro-batches of each process in an evaluation."""
    final_tokens: Count = 10_485_760
    """Most tokens of the last evaluation, which otherwise covers the whole validation part."""
    prompts: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=16)] = ()
    """Texts that the model continues at each evaluation."""
    prompt_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Tokens generated for each prompt."""


class AlignmentEvaluationSpec(EvaluationSpec):
    """How often the model is evaluated on what is held out, and what compares its answers."""

    judge: ModelReference | None = None
    """A reward model that compares the answers with those of the base: `win_rate` is the share for which it gives the
    newer one more, ties half. Answers are those to `prompts`, or, with ppo and grpo, to what is held out."""


class RestartSpec(Spec):
    """What happens when a process dies or hangs."""

    max_restarts: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Restarts before the run fails; eviction and pre-emption do not count."""
    hang_timeout: Duration = "5m"
    """A run that takes no step for this long counts as dead."""
    start_timeout: Duration = "5m"
    """An attempt of which some pods have nodes and others find none frees them after this long, up to half as long
    again, and tries again. This does not count as a restart; with `queue` the queue decides."""


class InitializeSpec(Spec):
    """Weights to start from, instead of random ones."""

    from_: Annotated[ModelReference, Field(alias="from")]
    """The run or model whose weights are taken."""
