"""Rounds of answers: the policy answers prompts, the answers are scored, and all processes get all of it.

Every process holds a whole copy of the policy, brought up to date at the beginning of each round, and draws its part
of the answers with the batched generation that serving uses. That is right on every layout, and as fast as the layout
has processes; it asks for memory for the whole weights on each process, and once more for the base model where a
penalty keeps the policy near it. A policy that trains adapters is the base without them, and needs no second model.
What is drawn depends on the seed, the round and the answer's number alone, so that a run that resumes at a round's
beginning draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import mul
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.tensor import DTensor

from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.alignment_method import Rollout
from kindling_trainer.align.answers import Examiner
from kindling_trainer.align.data.tokenize import TokenPrompt
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.data.order import grouped, shuffled
from kindling_trainer.inference.batching import continue_all
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.loop.evaluate import evaluating
from kindling_trainer.loop.objective import Evaluation, Interruptible
from kindling_trainer.loss import IGNORED, token_log_probabilities
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import plain_name
from kindling_trainer.models.lora import adapters_off, add_adapters
from kindling_trainer.parallel.apply import ParallelModel

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DRAWN_AT_ONCE = 128
"""Answers that one process draws side by side."""
SCORED_AT_ONCE = 16
"""Answers of which the base model's log-probabilities are computed at once."""
SAMPLES = 4
"""Answers to show at each evaluation."""
WIDTH_STEP = 8
"""Widths of rounds are multiples of it, so that few of them differ."""

Number = TypeVar("Number", int, float)
Batch = TypeVar("Batch", bound="DataclassInstance")

RewardFunction = Callable[[Sequence[Answer]], dict[str, list[float]]]
"""One number for each answer, by the reward's name."""


class Drawn(NamedTuple):
    """One answer, as it goes from the process that drew it to all others."""

    prompt: list[int]
    answer: list[int]
    """With its end token, where it has one."""
    text: str
    ended: bool
    """Whether it came to its end before it was cut off."""
    rewards: dict[str, float]
    reference: list[float] | None
    """The answer's log-probabilities under the base model."""


