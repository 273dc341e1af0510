"""AlignmentRun: a language model in, an aligned one out."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from kindling_api.base import API_VERSION, Metadata, Name, Spec
from kindling_api.errors import SpecError, explain, finding
from kindling_api.quantities import Duration
from kindling_api.rules import OneOf, cel, exactly_one
from kindling_api.v1alpha1.checkpoint import AlignmentEvaluationSpec, CheckpointSpec, RestartSpec
from kindling_api.v1alpha1.parallelism import Layout, ParallelismSpec, layout_of
from kindling_api.v1alpha1.pretrain_run import DEGREES_RULE
from kindling_api.v1alpha1.resources import PodResources, RunControls, TrainingResources
from kindling_api.v1alpha1.status import AlignmentRunStatus
from kindling_api.v1alpha1.storage import ModelReference, Uri
from kindling_api.v1alpha1.training import AdamW, BatchPlan, Optimizer, TrainingSpec, batch_plan

Coefficient = Annotated[float, Field(ge=0, le=1000)]


class SupervisedFineTuning(Spec):
    """Supervised fine-tuning on dialogues."""

    packing: bool = True
    """Put several dialogues into one sequence, each seeing only itself."""
    train_on: Literal["assistant", "all"] = "assistant"
    """Which tokens count in the loss."""


class RewardModel(Spec):
    """A reward model (Bradley–Terry) on pairs of answers."""

    center_coefficient: Coefficient = 0.0
    """Weight of the penalty that keeps rewards around zero."""


class DirectPreference(Spec):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """Strength of the tie to the base model."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """The sigmoid loss of DPO, or the squared loss of IPO (arXiv:2310.12036)."""
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Assumed fraction of pairs whose preference is wrong."""


class Rollout(Spec):
    """How answers are drawn from the model in training."""

    prompts: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Prompts in each round. Each round's answers are learned from in one optimizer step, or, with
    `training.batch.tokens`, in as many as they make batches; PPO does so once in each of its epochs."""
    max_new_tokens: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Longest answer."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature."""


class AdvantageEstimation(Spec):
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount."""
    lambda_: Annotated[float, Field(ge=0, le=1, alias="lambda")] = 0.95
    """Trade of bias against variance."""


class ExactAnswer(Spec):
    """1 when the answer after the marker equals the expected one, else 0."""

    marker: Annotated[str, Field(max_length=64)] = "####"
    """What stands before the answer, as in GSM8K."""


class FormatReward(Spec):
    """1 when the answer matches a pattern, else 0."""

    pattern: Annotated[str, Field(min_length=1, max_length=1024)]
    """A regular expression (of Python) that must match the whole answer."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            remedy = "see docs.python.org/3/library/re.html"
            raise ValueError(finding(found=f"{pattern!r} ({error})", allowed="a pattern", remedy=remedy)) from error
        return pattern


class FunctionReward(Spec):
    """A user's own function, in the image of the run."""

    import_path: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=256)]
    """`module:function`; it takes prompts (what was said last, as texts), answers (texts) and the prompts' records
    (mappings), all lists of one length, and returns one number for each."""
    timeout: Duration = "1m"
    """Longest time of one call, over all answers that one process judges in a round."""


class Reward(OneOf):
    """One source of reward."""

    exact_answer: ExactAnswer | None = None
    """The answer equals the expected one."""
    format: FormatReward | None = None
    """The answer has a form."""
    function: FunctionReward | None = None
    """A user's function."""
    model: ModelReference | None = None
    """A reward model."""


Rewards = Annotated[tuple[Reward, ...], Field(min_length=1, max_length=16)]


class ProximalPolicy(Spec):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), judged by a reward model or by rules."""

    model_config = cel(
        (
            "[has(self.rewardModel), has(self.rewards)].filter(given, given).size() == 1",
            "exactly one of rewardModel, rewards must be given",
        )
    )

    reward_model: ModelReference | None = None
    """The model that judges answers."""
    rewards: Rewards | None = None
    """What is rewarded instead; the sum counts."""
    rollout: Rollout = Rollout()
    """How answers are drawn."""
    kl_coefficient: Coefficient = 0.05
    """Penalty for leaving the base model, at each token."""
    kl_target: Annotated[float, Field(gt=0, le=1000)] | None = None
    """The divergence from the base model, in nats an answer, to which the penalty is adapted round by round; absent
    means that the penalty stays as it is."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest change of a token's probability ratio, and of its value."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 2
    """Passes over each round's answers."""
    gae: AdvantageEstimation = AdvantageEstimation()
    """Advantage estimation."""
    value_coefficient: Coefficient = 0.1
    """Weight of the value loss."""

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        choices = {"rewardModel": self.reward_model, "rewards": self.rewards}
        given = [name for name, value in choices.items() if value is not None]
        if len(given) != 1:
            raise ValueError(exactly_one(list(choices), given))
        return self

    @property
    def answers(self) -> int:
        """Answers of a round."""
        return self.rollout.prompts

    @property
    def all_rewards(self) -> tuple[Reward, ...]:
        """What is rewarded, however it was given."""
        return self.rewards or (Reward(model=self.reward_model),)


