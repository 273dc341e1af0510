"""AlignmentRun: a language model in, an aligned one out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import API_VERSION, Metadata, Name, Spec
from kindling_api.errors import SpecError, explain, finding
from kindling_api.rules import cel
from kindling_api.v1alpha1.adapter import Adapter, LoRA
from kindling_api.v1alpha1.alignment_method import Method
from kindling_api.v1alpha1.checkpoint import AlignmentEvaluationSpec, CheckpointSpec, RestartSpec
from kindling_api.v1alpha1.optimizer import AdamW, Muon, Optimizer
from kindling_api.v1alpha1.parallelism import Layout, ParallelismSpec, layout_of
from kindling_api.v1alpha1.pretrain_run import DEGREES_RULE
from kindling_api.v1alpha1.publish import PublishSpec
from kindling_api.v1alpha1.resources import TOPOLOGY_RULE, ServeResources, TrainingControls, TrainingResources
from kindling_api.v1alpha1.status import AlignmentRunStatus
from kindling_api.v1alpha1.storage import DataUri, ModelReference
from kindling_api.v1alpha1.tracking import TrackingSpec
from kindling_api.v1alpha1.training import LENGTHS, BatchPlan, TrainingSpec, batch_plan, default_sequences

DialogueFormat = Literal["messages", "promptCompletion", "preference", "unpaired", "promptOnly", "shareGPT", "alpaca"]


class AlignmentData(Spec):
    """Dialogues, pairs or prompts."""

    uri: DataUri
    """A JSONL, JSON or Parquet file, a folder, or a glob; or, on the Hugging Face Hub,
    `hf://datasets/owner/name[@revision][/path]`, on a cluster with a commit, in full, as the revision; or
    `builtin:python-docstrings`, questions about Python's standard library with their answers from its own
    docstrings."""
    format: DialogueFormat | None = None
    """The form of the records; absent means detected from their fields."""


class HeldOut(Spec):
    """What is kept from training, for evaluations."""

    data: Annotated[tuple[AlignmentData, ...], Field(max_length=64)] = ()
    """Records of their own; absent means a fraction of those to learn from."""
    fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Part of `spec.data` that is held out where there is no data of its own; drawn by training.seed."""


class ServeSpec(Spec):
    """A chat page and an OpenAI-compatible endpoint for the result."""

    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """Serving pods."""
    ui: bool = True
    """Whether there is a chat page beside the endpoint."""
    resources: ServeResources = ServeResources()
    """CPU and memory of each pod: in memory is the model, in fp32, and what it remembers of each dialogue; with `gpu`
    the model is in bfloat16, and both are on the device once the model is read."""
    api_key_secret: Name | None = None
    """A Secret in this namespace; clients must send what it holds as `apiKey`. Without one, only pods of this namespace
    may ask."""


