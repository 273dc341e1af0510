"""AlignmentRun: a language model in, an aligned one out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import API_VERSION, Metadata, Spec
from kindling_api.rules import OneOf, cel
from kindling_api.v1alpha1.checkpoint import CheckpointSpec, RestartSpec
from kindling_api.v1alpha1.parallelism import Layout, ParallelismSpec, layout_of
from kindling_api.v1alpha1.pretrain_run import DEGREES_RULE
from kindling_api.v1alpha1.resources import RunControls, TrainingResources
from kindling_api.v1alpha1.status import AlignmentRunStatus
from kindling_api.v1alpha1.storage import ModelReference, Uri
from kindling_api.v1alpha1.training import AdamW, Optimizer, TrainingSpec

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
    """Prompts in each round."""
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


class ProximalPolicy(Spec):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) against a reward model."""

    reward_model: ModelReference
    """The model that judges answers."""
    rollout: Rollout = Rollout()
    """How answers are drawn."""
    kl_coefficient: Coefficient = 0.05
    """Penalty for leaving the base model."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest change of a token's probability ratio."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 2
    """Passes over each round's answers."""
    gae: AdvantageEstimation = AdvantageEstimation()
    """Advantage estimation."""
    value_coefficient: Coefficient = 0.1
    """Weight of the value loss."""


class ExactAnswer(Spec):
    """1 when the answer after the marker equals the expected one, else 0."""

    marker: Annotated[str, Field(max_length=64)] = "####"
    """What stands before the answer, as in GSM8K."""


class FormatReward(Spec):
    """1 when the answer matches a pattern, else 0."""

    pattern: Annotated[str, Field(min_length=1, max_length=1024)]
    """A regular expression that must match the whole answer."""


class FunctionReward(Spec):
    """A user's own function, in the image of the run."""

    import_path: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=256)]
    """`module:function`; it takes prompts, answers and records, and returns one number each."""


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
    rewards: Annotated[tuple[Reward, ...], Field(min_length=1, max_length=16)]
    """What is rewarded; the sum counts."""


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
    """A jsonl or Parquet file, or a glob."""
    format: DialogueFormat | None = None
    """The form of the records; absent means detected from their fields."""


class ServeSpec(Spec):
    """A chat page and an OpenAI-compatible endpoint for the result."""

    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """Serving pods."""
    ui: bool = True
    """Whether there is a chat page beside the endpoint."""


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

    model_config = cel(DEGREES_RULE)

    base: ModelReference
    """The model to align."""
    method: Method
    """How; exactly one."""
    data: Annotated[tuple[AlignmentData, ...], Field(min_length=1, max_length=64)]
    """What to learn from."""
    chat_template: Annotated[str, Field(min_length=1, max_length=65_536)] = "default"
    """`default`, or a Jinja template."""
    training: FineTuningSpec = FineTuningSpec(epochs=1)
    """The recipe; absent means one epoch."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """How processes share the work."""
    resources: TrainingResources = TrainingResources()
    """What the run may use."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When it is saved."""
    restart: RestartSpec = RestartSpec()
    """What happens when a process dies or hangs."""
    serve: ServeSpec | None = None
    """Serve the result."""

    @model_validator(mode="after")
    def _can_be_laid_out(self) -> Self:
        self.layout()
        return self

    def layout(self) -> Layout:
        """The degrees of parallelism, complete and checked against the processes.

        Raises:
            SpecError: the product fails.
        """
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
