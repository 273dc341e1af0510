"""The training recipe: how long, how much at a time, which optimizer and schedule, in which precision."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import SpecError, explain, finding
from kindling_api.quantities import Count
from kindling_api.rules import cel, exactly_one
from kindling_api.v1alpha1.optimizer import AdamW, Optimizer
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.schedule import Cosine, Schedule
from kindling_api.v1alpha1.windows import Skips

LENGTHS = ("steps", "tokens", "epochs")
DEFAULT_SEQUENCES = 32
STEPS_TO_LEARN = 100
"""What a recipe leaves open is chosen so that a run has at least so many steps, if its data is enough for that."""
MOST_OPEN_EPOCHS = 25
"""Passes over few dialogues where the recipe leaves that open; as many as OpenAI's fine-tuning then takes (OpenAI
Cookbook, "Data preparation and analysis for chat model fine-tuning")."""
LARGEST_DEFAULT_MICRO_BATCH = 16
LEAST_SPIKE, LEAST_WINDOW = 7, 50
"""With fewer deviations, or steps to compare with, healthy steps are spikes; docs/measured.md has the figures."""
MICRO_BATCHES_PER_STAGE = 4
"""With so many, what the stages of a pipeline wait for one another does not matter much (Huang et al. 2019, GPipe,
§2.3)."""


class Batch(Spec):
    """Tokens of one optimizer step, over all processes, and how many sequences are computed at once."""

    tokens: Count | None = None
    """Tokens of one optimizer step; a multiple of the context. Absent means 32 sequences, or, where `tokens` or
    `epochs` says how long the run is, so many fewer (16, 8, 4, 2 or 1) that it has 100 steps."""
    micro_batch: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Sequences that one process computes at once; the rest is gradient accumulation. Absent means up to 16, and so
    many that a step has four micro-batches for each stage of a pipeline."""


