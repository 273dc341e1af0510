"""The training recipe: how long, how much at a time, which optimizer and schedule, in which precision."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import SpecError, explain
from kindling_api.quantities import Count
from kindling_api.rules import OneOf, cel, exactly_one
from kindling_api.v1alpha1.parallelism import Layout

Beta = Annotated[float, Field(ge=0, lt=1)]
DEFAULT_SEQUENCES = 32
LARGEST_DEFAULT_MICRO_BATCH = 16
MICRO_BATCHES_PER_STAGE = 4
"""With so many, what the stages of a pipeline wait for one another does not matter much (Huang et al. 2019, GPipe,
§2.3)."""


class Batch(Spec):
    """Tokens of one optimizer step, over all processes, and how many sequences are computed at once."""

    tokens: Count | None = None
    """Tokens of one optimizer step; a multiple of the context. Absent means 32 sequences."""
    micro_batch: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Sequences that one process computes at once; the rest is gradient accumulation. Absent means up to 16, and so
    many that a step has four micro-batches for each stage of a pipeline."""


class AdamW(Spec):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101); norms, biases and embeddings
    are not decayed."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 6e-4
    """The peak of the schedule."""
    betas: Annotated[tuple[Beta, Beta], Field(min_length=2, max_length=2)] = (0.9, 0.95)
    """Decay of the first and second moment."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Decoupled decay of the matrices."""


class Optimizer(OneOf):
    """Which optimizer."""

    adam_w: AdamW | None = None
    """AdamW."""


class Cosine(Spec):
    """Linear warm-up, then a half cosine down to a fraction of the peak."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Fraction of the steps in which the rate rises from 0 to the peak."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The last rate, as a fraction of the peak."""


class Schedule(OneOf):
    """How the learning rate changes."""

    cosine: Cosine | None = None
    """Warm-up and cosine."""


class TrainingSpec(Spec):
    """The recipe. Exactly one of steps, tokens and epochs says how long."""

    model_config = cel(
        (
            "[has(self.steps), has(self.tokens), has(self.epochs)].filter(given, given).size() == 1",
            "exactly one of steps, tokens, epochs must be given",
        )
    )

    steps: Count | None = None
    """Optimizer steps."""
    tokens: Count | None = None
    """Tokens seen, rounded down to whole steps."""
    epochs: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """Passes over the training part of the dataset."""
    batch: Batch = Batch()
    """How much at a time."""
    optimizer: Optimizer = Optimizer(adam_w=AdamW())
    """Which optimizer."""
    schedule: Schedule = Schedule(cosine=Cosine())
    """How the learning rate changes."""
    gradient_clip: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Largest norm of the gradient; 0 means no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the matrices; `auto` is bf16 where the hardware multiplies it fast, and fp32 elsewhere. Weights and
    optimizer stay fp32."""
    compile: Literal["auto", "always", "never"] = "auto"
    """torch.compile; `auto` uses it where a compiler is found and says so where not."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again instead of keeping."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1337
    """Seed of the initial weights, the data order and dropout."""

    @model_validator(mode="after")
    def _exactly_one_length(self) -> Self:
        lengths = ("steps", "tokens", "epochs")
        given = [name for name in lengths if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(exactly_one(lengths, given))
        return self


CONTENT_FREE_TRAINING_FIELDS = frozenset({"compile", "activation_checkpointing"})
"""Fields (Python names) of the recipe that say how it is computed and not what, as `batch.micro_batch` does: no part of
a run's key. So a run that was out of memory goes on from its checkpoint with a smaller micro-batch."""


class BatchPlan(Spec):
    """One optimizer step, cut into what each process computes at once."""

    context: int
    """Tokens of a sequence."""
    sequences: int
    """Sequences of one optimizer step, over all processes."""
    micro_batch: int
    """Sequences that one process computes at once."""
    accumulation: int
    """Micro-batches of one step in each process."""

    @property
    def tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.sequences * self.context


def batch_plan(batch: Batch, context: int, layout: Layout) -> BatchPlan:
    """Cut `batch` over the layout.

    Raises:
        SpecError: the tokens are no whole sequences, or the sequences do not divide over processes and micro-batches.
    """
    tokens = batch.tokens or DEFAULT_SEQUENCES * context
    sequences, rest = divmod(tokens, context)
    if rest or not sequences:
        raise SpecError(
            explain(
                "spec.training.batch.tokens",
                found=tokens,
                allowed=f"a multiple of model.context = {context}",
                remedy=f"use {max(1, round(tokens / context)) * context}",
            )
        )
    ranks = layout.batch_ranks
    if sequences % ranks:
        raise SpecError(
            explain(
                "spec.training.batch.tokens",
                found=f"{tokens} = {sequences} sequences of {context}",
                allowed=f"a number of sequences that divides by data × replicas = {ranks}",
                remedy=f"use {-(-sequences // ranks) * ranks * context}, or change parallelism",
            )
        )
    share = sequences // ranks
    micro = batch.micro_batch or _default_micro_batch(share, layout.pipeline)
    if share % micro:
        raise SpecError(
            explain(
                "spec.training.batch.microBatch",
                found=micro,
                allowed=f"a divisor of the {share} sequences that each process has in a step",
                remedy=f"use {math.gcd(share, micro)}, or change batch.tokens",
            )
        )
    return BatchPlan(context=context, sequences=sequences, micro_batch=micro, accumulation=share // micro)


def _default_micro_batch(share: int, stages: int) -> int:
    wanted = MICRO_BATCHES_PER_STAGE * stages if stages > 1 else 1
    largest = max(1, min(LARGEST_DEFAULT_MICRO_BATCH, share // wanted))
    return max(n for n in range(1, largest + 1) if share % n == 0)


def steps_of(training: TrainingSpec, plan: BatchPlan, dataset_tokens: int) -> int:
    """Optimizer steps of the whole run, at least one; `dataset_tokens` is the training part's size."""
    if training.steps is not None:
        return training.steps
    tokens = training.tokens if training.tokens is not None else math.ceil((training.epochs or 0) * dataset_tokens)
    return max(1, tokens // plan.tokens)
