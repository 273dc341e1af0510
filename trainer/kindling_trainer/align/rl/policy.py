"""What reinforcement learning opens before its first step, whatever the algorithm: prompts, rewards, and whole copies
of the model to draw answers with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.alignment_method import Reward, Rollout
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.training import steps_over
from kindling_trainer.align.answers import open_examiner
from kindling_trainer.align.base import Base, open_base
from kindling_trainer.align.data.check import check_findings
from kindling_trainer.align.data.sources import (
    digest_of_inputs,
    read_inputs,
    sources,
    split_held_out,
    validation_sources,
)
from kindling_trainer.align.data.tokenize import TokenPrompt, read_prompts
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.align.rewards.rewards import expected_answer
from kindling_trainer.align.rl.rollout import RewardFunction, Rollouts, whole_copy
from kindling_trainer.align.rl.rounds import RoundPlan, plan_rounds
from kindling_trainer.checkpoint.huggingface import read_weights
from kindling_trainer.loop.objective import Objective
from kindling_trainer.loop.setup import Origin, Setup, assemble, build
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """The parts that every algorithm shares."""

    base: Base
    model: ParallelModel
    """What learns; without dropout, under which an answer's probability would not be the one it was drawn with."""
    plan: RoundPlan
    steps: int
    rollouts: Rollouts
    validation: list[TokenPrompt]


def open_policy(
    run: AlignmentRunFile,
    ranks: Ranks,
    rollout: Rollout,
    rewards: RewardFunction,
    *,
    group: int,
    penalty: bool,
    scored: bool = False,
) -> Policy:
    """Read the prompts, and build the model, not yet with any weights.

    Args:
        group: answers to each prompt.
        penalty: whether the policy is to stay near the base model.
        scored: whether the model has a value head.

    Raises:
        UserError: base, template, data or plan are wrong.
    """
    spec, base = run.spec, open_base(run)
    method = spec.method.ppo or spec.method.grpo
    assert method is not None
    plan = plan_rounds(spec, base.shape.context)
    training, validation = _prompts(run, base, rollout)
    if spec.evaluation.judge is not None and not validation:
        allowed, remedy = "answers to judge", "give validation.data, or a larger validation.fraction"
        raise SpecError(
            explain("spec.evaluation.judge", found="no prompt that is held out", allowed=allowed, remedy=remedy)
        )
    answers = len(training) * group * plan.passes
    steps = steps_over(spec.training, plan.batch, answers, round_steps=plan.steps)
    model = build(run, ranks, base.shape, base.vocabulary, plan.batch, steps, padding_counts=False, scored=scored)
    model.model.eval()
    vocabulary = base.vocabulary
    if ranks.leads:
        log.info("%d prompts, %d held out; %d answers a round", len(training), len(validation), plan.answers)
    whole = whole_copy(model, spec.lora)
    unchanged = None
    if penalty:
        unchanged = whole if spec.lora is not None else whole_base(base, ranks.device)
    rollouts = Rollouts(
        policy=model, whole=whole, base=unchanged,
        tokenizer=vocabulary.tokenizer, vocab_size=vocabulary.size, stops=vocabulary.stops,
        questions=training, rewards=rewards, settings=rollout, group=group, seed=spec.training.seed,
        examiner=open_examiner(run, ranks), weights=method.reward_weights,
    )  # fmt: skip
    return Policy(base, model, plan, steps, rollouts, validation)


def assemble_policy(
    run: AlignmentRunFile,
    ranks: Ranks,
    policy: Policy,
    objective: Objective[Any],
    state: Mapping[str, Tensor] | None = None,
) -> Setup:
    """The run's parts; an epoch is a pass over the prompts.

    Args:
        state: what a checkpoint holds of the objective, by name.
    """
    base, plan = policy.base, policy.plan
    inputs = read_inputs(run)
    origin = Origin(digest_of_inputs(inputs), run.spec.data[0].uri, base.digest, inputs)
    return assemble(
        run,
        ranks,
        origin,
        base.vocabulary,
        policy.model,
        plan.batch,
        policy.steps,
        objective,
        round_steps=plan.steps,
        state=state,
    )


def check_expected(rewards: tuple[Reward, ...], prompts: list[TokenPrompt]) -> None:
    """Refuse prompts without the answer that a reward expects.

    Raises:
        DataError: there is one.
    """
    for reward in rewards:
        if reward.exact_answer is not None:
            for prompt in prompts:
                asked = Answer(prompt.prompt.messages, "", prompt.prompt.record, prompt.place)
                expected_answer(asked, reward.exact_answer.marker)


def _prompts(run: AlignmentRunFile, base: Base, rollout: Rollout) -> tuple[list[TokenPrompt], list[TokenPrompt]]:
    """The prompts to learn from, and those held out."""
    spec, context = run.spec, run.spec.context(base.shape.context)
    if rollout.max_new_tokens >= context:
        field, _ = spec.method.chosen
        raise SpecError(
            explain(
                f"spec.method.{field}.rollout.maxNewTokens",
                found=rollout.max_new_tokens,
                allowed=f"less than the context, {context}, in which the prompt stands too",
                remedy=f"use {max(1, context // 2)}",
            )
        )
    longest = context - rollout.max_new_tokens
    prompts, findings = read_prompts(sources(run), base.template, longest=longest)
    check_findings(findings)
    for sentence in findings.sentences():
        log.info(sentence)
    if spec.validation.data:
        others, findings = read_prompts(validation_sources(run), base.template, longest=longest)
        check_findings(findings, where="spec.validation.data")
        return prompts, others
    training, validation = split_held_out(len(prompts), spec.validation.fraction, spec.training.seed)
    return [prompts[number] for number in training], [prompts[number] for number in validation]


def whole_base(base: Base, device: torch.device) -> Decoder:
    """The base model whole, on this process, never to be trained."""
    rows = base.shape.padded_vocab(base.vocabulary.size)
    with torch.device("meta"):
        model = build_model(base.shape, rows)
    model.to_empty(device=device)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in read_weights(base.store, base.shape, rows):
            parameters[name].copy_(tensor)
    return model.eval().requires_grad_(False)
