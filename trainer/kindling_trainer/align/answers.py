"""What an evaluation says of the model's answers, whatever the method: so that usefulness is not bought with harm, and
that what people would prefer is told beside the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean
from typing import Any

from kindling_api.base import key_of
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_toxicity.model import builtin
from kindling_trainer.align.base import Base
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.align.rewards.model import SCORED_AT_ONCE, RewardScorer, open_judge
from kindling_trainer.chat.message import Message
from kindling_trainer.chat.template import Encoded
from kindling_trainer.loop.evaluate import Sample, sample
from kindling_trainer.loop.objective import Evaluation, Interruptible
from kindling_trainer.loop.win_rate import AnswerScores
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks

HELD_OUT_SHOWN = 2
"""Records that are held out, to whose prompts the model answers where nobody asks for anything else."""
BEGINNING_TOKENS = 16
"""Of a record in which everything counts, for the model to go on from."""


@dataclass(frozen=True)
class Examiner:
    """Looks at the answers of an evaluation."""

    ranks: Ranks
    judge: RewardScorer | None
    """What compares them with the base's."""

    def __call__(self, answers: Sequence[Answer], interruptible: Interruptible[Any]) -> Evaluation:
        """Figures of all answers, none where there are none, and the answers to show; all processes call it.

        `toxicity` is the mean of the probabilities that the built-in classifier of `kindling_toxicity` gives.
        """
        if not answers:
            return Evaluation()
        said = scored([(answer.prompt, answer.text) for answer in answers])
        answer_scores = None if self.judge is None else self._answer_scores(self.judge, answers, interruptible)
        return Evaluation(None, {"toxicity": fmean(each.toxicity or 0.0 for each in said)}, said, answer_scores)

    def _answer_scores(
        self, judge: RewardScorer, answers: Sequence[Answer], interruptible: Interruptible[Any]
    ) -> AnswerScores:
        """Each process scores its part."""
        processes = self.ranks.layout.processes
        mine, scores = answers[self.ranks.rank :: processes], [0.0] * len(answers)
        found: list[float] = []
        for start in interruptible(range(0, -(-len(answers) // processes), SCORED_AT_ONCE)):
            found += judge(mine[start : start + SCORED_AT_ONCE])
        for rank, theirs in enumerate(self.ranks.from_each(found)):
            scores[rank::processes] = theirs
        return AnswerScores(key_of([[list(message) for message in each.asked] for each in answers]), scores)


def open_examiner(run: AlignmentRunFile, ranks: Ranks) -> Examiner:
    """What looks at the answers of a run.

    Raises:
        UserError: the model of `evaluation.judge` is missing, or is no reward model.
    """
    return Examiner(ranks, open_judge(run, ranks.device))


def examined(
    model: ParallelModel,
    base: Base,
    evaluation: EvaluationSpec,
    examiner: Examiner,
    held_out: Iterable[Encoded],
    *,
    whole: bool,
    interruptible: Interruptible[Any],
) -> Evaluation:
    """What the model answers to `evaluation.prompts`; where there are none, some answers to what is held out are shown
    at the end, without figures. All processes call it."""
    said = examiner(answers_to_prompts(model, base, evaluation), interruptible)
    if whole and not evaluation.prompts:
        return replace(said, samples=answers_to_held_out(model, base, evaluation, held_out))
    return said


def answers_to_held_out(
    model: ParallelModel, base: Base, evaluation: EvaluationSpec, held_out: Iterable[Encoded]
) -> list[Sample]:
    """What the model says where the first records do, each after all that comes before the first token that counts."""
    vocabulary, said = base.vocabulary, []
    size = vocabulary.tokenizer.get_vocab_size()
    for one in islice(held_out, HELD_OUT_SHOWN):
        ids = one.tokens[: int(one.counted.argmax()) or BEGINNING_TOKENS].tolist()
        tokens = sample(model, ids, tokens=evaluation.prompt_tokens, stops=vocabulary.stops, vocab_size=size)
        said.append((vocabulary.tokenizer.decode(ids).strip(), vocabulary.tokenizer.decode(tokens)))
    return scored(said)


def scored(said: Sequence[tuple[str, str]]) -> list[Sample]:
    """Prompts and answers to show, with each answer's toxicity."""
    if not said:
        return []
    toxicity = builtin().scores([text for _, text in said]).tolist()
    return [Sample(prompt, text, score) for (prompt, text), score in zip(said, toxicity, strict=True)]


def answers_to_prompts(model: ParallelModel, base: Base, evaluation: EvaluationSpec) -> list[Answer]:
    """What the model says to each of `evaluation.prompts`; all processes call it."""
    template, vocabulary = base.template, base.vocabulary
    stops, size = vocabulary.stops, vocabulary.tokenizer.get_vocab_size()
    said = []
    for number, prompt in enumerate(evaluation.prompts):
        asked = (Message("user", prompt),)
        ids = template.prompt(asked)
        tokens = sample(model, ids, tokens=evaluation.prompt_tokens, stops=stops, vocab_size=size)
        said.append(Answer(asked, vocabulary.tokenizer.decode(tokens), {}, f"spec.evaluation.prompts[{number}]"))
    return said
