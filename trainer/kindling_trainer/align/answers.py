"""What an evaluation says of the model's answers, whatever the method: so that usefulness is not bought with harm, and
that what people would prefer is told beside the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from kindling_api.base import key_of
from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_toxicity.model import builtin
from kindling_trainer.align.base import Base
from kindling_trainer.align.formats import Message
from kindling_trainer.align.judge import Answer
from kindling_trainer.align.reward_model import JUDGED_AT_ONCE, ModelJudge, open_evaluation_judge
from kindling_trainer.evaluate import Continuation, sample
from kindling_trainer.judgement import Judgement
from kindling_trainer.objective import Evaluation, Interruptible
from kindling_trainer.parallel.apply import ParallelModel
from kindling_trainer.parallel.mesh import Ranks


@dataclass(frozen=True)
class Examiner:
    """Looks at the answers of an evaluation."""

    ranks: Ranks
    judge: ModelJudge | None
    """What compares them with the base's."""

    def __call__(self, answers: Sequence[Answer], interruptible: Interruptible[Any]) -> Evaluation:
        """Figures of all answers, none where there are none, and the answers to show; all processes call it.

        `toxicity` is the mean of the probabilities that the built-in classifier of `kindling_toxicity` gives.
        """
        if not answers:
            return Evaluation()
        toxicity = builtin().scores([answer.text for answer in answers]).tolist()
        said = [Continuation(each.prompt, each.text, score) for each, score in zip(answers, toxicity, strict=True)]
        judgement = None if self.judge is None else self._judgement(self.judge, answers, interruptible)
        return Evaluation(None, {"toxicity": fmean(toxicity)}, said, judgement)

    def _judgement(self, judge: ModelJudge, answers: Sequence[Answer], interruptible: Interruptible[Any]) -> Judgement:
        """Each process judges its share."""
        processes = self.ranks.layout.processes
        mine, scores = answers[self.ranks.rank :: processes], [0.0] * len(answers)
        found: list[float] = []
        for start in interruptible(range(0, -(-len(answers) // processes), JUDGED_AT_ONCE)):
            found += judge(mine[start : start + JUDGED_AT_ONCE])
        for rank, theirs in enumerate(self.ranks.from_each(found)):
            scores[rank::processes] = theirs
        return Judgement(key_of([[list(message) for message in each.asked] for each in answers]), scores)


def open_examiner(run: AlignmentRunFile, ranks: Ranks) -> Examiner:
    """What looks at the answers of a run.

    Raises:
        UserError: the judge is missing, or is no reward model.
    """
    return Examiner(ranks, open_evaluation_judge(run, ranks.device))


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
