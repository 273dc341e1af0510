"""What every run has before its first step, whatever it learns: where it comes from, its tokens, its model spread over
the processes, its optimizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from kindling_api.base import Digest
from kindling_api.logs import say
from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import check_divides
from kindling_api.v1alpha1.products import FileEntry, SkippedStep, model_folder
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.sizes import flops_per_token
from kindling_api.v1alpha1.training import BatchPlan
from kindling_storage import ObjectStore, open_store
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.checkpoint.huggingface import ChatFiles
from kindling_trainer.checkpoint.load import training_state
from kindling_trainer.data.inputs import TrainingRun
from kindling_trainer.loop.best import BestSoFar
from kindling_trainer.loop.objective import Objective
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.layers import ValueHead
from kindling_trainer.models.lora import add_adapters
from kindling_trainer.optim.muon import build_optimizer
from kindling_trainer.parallel.apply import ParallelModel, parallelize
from kindling_trainer.parallel.compile import use_compiler
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """What a run learns from, for its checkpoints and its model to name."""

    dataset: Digest
    """Digest of the dataset; of an alignment's files, the digest of their digests."""
    dataset_uri: str
    base: Digest | None = None
    """Digest of the model it starts from, where that has one."""
    inputs: tuple[FileEntry, ...] | None = None
    """The files of an alignment's data."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a run."""

    file: bytes
    """The content of tokenizer.json."""
    tokenizer: Tokenizer
    digest: Digest
    """Digest of the input file."""
    size: int
    """Before padding."""
    end_of_document: int | None
    """The token that ends a document."""
    special: SpecialTokens | None = None
    """Those of the model that it was made from, where there is one."""
    base_rows: int | None = None
    """Of the embedding of the model to align, before tokens were added."""
    chat: ChatFiles | None = None
    """How dialogues are written, once the model knows that."""

    @property
    def stops(self) -> frozenset[int]:
        """Every token that ends what the model says."""
        turn = () if self.chat is None else (self.chat.end_of_turn,)
        document = () if self.end_of_document is None else (self.end_of_document,)
        return frozenset({*turn, *document, *(() if self.special is None else self.special.stops)})


@dataclass(frozen=True)
class Setup:
    """The parts of a run."""

    run: TrainingRun
    ranks: Ranks
    store: ObjectStore
    """The run's folder."""
    origin: Origin
    vocabulary: Vocabulary
    shape: ModelShape
    plan: BatchPlan
    steps: int
    model: Decoder
    optimizer: torch.optim.AdamW
    objective: Objective[Any]
    compiled: bool
    round_steps: int = 1
    """Steps that belong together: checkpoints are written at multiples of it alone."""
    objective_state: dict[str, Tensor] = field(default_factory=dict)
    """What the objective remembers from step to step, by name; on the CPU, the same on all processes."""
    skipped: list[SkippedStep] = field(default_factory=list)
    """The steps so far that were not taken with what they would have read."""
    recent: list[tuple[float, float]] = field(default_factory=list)
    """Loss and norm of the steps before the checkpoint that the run goes on from, where they matter."""
    damaged: list[str] = field(default_factory=list)
    """The checkpoints that it does not go on from, and why; the first process alone knows."""

    best: BestSoFar = field(default_factory=BestSoFar)
    """The best evaluation so far, where the weights are chosen by it."""

    def state(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint; loading into them changes the run."""
        return training_state(self.model, self.optimizer) | {
            f"objective.{name}": tensor for name, tensor in self.objective_state.items()
        }

    @property
    def lora(self) -> LoRA | None:
        """The adapters that are trained; None where all weights are."""
        return self.run.spec.lora if isinstance(self.run, AlignmentRunFile) else None

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding."""
        return self.shape.padded_vocab(self.vocabulary.size)


def build(
    run: TrainingRun,
    ranks: Ranks,
    shape: ModelShape,
    vocabulary: Vocabulary,
    plan: BatchPlan,
    steps: int,
    *,
    padding_counts: bool = True,
    scored: bool = False,
    make: Callable[[ModelShape, int], Decoder] = build_model,
) -> ParallelModel:
    """The model of `shape`, spread over the processes, not yet with any weights.

    Args:
        steps: of the whole run, by which `compile: auto` decides.
        padding_counts: whether rows of the embedding beyond the vocabulary are tokens like others, which training
            makes unlikely, or have probability 0.
        scored: whether it has a value head beside its own, which is 0 until it is trained or loaded.
        make: from the shape and the padded vocabulary's size to the model.

    Raises:
        SpecError: the model cannot be cut so, or has no layer that an adapter is for.
    """
    check_divides(ranks.layout, shape)
    lora = run.spec.lora if isinstance(run, AlignmentRunFile) else None
    with torch.device("meta"):
        model = make(shape, shape.padded_vocab(vocabulary.size))
        if scored:
            model.value = ValueHead(shape.width)
        if lora is not None:
            add_adapters(model, lora)
    per_token = flops_per_token(shape, shape.padded_vocab(vocabulary.size), plan.context, lora)
    compiled = use_compiler(run.spec.training.compile, ranks, steps * plan.tokens * per_token / ranks.layout.processes)
    parallel = parallelize(
        model, run.spec.training, ranks, compiled=compiled, vocab_size=None if padding_counts else vocabulary.size
    )
    model.to_empty(device=ranks.device)
    for module in model.modules():
        if isinstance(module, ValueHead):
            nn.init.zeros_(module.weight)
    return parallel


def assemble(
    run: TrainingRun, ranks: Ranks, origin: Origin, vocabulary: Vocabulary, model: ParallelModel, plan: BatchPlan,
    steps: int, objective: Objective[Any], *, round_steps: int = 1,
    state: Mapping[str, Tensor] | None = None,
) -> Setup:  # fmt: skip
    """The parts, together with those that are the same for all runs."""
    if ranks.leads:
        what = f"{steps} steps of {plan.tokens} tokens: {plan.sequences} sequences of {plan.context}"
        say(log, f"{what}; {ranks.describe()}", layout=ranks.layout.document(), device=str(ranks.device))
    return Setup(
        run=run,
        ranks=ranks,
        store=open_store(run.output).child(model_folder(run.key)),
        origin=origin,
        vocabulary=vocabulary,
        shape=model.model.shape,
        plan=plan,
        steps=steps,
        model=model.model,
        optimizer=build_optimizer(model.model, run.spec.training.optimizer, model.precision),
        objective=objective,
        compiled=model.compiled,
        round_steps=round_steps,
        objective_state=dict(state or {}),
    )
