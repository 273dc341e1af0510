"""A reward model as one of the rewards: it reads prompt and answer as its own template writes them, and its number at
the last token counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_trainer.align.formats import Message
from kindling_trainer.align.judge import Answer
from kindling_trainer.align.template import DEFAULT, ChatTemplate
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_model, read_tokenizer
from kindling_trainer.inputs import open_reward_model
from kindling_trainer.models import Decoder

JUDGED_AT_ONCE = 16
"""Answers that are read side by side."""


@dataclass(frozen=True)
class ModelJudge:
    """A reward model, whole on this process."""

    model: Decoder
    template: ChatTemplate

    @torch.no_grad()
    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each answer; of a dialogue longer than the model's context, it reads the newest part."""
        dialogues = [((*answer.asked, Message("assistant", answer.text)), 0) for answer in answers]
        texts = [one.tokens[-self.model.shape.context :].tolist() for one in self.template.encode(dialogues)]
        rewards: list[float] = []
        for start in range(0, len(texts), JUDGED_AT_ONCE):
            some = texts[start : start + JUDGED_AT_ONCE]
            longest = max(map(len, some))
            tokens = torch.tensor([text + [0] * (longest - len(text)) for text in some])
            scores = self.model(tokens.to(self.model.embedding.weight.device)).float()
            rewards += scores[range(len(some)), [len(text) - 1 for text in some]].tolist()
        return rewards


def open_judges(run: AlignmentRunFile, device: torch.device) -> list[ModelJudge]:
    """The reward models of a run, in the order in which its specification names them.

    Raises:
        UserError: one of them is missing, or is no reward model.
    """
    judges = []
    for given in run.reward_models:
        store = open_reward_model(given, run)
        tokenizer, end_of_document = read_tokenizer(store)
        source = read_chat_template(store) or DEFAULT
        template = ChatTemplate(source, tokenizer, end_of_document=end_of_document)
        judges.append(ModelJudge(read_model(store, scored=True).to(device).requires_grad_(False), template))
    return judges