class KeepBest(Spec):
    """The model that comes out has the weights with the lowest validation loss, of all evaluations (`evaluation.every`)
    and of that after the last step; `evaluation.every` and `evaluation.batches` then decide about the result."""

    stop_after: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Evaluations, one after another, of which none is the best so far, after which the run ends (Prechelt 1998, "Early
    Stopping - But When?", the criterion UP). Absent: it takes all its steps."""


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
    """torch.compile; `auto` uses it where a compiler is found and the run is long enough to pay for it (10¹³ FLOPs on a
    CPU, 10¹⁶ on a GPU, in each process), and says so where not."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again instead of keeping."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1337
    """Seed of the initial weights, the data order and dropout."""
    keep_best: KeepBest | None = None
    """Take the weights with the lowest validation loss, rather than the last ones."""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        given = self.given_lengths
        if len(given) != 1:
            raise ValueError(exactly_one(LENGTHS, given))
        return self

    @property
    def given_lengths(self) -> list[str]:
        """Which of steps, tokens and epochs say how long the run is."""
        return [name for name in LENGTHS if getattr(self, name) is not None]


class Instability(Spec):
    """Which steps are not taken, since they would harm the model. What such a step read is left out, and what follows
    is read in its place; the model's manifest says so, and `training.skip` does it again."""

    model_config = cel((f"self.spike == 0.0 || self.spike >= {LEAST_SPIKE}.0", f"spike is 0 or at least {LEAST_SPIKE}"))

    spike: Annotated[float, Field(ge=0, le=1000)] = 8.0
    """A loss, or the logarithm of a gradient's norm, is too large if it is above the median of those of the newest
    steps by more than so many standard deviations, as the median absolute deviation tells them; at least 7, below which
    steps of healthy runs lie. 0: only what is not finite is too large."""
    window: Annotated[int, Field(ge=LEAST_WINDOW, le=1000)] = 100
    """How many of the newest steps a step is compared with. None is before there are so many after the warm-up; with
    fewer than 50, steps of healthy runs would be too large."""
    rollback: Literal["auto", "never"] = "auto"
    """Where a step is too large with other windows as well, it is not they that are at fault but the weights: `auto`
    goes back to the newest checkpoint before the steps that `skip` counts, and leaves out what they read."""
    skip: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many of the newest steps a roll-back leaves out."""
    at_most: Annotated[int, Field(ge=0, le=1000)] = 3
    """How often something is left out in all. After that a step that is not finite ends the run; another that is too
    large is taken, and five in a row end the run."""

    @model_validator(mode="after")
    def _above_what_is_healthy(self) -> Self:
        if 0 < self.spike < LEAST_SPIKE:
            allowed = f"0, or at least {LEAST_SPIKE}: steps of healthy runs lie that far above those before"
            remedy = f"use {LEAST_SPIKE} or more, or 0 to find none"
            raise ValueError(finding(found=f"spike {self.spike:g}", allowed=allowed, remedy=remedy))
        return self


class PretrainingSpec(TrainingSpec):
    """The recipe. Exactly one of steps, tokens and epochs says how long."""

    skip: Skips = ()
    """Windows of the data that are left out; those that follow are read in their place."""
    instability: Instability | None = None
    """Which steps are not taken; absent: those that its defaults say."""
    document_mask: bool = False
    """Whether a token sees its own document alone, in which positions begin anew (Zhao et al. 2024, arXiv:2402.13991;
    Dubey et al. 2024, Llama 3, arXiv:2407.21783, section 3.2). The token that ends a document is the last target of
    that one and the first that the next one sees, so that every token is still a target."""
    z_loss: Annotated[float, Field(gt=0, le=1)] | None = None
    """So many times log²Z is added to each target's loss in training, where Z is what the softmax divides by: it keeps
    logits from drifting (Chowdhery et al. 2022, PaLM, arXiv:2204.02311, section 5, with 1e-4). Absent: nothing."""


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


def default_sequences(training: TrainingSpec, context: int, data_tokens: int | None) -> int:
    """Sequences of a step where the recipe leaves them open: 32, halved until the run has `STEPS_TO_LEARN` steps.

    A function of the recipe and the data alone, so that all layouts take the same steps.

    Args:
        data_tokens: of an epoch; None where they are not known yet.
    """
    sequences = DEFAULT_SEQUENCES
    if training.steps is not None or data_tokens is None:
        return sequences
    tokens = training.tokens or math.ceil((training.epochs or 1) * data_tokens)
    while sequences > 1 and tokens // (sequences * context) < STEPS_TO_LEARN:
        sequences //= 2
    return sequences


def batch_plan(batch: Batch, context: int, layout: Layout, *, sequences: int = DEFAULT_SEQUENCES) -> BatchPlan:
    """Cut `batch` over the layout.

    Args:
        sequences: of a step, where the batch leaves them open. Where they are fewer than processes, some have none.

    Raises:
        SpecError: the tokens are no whole sequences, or the sequences do not divide over processes and micro-batches.
    """
    plan = _divided(batch, context, layout)
    if batch.tokens is not None or sequences == plan.sequences:
        return plan
    share = max(1, sequences // layout.batch_ranks)
    micro = math.gcd(share, batch.micro_batch or _default_micro_batch(share, layout.pipeline))
    return BatchPlan(context=context, sequences=sequences, micro_batch=micro, accumulation=share // micro)


def _divided(batch: Batch, context: int, layout: Layout) -> BatchPlan:
    tokens = batch.tokens or DEFAULT_SEQUENCES * context
    sequences, rest = divmod(tokens, context)
    if rest or not sequences:
        raise SpecError(
            explain(
                "spec.training.batch.tokens",
                found=tokens,
                allowed=f"a multiple of the context, {context}",
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


def steps_of(training: TrainingSpec, plan: BatchPlan, data_tokens: int) -> int:
    """Optimizer steps of the whole run, at least one; `data_tokens` is the size of what is trained on."""
    if training.steps is not None:
        return training.steps
    if training.tokens is not None:
        return max(1, training.tokens // plan.tokens)
    return max(1, math.ceil(epochs_of(training, plan, data_tokens) * data_tokens) // plan.tokens)


def steps_over(training: TrainingSpec, plan: BatchPlan, sequences: int, *, round_steps: int = 1) -> int:
    """Optimizer steps of a run that learns from `sequences` sequences: what an epoch has left at its end is a batch.

    Args:
        round_steps: steps that belong together, all of which are taken.
    """
    last = _last_sequence(training, plan, sequences)
    if last is None:
        return steps_of(training, plan, sequences * plan.context)
    return -(-last // (round_steps * plan.sequences)) * round_steps


def numbers_of_step(training: TrainingSpec, plan: BatchPlan, sequences: int, step: int) -> range:
    """Which sequences the step after `step` finished ones learns from, by numbers counted on across epochs; the last
    step of some epochs has those that are left."""
    first, last = step * plan.sequences, _last_sequence(training, plan, sequences)
    after = first + plan.sequences
    return range(first, after if last is None else min(after, last))


def _last_sequence(training: TrainingSpec, plan: BatchPlan, sequences: int) -> int | None:
    """How many sequences are learnt from, one counted in each epoch; None where not epochs say how long the run is."""
    if training.steps is not None or training.tokens is not None:
        return None
    epochs = epochs_of(training, plan, sequences * plan.context)
    return max(1, math.ceil(epochs * sequences - 1e-9))  # 1.1 × 10 is a little more than 11


def epochs_of(training: TrainingSpec, plan: BatchPlan, data_tokens: int) -> float:
    """Passes over the data: as many as the recipe says or, where it leaves them open, as few whole ones as make
    `STEPS_TO_LEARN` steps, and at most `MOST_OPEN_EPOCHS`."""
    if not training.given_lengths:
        return min(MOST_OPEN_EPOCHS, max(1, math.ceil(STEPS_TO_LEARN * plan.tokens / max(1, data_tokens))))
    return training.epochs or steps_of(training, plan, data_tokens) * plan.tokens / max(1, data_tokens)
