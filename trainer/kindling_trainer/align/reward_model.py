"""A reward model as one of the rewards, or as the judge of evaluations: it reads prompt and answer as its own template
writes them, and its number at the last token counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kindling_api.errors import SpecError, UserError, explain
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Input
from kindling_trainer.align.formats import Message
from kindling_trainer.align.judge import Answer
from kindling_trainer.align.template import DEFAULT, ChatTemplate
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_model, read_tokenizer
from kindling_trainer.data.grouped import grouped
from kindling_trainer.inputs import open_reward_model
from kindling_trainer.models import Decoder

JUDGED_AT_ONCE = 16
"""Answers that are read side by side."""


@dataclass(frozen=True)
class ModelJudge:
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
        for some in grouped(texts, JUDGED_AT_ONCE):
            longest = max(map(len, some))
            tokens = torch.tensor([text + [0] * (longest - len(text)) for text in some])
            scores = self.model(tokens.to(self.model.embedding.weight.device)).float()
            rewards += scores[range(len(some)), [len(text) - 1 for text in some]].tolist()
        for answer, reward in zip(answers, rewards, strict=True):
            if not math.isfinite(reward):
                found, remedy = f"{reward} for {answer.place}, from the reward model", "name or train another model"
                raise UserError(explain(self.field, found=found, allowed="a finite number", remedy=remedy))
        return rewards


def open_judges(run: AlignmentRunFile, device: torch.device) -> list[ModelJudge]:
    """The reward models of a run, in the order in which its specification names them.

    Raises:
        UserError: one of them is missing, or is no reward model.
    """
    field = f"spec.method.{run.spec.method.chosen[0]}"
    return [_open(given, run, device, field) for given in run.reward_models]


def open_evaluation_judge(run: AlignmentRunFile, device: torch.device) -> ModelJudge | None:
    """The reward model that compares the answers of a run's evaluations, where its specification names one.

    Raises:
        UserError: it is missing, or is no reward model.
    """
    return None if run.judge is None else _open(run.judge, run, device, "spec.evaluation.judge")


def _open(given: Input, run: AlignmentRunFile, device: torch.device, field: str) -> ModelJudge:
    try:
        store = open_reward_model(given, run)
        model = read_model(store, scored=True).to(device).requires_grad_(False)
    except SpecError as error:
        raise SpecError(f"{field}: {error}") from error
    tokenizer, end_of_document = read_tokenizer(store)
    source = read_chat_template(store) or DEFAULT
    return ModelJudge(model, ChatTemplate(source, tokenizer, end_of_document=end_of_document), field)
