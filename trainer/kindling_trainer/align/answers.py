"""What an evaluation says of the model's answers, whatever the method: so that usefulness is not bought with harm."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_toxicity.model import builtin
from kindling_trainer.align.base import Base
from kindling_trainer.align.formats import Message
from kindling_trainer.align.judge import Answer
from kindling_trainer.evaluate import Continuation, sample
from kindling_trainer.parallel.apply import ParallelModel


def answers_to_prompts(model: ParallelModel, base: Base, evaluation: EvaluationSpec) -> list[Answer]:
    """What the model says to each of `evaluation.prompts`; all processes call it."""
    template, vocabulary = base.template, base.vocabulary
    assert vocabulary.chat is not None
    stops, size = {vocabulary.chat.end_of_turn, vocabulary.end_of_document}, vocabulary.tokenizer.get_vocab_size()
    said = []
    for number, prompt in enumerate(evaluation.prompts):
        asked = (Message("user", prompt),)
        ids = template.prompt(asked)
        tokens = sample(model, ids, tokens=evaluation.prompt_tokens, stops=stops, vocab_size=size)
        said.append(Answer(asked, vocabulary.tokenizer.decode(tokens), {}, f"spec.evaluation.prompts[{number}]"))
    return said


def examined(answers: Sequence[Answer]) -> tuple[dict[str, float], list[Continuation]]:
    """Figures of all answers, none where there are none; and the answers to show, each with its own toxicity.

    The toxicity is the probability that the built-in classifier of `kindling_toxicity` gives.
    """
    if not answers:
        return {}, []
    scores = builtin().scores([answer.text for answer in answers]).tolist()
    said = [Continuation(each.prompt, each.text, score) for each, score in zip(answers, scores, strict=True)]
    return {"toxicity": fmean(scores)}, said