@dataclass(frozen=True)
class Round:
    """All answers of a round, the same on all processes; those to one prompt stand together."""

    drawn: list[Drawn]
    multiple: int
    """The width is a multiple of it; see `WIDTH_STEP`."""
    context: int
    weights: Sequence[float] | None = None
    """By what each reward is multiplied; None: 1."""

    @cached_property
    def tokens(self) -> Tensor:
        """Prompts, answers but their last tokens, padding: int64 [N, T]."""
        return self._rows([one.prompt + one.answer[:-1] for one in self.drawn], 0, torch.int64)

    @cached_property
    def targets(self) -> Tensor:
        """The answers' tokens where they are predicted, IGNORED elsewhere: int64 [N, T]."""
        rows = [[IGNORED] * (len(one.prompt) - 1) + one.answer for one in self.drawn]
        return self._rows(rows, IGNORED, torch.int64)

    @cached_property
    def mask(self) -> Tensor:
        """Where an answer's token is predicted: [N, T]."""
        return self.targets != IGNORED

    @cached_property
    def reference(self) -> Tensor | None:
        """The log-probabilities of the targets under the base model, fp32 [N, T]."""
        rows = [[0.0] * (len(one.prompt) - 1) + one.reference for one in self.drawn if one.reference is not None]
        return self._rows(rows, 0.0, torch.float32) if rows else None

    @cached_property
    def scores(self) -> Tensor:
        """The sum of each answer's rewards, by their weights, fp32 [N]."""
        weights = self.weights or [1.0] * len(self.drawn[0].rewards)
        return torch.tensor([sum(map(mul, weights, one.rewards.values())) for one in self.drawn], dtype=torch.float32)

    @cached_property
    def facts(self) -> dict[str, Tensor]:
        """What the curves show of each answer, under TRL's names, fp32 [N]."""
        rewards = {name: torch.tensor([one.rewards[name] for one in self.drawn]) for name in self.drawn[0].rewards}
        return {
            "reward": self.scores,
            **{f"rewards/{name}": values for name, values in rewards.items()},
            "completions/mean_length": self.mask.sum(dim=1).float(),
            "completions/clipped_ratio": torch.tensor([float(not one.ended) for one in self.drawn]),
        }

    def _rows(self, rows: list[list[Number]], padding: Number, dtype: torch.dtype) -> Tensor:
        longest = max(len(one.prompt) + len(one.answer) - 1 for one in self.drawn)
        width = min(self.context, -(-longest // self.multiple) * self.multiple)
        return torch.tensor([row + [padding] * (width - len(row)) for row in rows], dtype=dtype)


@dataclass(frozen=True)
class Rollouts:
    """What draws answers."""

    policy: ParallelModel
    """The model that learns, spread over the processes."""
    whole: Decoder
    """A whole copy of the policy, on each process."""
    base: Decoder | None
    """The model it started as, whole, where a penalty needs it; where adapters are trained, the copy above, in which
    they are switched off for that."""
    tokenizer: Tokenizer
    vocab_size: int
    stops: Collection[int]
    """The tokens that end an answer."""
    questions: list[TokenPrompt]
    rewards: RewardFunction
    settings: Rollout
    group: int
    """Answers to each prompt."""
    seed: int
    examiner: Examiner
    """What looks at the answers of evaluations."""
    weights: Sequence[float] | None = None
    """By what each reward is multiplied; None: 1."""

    def draw(self, number: int, interruptible: Interruptible[int]) -> Round:
        """The round of this number, from 0; all processes call it.

        Raises:
            UserError: a reward is no number, or a reward function failed.
        """
        first = number * self.settings.prompts
        places = shuffled(range(first, first + self.settings.prompts), len(self.questions), self.seed)
        asked = [self.questions[place] for place in places for _ in range(self.group)]
        options = GenerationOptions(max_tokens=self.settings.max_new_tokens, temperature=self.settings.temperature)
        seeds = [_seed(self.seed, number, row) for row in range(len(asked))]
        return self._draw(asked, [replace(options, seed=seed) for seed in seeds], interruptible)

    def answer_greedily(self, questions: Sequence[TokenPrompt], interruptible: Interruptible[int]) -> Round:
        """The likeliest answers to `questions`; all processes call it."""
        greedy = GenerationOptions(max_tokens=self.settings.max_new_tokens, temperature=0.0)
        return self._draw(questions, [greedy] * len(questions), interruptible)

    def measure(self, drawn: Round, at_once: int, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Figures of a round's tokens under the policy as it is now, computed on the path of training, each process
        its part: fp32 [K, N, T]. All processes call it.

        Args:
            at_once: answers; each process's part of the N is a multiple of it.
            compute: tokens and targets [B, T] → [K, B, T].
        """
        ranks = self.policy.ranks
        share = len(drawn.drawn) // ranks.layout.batch_ranks
        parts: list[Tensor] = []
        with evaluating(self.policy.model):
            for start in range(share * ranks.batch_rank, share * (ranks.batch_rank + 1), at_once):
                rows = slice(start, start + at_once)
                parts.append(compute(drawn.tokens[rows].to(ranks.device), drawn.targets[rows].to(ranks.device)))
        mine = torch.cat(parts, dim=1)
        found = mine.new_zeros(len(mine), *drawn.targets.shape)
        found[:, share * ranks.batch_rank : share * (ranks.batch_rank + 1)] = mine
        return ranks.sum_over_batch(found).cpu()

    def _draw(
        self, asked: Sequence[TokenPrompt], options: Sequence[GenerationOptions], interruptible: Interruptible[int]
    ) -> Round:
        ranks = self.policy.ranks
        copy_weights(self.policy.model, self.whole)
        mine = list(zip(asked, options, strict=True))[ranks.rank :: ranks.layout.processes]
        most = -(-len(asked) // ranks.layout.processes)  # as many parts on each process
        drawn: list[Drawn] = []
        for start in interruptible(range(0, most, DRAWN_AT_ONCE)):
            drawn += self._continue(mine[start : start + DRAWN_AT_ONCE])
        drawn = self._rewarded(drawn, [question for question, _ in mine])
        every: list[Drawn | None] = [None] * len(asked)
        for rank, theirs in enumerate(ranks.from_each(drawn)):
            every[rank :: ranks.layout.processes] = theirs
        width = WIDTH_STEP * ranks.layout.length_multiple
        return Round([one for one in every if one is not None], width, self.whole.shape.context, self.weights)

    def _continue(self, asked: Sequence[tuple[TokenPrompt, GenerationOptions]]) -> list[Drawn]:
        """Some answers, without rewards yet."""
        context = self.whole.shape.context
        prompts = [
            (question.tokens, replace(options, max_tokens=min(options.max_tokens, context - len(question.tokens))))
            for question, options in asked
        ]
        with evaluating(self.whole):
            answers = continue_all(
                self.whole, prompts, stops=self.stops, vocab_size=self.vocab_size, most=DRAWN_AT_ONCE
            )
            drawn = []
            for (question, _), answer in zip(asked, answers, strict=True):
                said = self.tokenizer.decode(answer.tokens[:-1] if answer.ended else answer.tokens)
                drawn.append(Drawn(question.tokens, answer.tokens, said, answer.ended, {}, None))
            return drawn if self.base is None else self._referred(self.base, drawn)

    def _rewarded(self, drawn: list[Drawn], asked: Sequence[TokenPrompt]) -> list[Drawn]:
        answers = [_answer_to(question, one) for question, one in zip(asked, drawn, strict=True)]
        rewards = self.rewards(answers) if answers else {}
        return [
            one._replace(rewards={name: values[row] for name, values in rewards.items()})
            for row, one in enumerate(drawn)
        ]

    def _referred(self, base: Decoder, drawn: list[Drawn]) -> list[Drawn]:
        """Answers with their log-probabilities under the base model, in the precision that training has."""
        ranks, precision = self.policy.ranks, self.policy.precision
        referred: list[Drawn] = []
        for some in grouped(drawn, SCORED_AT_ONCE):
            these = Round(some, multiple=1, context=base.shape.context)
            cast = torch.autocast(ranks.device.type, precision, enabled=precision != torch.float32)
            with cast, adapters_off(base):
                logits = base(these.tokens.to(ranks.device))[..., : self.vocab_size]
            found = token_log_probabilities(logits / self.settings.temperature, these.targets.to(ranks.device)).cpu()
            for one, row, mask in zip(some, found, these.mask, strict=True):
                referred.append(one._replace(reference=row[mask].tolist()))
        return referred


def log_probabilities(model: ParallelModel, tokens: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """`model.log_probabilities` of what draws at `temperature`: fp32 [B, T]."""
    return token_log_probabilities(model.logits(tokens) / temperature, targets, model.ranks.tensor_group)


def evaluate_policy(
    rollouts: Rollouts, questions: Sequence[TokenPrompt], interruptible: Interruptible[int]
) -> Evaluation:
    """What the likeliest answers to `questions` are worth, with some of them; all processes call it."""
    if not questions:
        return Evaluation()
    found = rollouts.answer_greedily(questions, interruptible)
    answers = [_answer_to(question, one) for question, one in zip(questions, found.drawn, strict=True)]
    said, rewarded = rollouts.examiner(answers, interruptible), found.facts.items()
    figures = {name: float(fact.mean()) for name, fact in rewarded}
    return replace(said, figures=figures | said.figures, samples=said.samples[:SAMPLES])


def whole_copy(policy: ParallelModel, lora: LoRA | None) -> Decoder:
    """Room for the policy's whole weights on this process; the policy itself where it is whole already."""
    if policy.ranks.mesh is None:
        return policy.model
    model = build_model(policy.model.shape, policy.model.embedding.num_embeddings)
    if lora is not None:
        add_adapters(model, lora)
    model = model.to(policy.ranks.device)
    return model.requires_grad_(False)


def copy_weights(source: Decoder, target: Decoder) -> None:
    """Give `target`, which is whole, the weights of `source`, however that is spread; all processes call it."""
    if source is target:
        return
    parameters = dict(target.named_parameters())
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if plain_name(name) in parameters:  # a value head draws nothing
                whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
                parameters[plain_name(name)].copy_(whole)


def _answer_to(question: TokenPrompt, drawn: Drawn) -> Answer:
    return Answer(question.prompt.messages, drawn.text, question.prompt.record, question.place)


def _seed(seed: int, number: int, row: int) -> int:
    digest = hashlib.sha256(f"answer:{seed}:{number}:{row}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
