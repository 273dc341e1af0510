"""A reward model as one of the rewards, or as what compares answers in evaluations: it reads prompt and answer as its
own template writes them, and its number at the last token counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kindling_api.errors import SpecError, UserError, explain
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Input
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.chat.message import Message
from kindling_trainer.chat.template import ChatTemplate
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_model, read_shape, read_tokenizer
from kindling_trainer.data.inputs import open_reward_model
from kindling_trainer.data.order import grouped
from kindling_trainer.models import Decoder

SCORED_AT_ONCE = 16
"""Answers that are read side by side."""


@dataclass(frozen=True)
class RewardScorer:
    """A reward model, whole on this process."""

    model: Decoder
    template: ChatTemplate
    field: str
    """The field of the specification that names it, for errors."""

    @torch.no_grad()
    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each answer; of a dialogue longer than the model's context, it reads the newest part.

        Raises:
            UserError: a number is none.
        """
        dialogues = [((*answer.asked, Message("assistant", answer.text)), 0) for answer in answers]
        texts = [one.tokens[-self.model.shape.context :].tolist() for one in self.template.encode(dialogues)]
        rewards: list[float] = []
        for some in grouped(texts, SCORED_AT_ONCE):
            longest = max(map(len, some))
            tokens = torch.tensor([text + [0] * (longest - len(text)) for text in some])
            scores = self.model(tokens.to(self.model.embedding.weight.device)).float()
            rewards += scores[range(len(some)), [len(text) - 1 for text in some]].tolist()
        for answer, reward in zip(answers, rewards, strict=True):
            if not math.isfinite(reward):
                found, remedy = f"{reward} for {answer.place}, from the reward model", "name or train another model"
                raise UserError(explain(self.field, found=found, allowed="a finite number", remedy=remedy))
        return rewards


def open_reward_models(run: AlignmentRunFile, device: torch.device) -> list[RewardScorer]:
    """The reward models of a run, in the order in which its specification names them.

    Raises:
        UserError: one of them is missing, or is no reward model.
    """
    field = f"spec.method.{run.spec.method.chosen[0]}"
    return [_open(given, run, device, field) for given in run.reward_models]


def open_judge(run: AlignmentRunFile, device: torch.device) -> RewardScorer | None:
    """The reward model that compares the answers of a run's evaluations, where its specification names one.

    Raises:
        UserError: it is missing, or is no reward model.
    """
    return None if run.judge is None else _open(run.judge, run, device, "spec.evaluation.judge")


def _open(given: Input, run: AlignmentRunFile, device: torch.device, field: str) -> RewardScorer:
    try:
        store = open_reward_model(given, run)
        read_shape(store, scored=True)
        tokenizer, special = read_tokenizer(store)
        model = read_model(store, scored=True).to(device).requires_grad_(False)
    except SpecError as error:
        raise SpecError(f"{field}: {error}") from error
    source = read_chat_template(store)
    if source is None:
        found, allowed = f"no chat template in {store.uri}", "a reward model that says how dialogues are written for it"
        remedy = "put the template that it was trained with into chat_template.jinja of its folder"
        raise SpecError(explain(field, found=found, allowed=allowed, remedy=remedy))
    return RewardScorer(model, ChatTemplate(source, tokenizer, special.named), field)