class FineTuningAdamW(AdamW):
    """AdamW with a peak that fits a model that is trained already."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-5
    """The peak of the schedule."""


class FineTuningMuon(Muon):
    """Muon with a peak that fits a model that is trained already, with Muon as well (Liu et al. 2025, "Muon is
    scalable", arXiv:2502.16982, section 3.5)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-5
    """The peak of the schedule, for all parameters."""


class FineTuningOptimizer(Optimizer):
    """Which optimizer."""

    adam_w: FineTuningAdamW | None = None
    """AdamW."""
    muon: FineTuningMuon | None = None
    """Muon for the matrices of the layers, AdamW for the rest."""


class FineTuningSpec(TrainingSpec):
    """The recipe of pretraining, with defaults that fit alignment. At most one of steps, tokens and epochs says how
    long; where none does, there are as few epochs as make 100 steps, and at most 25."""

    model_config = cel(
        (
            "[has(self.steps), has(self.tokens), has(self.epochs)].filter(given, given).size() <= 1",
            "at most one of steps, tokens, epochs may be given",
        )
    )

    optimizer: FineTuningOptimizer = FineTuningOptimizer(adam_w=FineTuningAdamW())
    """Which optimizer."""
    context: Annotated[int, Field(ge=8, le=2**22)] | None = None
    """Tokens of a sequence, at most the model's own context; absent means that. What is longer is cut after an answer,
    or left out, and counted."""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        given = self.given_lengths
        if len(given) > 1:
            allowed, remedy = f"at most one of {', '.join(LENGTHS)}", f"keep one of {', '.join(given)}"
            raise ValueError(finding(found=" and ".join(given), allowed=allowed, remedy=remedy))
        return self


class AlignmentRunSpec(TrainingControls):
    """A language model in, an aligned one out."""

    model_config = cel(
        DEGREES_RULE,
        TOPOLOGY_RULE,
        ("self.parallelism.pipeline == 1", "parallelism.pipeline must be 1: only pretraining has stages"),
        (
            "!has(self.evaluation.judge) || has(self.method.ppo) || has(self.method.grpo)"
            " || (!has(self.method.reward) && self.evaluation.prompts.size() > 0)",
            "evaluation.judge needs answers: those to evaluation.prompts, of a method that answers",
        ),
        (
            "!has(self.training.keepBest) || !(has(self.method.ppo) || has(self.method.grpo))",
            "training.keepBest needs a validation loss, which ppo and grpo do not have",
        ),
        (
            "!has(self.adapter) || !has(self.training.optimizer.muon)",
            "training.optimizer must be adamW with adapter: Muon is for whole matrices",
        ),
    )

    base: ModelReference
    """The model to align."""
    method: Method
    """How; exactly one."""
    adapter: Adapter | None = None
    """What is trained in the place of the model's weights; absent means all of them are."""
    data: Annotated[tuple[AlignmentData, ...], Field(min_length=1, max_length=64)]
    """What to learn from."""
    validation: HeldOut = HeldOut()
    """What is held out."""
    chat_template: Annotated[str, Field(min_length=1, max_length=65_536)] = "default"
    """A Jinja template; `default` means the base's own, or else Kindling's."""
    training: FineTuningSpec = FineTuningSpec()
    """The recipe; absent means that batch and epochs are chosen for the size of the data."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """How processes share the work."""
    resources: TrainingResources = TrainingResources()
    """What the run may use."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When it is saved."""
    evaluation: AlignmentEvaluationSpec = AlignmentEvaluationSpec(every=100)
    """How the model is evaluated, before the first step and on the way; prompts are what a user says."""
    restart: RestartSpec = RestartSpec()
    """What happens when a process dies or hangs."""
    serve: ServeSpec | None = None
    """Serve the result."""
    publish: PublishSpec | None = None
    """Put the finished model on the Hugging Face Hub."""
    tracking: TrackingSpec | None = None
    """Show the run's curves in Weights & Biases or MLflow."""

    @model_validator(mode="after")
    def _can_be_laid_out(self) -> Self:
        self.layout()
        return self

    @model_validator(mode="after")
    def _judge_has_answers(self) -> Self:
        method = self.method
        answers = method.ppo or method.grpo or (not method.reward and self.evaluation.prompts)
        if self.evaluation.judge is not None and not answers:
            reward = method.reward is not None
            raise SpecError(
                explain(
                    "spec.evaluation.judge",
                    found="method reward, whose model answers nothing" if reward else "no evaluation.prompts to answer",
                    allowed="answers to judge: those to evaluation.prompts, or with ppo and grpo to what is held out",
                    remedy="remove judge" if reward else "add evaluation.prompts, or remove judge",
                )
            )
        return self

    @model_validator(mode="after")
    def _best_has_a_loss(self) -> Self:
        if self.training.keep_best is not None and (self.method.ppo or self.method.grpo):
            found, allowed = f"method {self.method.chosen[0]}", "a method with a validation loss: sft, dpo, reward"
            raise SpecError(explain("spec.training.keepBest", found=found, allowed=allowed, remedy="remove keepBest"))
        return self

    @model_validator(mode="after")
    def _adapters_are_no_matrices_of_their_own(self) -> Self:
        if self.adapter is not None and self.training.optimizer.muon is not None:
            allowed, remedy = "adamW, with adapter: Muon is for whole matrices", "use adamW, or remove adapter"
            raise SpecError(explain("spec.training.optimizer", found="muon", allowed=allowed, remedy=remedy))
        return self

    @property
    def lora(self) -> LoRA | None:
        """The low-rank adapters that are trained; None where all weights are."""
        return None if self.adapter is None else self.adapter.lora

    def context(self, largest: int) -> int:
        """Tokens of a sequence, where the model can have `largest`.

        Raises:
            SpecError: it is to have more, or what the processes cannot share.
        """
        chosen, multiple = self.training.context or largest, self.layout().length_multiple
        if chosen > largest:
            allowed, remedy = f"at most the model's own context, {largest}", "leave it out, or use a smaller one"
            raise SpecError(explain("spec.training.context", found=chosen, allowed=allowed, remedy=remedy))
        if self.training.context is not None and chosen % multiple:
            allowed = f"a multiple of {multiple}, so that the processes can share a sequence"
            remedy = f"use {max(1, chosen // multiple) * multiple}, or change parallelism"
            raise SpecError(explain("spec.training.context", found=chosen, allowed=allowed, remedy=remedy))
        return chosen

    def batch_plan(self, context: int, data_tokens: int | None = None) -> BatchPlan:
        """The batch, cut over the processes; where answers are rewarded, one of a whole round unless `batch.tokens`
        says otherwise.

        Args:
            context: of the model; a smaller one of the recipe goes before.
            data_tokens: of all sequences to learn; where they are not known, a batch that is left open is the largest.

        Raises:
            SpecError: it does not divide.
        """
        context = self.context(context)
        batch, rewarded = self.training.batch, self.method.ppo or self.method.grpo
        if rewarded is not None and batch.tokens is None:
            batch = batch.model_copy(update={"tokens": rewarded.answers * context})
        sequences = default_sequences(self.training, context, data_tokens)
        return batch_plan(batch, context, self.layout(), sequences=sequences)

    def round_steps(self, plan: BatchPlan) -> int:
        """Optimizer steps that learn from the answers of one round; 1 where no answers are rewarded."""
        rewarded = self.method.ppo or self.method.grpo
        return 1 if rewarded is None else max(1, self.passes * rewarded.answers // plan.sequences)

    @property
    def passes(self) -> int:
        """How often a round's answers are learnt from."""
        return self.method.ppo.epochs if self.method.ppo else 1

    def layout(self) -> Layout:
        """The degrees of parallelism, complete and checked against the processes.

        Raises:
            SpecError: the product fails, or there are stages.
        """
        if self.parallelism.pipeline > 1:
            allowed, remedy = "1; only pretraining has stages", "use tensor, context, data or replicas instead"
            found = self.parallelism.pipeline
            raise SpecError(explain("spec.parallelism.pipeline", found=found, allowed=allowed, remedy=remedy))
        return layout_of(self.parallelism, self.resources.processes)


class AlignmentRun(Spec):
    """A language model in, an aligned one out: SFT, reward model, DPO, PPO or GRPO."""

    api_version: Literal["kindling.dev/v1alpha1"] = API_VERSION
    kind: Literal["AlignmentRun"] = "AlignmentRun"
    metadata: Metadata
    spec: AlignmentRunSpec
    """What to align."""
    status: AlignmentRunStatus | None = None
    """How far it is; written by the operator."""
