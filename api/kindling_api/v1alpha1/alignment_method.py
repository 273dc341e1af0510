"""How a model is aligned, and what is rewarded."""

from __future__ import annotations

import re
from re import _parser  # type: ignore[attr-defined]
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from kindling_api.base import Spec
from kindling_api.errors import finding
from kindling_api.quantities import Duration
from kindling_api.rules import OneOf, cel, exactly_one
from kindling_api.v1alpha1.storage import ModelReference

Coefficient = Annotated[float, Field(ge=0, le=1000)]

_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
IMPORT_PATH_PATTERN = rf"^{_DOTTED}:[A-Za-z_][A-Za-z0-9_]*$"

ModuleName = Annotated[str, Field(pattern=rf"^{_DOTTED}$", max_length=256)]
"""A module of Python, or a package with all that is in it."""


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
    def _is_a_pattern(cls, pattern: str) -> str:
        """Parsed and not compiled: the operator asks this, too, and some patterns take long to compile."""
        try:
            _parser.parse(pattern)
        except (re.error, OverflowError, RecursionError) as wrong:
            remedy = "see docs.python.org/3/library/re.html"
            raise ValueError(finding(found=f"{pattern!r} ({wrong})", allowed="a pattern", remedy=remedy)) from wrong
        return pattern


class FunctionReward(Spec):
    """A function of the image of the run, on a cluster one that the installation allows."""

    import_path: Annotated[str, Field(pattern=IMPORT_PATH_PATTERN, max_length=256)]
    """`module:function`; on a cluster, rewards.allowedModules of the chart must have its module. It takes prompts (what
    was said last, as texts), answers (texts) and the prompts' records (mappings), all lists of one length, and returns
    one number for each."""
    timeout: Duration = "1m"
    """Longest time of one call, over all answers that one process scores in a round."""


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
Weights = Annotated[tuple[Annotated[float, Field(ge=-1000, le=1000)], ...], Field(min_length=1, max_length=16)]
WEIGHTS_RULE = (
    "!has(self.rewardWeights) || (has(self.rewards) && size(self.rewards) == size(self.rewardWeights))",
    "rewardWeights has one number for each of rewards",
)


def check_weights(weights: Weights | None, rewards: Rewards | None) -> None:
    """Raises ValueError unless each reward has its weight, or none has."""
    if weights is None or len(weights) == len(rewards or ()):
        return
    found = f"{len(weights)} rewardWeights and {len(rewards or ())} rewards"
    remedy = f"give {len(rewards)} weights" if rewards else "write rewards"
    raise ValueError(finding(found=found, allowed="one weight for each reward", remedy=remedy))


class ProximalPolicy(Spec):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), rewarded by a reward model or by rules."""

    model_config = cel(
        (
            "[has(self.rewardModel), has(self.rewards)].filter(given, given).size() == 1",
            "exactly one of rewardModel, rewards must be given",
        ),
        WEIGHTS_RULE,
    )

    reward_model: ModelReference | None = None
    """The model that scores answers."""
    rewards: Rewards | None = None
    """What is rewarded instead; the sum counts."""
    reward_weights: Weights | None = None
    """By what each of `rewards` is multiplied in the sum; absent: 1."""
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
        check_weights(self.reward_weights, self.rewards)
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

    model_config = cel(
        WEIGHTS_RULE,
        ("!has(self.clipHigh) || self.clipHigh >= self.clip", "clipHigh must be at least clip"),
    )

    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Answers for each prompt; their mean is the baseline."""
    rollout: Rollout = Rollout()
    """How answers are drawn."""
    kl_coefficient: Coefficient = 0.02
    """Penalty for leaving the base model."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Largest change of a token's probability ratio."""
    clip_high: Annotated[float, Field(gt=0, le=10)] | None = None
    """Largest change upwards, where that is another than downwards: with 0.28, unlikely tokens have room to become
    likelier (Yu et al. 2025, DAPO, arXiv:2503.14476, section 3.1)."""
    estimator: Literal["grpo", "drGrpo"] = "grpo"
    """`drGrpo`: rewards are centred and not divided by a group's deviation, and the loss is divided by `maxNewTokens`
    an answer and not by the tokens there are, so that neither a prompt's difficulty nor an answer's length weighs (Liu
    et al. 2025, Dr. GRPO, arXiv:2503.20783, section 3.1)."""
    mask_cut: bool = False
    """Whether answers that were cut off before their end teach nothing; in their group's mean they count (Yu et al.
    2025, DAPO, arXiv:2503.14476, section 3.4)."""
    rewards: Rewards
    """What is rewarded; the sum counts."""
    reward_weights: Weights | None = None
    """By what each of `rewards` is multiplied in the sum; absent: 1."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_weights(self.reward_weights, self.rewards)
        if self.clip_high is not None and self.clip_high < self.clip:
            found = f"clipHigh {self.clip_high:g} and clip {self.clip:g}"
            raise ValueError(finding(found=found, allowed="clipHigh of at least clip", remedy="raise clipHigh"))
        return self

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