class GroupRelativePolicy(Spec):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300)."""

    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Answers for each prompt; their mean is the baseline."""
    rollout: Rollout = Rollout()
    """How answers are drawn."""
    kl_coefficient: Coefficient = 0.02
    """Penalty for leaving the base model."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest change of a token's probability ratio."""
    rewards: Rewards
    """What is rewarded; the sum counts."""

    @property
    def answers(self) -> int:
        """Answers of a round."""
        return self.rollout.prompts * self.group_size


class Method(OneOf):
    """How the model is aligned."""

    sft: SupervisedFineTuning | None = None
    """Supervised fine-tuning."""
    reward: RewardModel | None = None
    """A reward model."""
    dpo: DirectPreference | None = None
    """Direct preference optimisation."""
    ppo: ProximalPolicy | None = None
    """Proximal policy optimisation."""
    grpo: GroupRelativePolicy | None = None
    """Group-relative policy optimisation."""


DialogueFormat = Literal["messages", "promptCompletion", "preference", "unpaired", "promptOnly", "shareGPT", "alpaca"]


class AlignmentData(Spec):
    """Dialogues, pairs or prompts."""

    uri: Uri
    """A JSONL or Parquet file, a folder, or a glob; or `builtin:python-docstrings`, questions about Python's standard
    library with their answers from its own docstrings."""
    format: DialogueFormat | None = None
    """The form of the records; absent means detected from their fields."""


class HeldOut(Spec):
    """What is not learnt, for evaluations."""

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
    resources: PodResources = PodResources()
    """CPU and memory of each pod: in memory is the model, in fp32, and what it remembers of each dialogue."""
    api_key_secret: Name | None = None
    """A Secret in this namespace; clients must send what it holds as `apiKey`. Without one, only pods of this namespace
    may ask."""


class FineTuningAdamW(AdamW):
    """AdamW with a peak that fits a model that is trained already."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-5
    """The peak of the schedule."""


class FineTuningOptimizer(Optimizer):
    """Which optimizer."""

    adam_w: FineTuningAdamW | None = None
    """AdamW."""


class FineTuningSpec(TrainingSpec):
    """The recipe of pretraining, with defaults that fit alignment."""

    optimizer: FineTuningOptimizer = FineTuningOptimizer(adam_w=FineTuningAdamW())
    """Which optimizer."""


class AlignmentRunSpec(RunControls):
    """A language model in, an aligned one out."""

    model_config = cel(
        DEGREES_RULE,
        ("self.parallelism.pipeline == 1", "parallelism.pipeline must be 1: only pretraining has stages"),
        (
            "!has(self.evaluation.judge) || has(self.method.ppo) || has(self.method.grpo)"
            " || (!has(self.method.reward) && self.evaluation.prompts.size() > 0)",
            "evaluation.judge needs answers: those to evaluation.prompts, of a method that answers",
        ),
    )

    base: ModelReference
    """The model to align."""
    method: Method
    """How; exactly one."""
    data: Annotated[tuple[AlignmentData, ...], Field(min_length=1, max_length=64)]
    """What to learn from."""
    validation: HeldOut = HeldOut()
    """What is held out."""
    chat_template: Annotated[str, Field(min_length=1, max_length=65_536)] = "default"
    """A Jinja template; `default` means the base's own, or else Kindling's."""
    training: FineTuningSpec = FineTuningSpec(epochs=1)
    """The recipe; absent means one epoch."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """How processes share the work."""
    resources: TrainingResources = TrainingResources()
    """What the run may use."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When it is saved."""
    evaluation: AlignmentEvaluationSpec = AlignmentEvaluationSpec(every=100)
    """How it is tried, before the first step and on the way; prompts are what a user says."""
    restart: RestartSpec = RestartSpec()
    """What happens when a process dies or hangs."""
    serve: ServeSpec | None = None
    """Serve the result."""

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

    def batch_plan(self, context: int) -> BatchPlan:
        """The batch, cut over the processes; where answers are rewarded, one of a whole round unless `batch.tokens`
        says otherwise.

        Raises:
            SpecError: it does not divide.
        """
        batch, rewarded = self.training.batch, self.method.ppo or self.method.grpo
        if rewarded is not None and batch.tokens is None:
            batch = batch.model_copy(update={"tokens": rewarded.answers * context})
        return batch_plan(batch, context, self.layout())

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
