"""What an answer is worth by rule: the rewards of a specification, each a function from answers to numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from kindling_api.errors import DataError, explain
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.alignment_method import Reward
from kindling_trainer.align.rewards.function import Answer, RewardProcess

MATCHING_SECONDS = 10.0
"""For all answers of a call; a pattern can take time that grows exponentially with the answer."""

EXPECTED_FIELDS = ("answer", "solution")
"""The fields of a record that may hold the expected answer, the first that there is."""

RewardSource = Callable[[Sequence[Answer]], list[float]]
"""One number for each answer."""


class RewardSet:
    """The rewards of a specification, by name; their sum counts."""

    def __init__(
        self,
        rewards: Sequence[Reward],
        models: Sequence[RewardSource] = (),
        *,
        field: str = "rewards",
        allowed: Sequence[str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            field: where they stand in the specification.
            models: the scorers of reward models, in the order in which the specification names these models.
            allowed: the modules whose functions may be named; None for any.

        Raises:
            SpecError: a function's module is not allowed.
        """
        self.sources: dict[str, RewardSource] = {}
        kinds, left = Counter(reward.chosen[0] for reward in rewards), iter(models)
        for number, reward in enumerate(rewards):
            kind = reward.chosen[0]
            name = kind if kinds[kind] == 1 else f"{kind}{number}"
            self.sources[name] = _source(reward, f"{field}[{number}].{kind}", left, allowed)

    def __call__(self, answers: Sequence[Answer]) -> dict[str, list[float]]:
        """One number for each answer, by the reward's name.

        Raises:
            UserError: a reward cannot be computed; the message names the record.
        """
        return {name: source(answers) for name, source in self.sources.items()}

    def close(self) -> None:
        """End the processes of the functions."""
        for source in self.sources.values():
            if isinstance(source, RewardProcess):
                source.close()


def _source(reward: Reward, field: str, models: Iterator[RewardSource], allowed: Sequence[str] | None) -> RewardSource:
    if reward.exact_answer is not None:
        return partial(exact_answers, marker=reward.exact_answer.marker)
    if reward.format is not None:
        settings = {"pattern": reward.format.pattern}
        ours = None if allowed is None else [__name__]
        return RewardProcess(
            f"{__name__}:matches", field=field, timeout=MATCHING_SECONDS, settings=settings, allowed=ours
        )
    if reward.function is not None:
        function = reward.function
        return RewardProcess(function.import_path, field=field, timeout=seconds(function.timeout), allowed=allowed)
    return next(models)


_NUMBER = re.compile(r"\s*\$?([-+]?[0-9.,]*[0-9])", re.ASCII)
"""The number with which a text begins."""


def exact_answers(answers: Sequence[Answer], *, marker: str) -> list[float]:
    """1 where what follows the last `marker` is the expected answer, else 0.

    Numbers are compared as numbers, without thousands separators and dollar signs, and whatever is said after one does
    not count, as in GSM8K's own evaluation (Cobbe et al. 2021, arXiv:2110.14168).

    Raises:
        DataError: a record has no expected answer.
    """
    return [float(_is_right(answer.text, expected_answer(answer, marker), marker)) for answer in answers]


def expected_answer(answer: Answer, marker: str) -> str:
    """The right answer to the prompt: what stands in its record, behind the marker where there is one.

    Raises:
        DataError: the record has no field for it.
    """
    for field in EXPECTED_FIELDS:
        if (value := answer.record.get(field)) is not None:
            return _behind(marker, str(value)) or str(value)
    raise DataError(
        explain(
            answer.place,
            found=f"the fields {', '.join(answer.record)}",
            allowed=f"a field {' or '.join(EXPECTED_FIELDS)} with the expected answer, for the reward exactAnswer",
            remedy="add it, or use another reward",
        )
    )


def matches(
    prompts: Sequence[str], answers: Sequence[str], records: Sequence[Mapping[str, Any]], *, pattern: str
) -> list[float]:
    """1 where the whole answer matches, else 0; a user's function like any other."""
    compiled = re.compile(pattern)
    return [float(compiled.fullmatch(answer) is not None) for answer in answers]


def _is_right(text: str, expected: str, marker: str) -> bool:
    given, wanted = _behind(marker, text), _normal(expected)
    if given is None or _normal(given) == wanted:
        return given is not None
    number = _NUMBER.match(given)
    return number is not None and isinstance(wanted, Decimal) and _normal(number[1]) == wanted


def _behind(marker: str, text: str) -> str | None:
    """What follows the last marker; None where there is none. An empty marker stands before everything."""
    if not marker:
        return text
    _, found, rest = text.rpartition(marker)
    return rest if found else None


def _normal(text: str) -> str | Decimal:
    text = text.strip().removesuffix(".").strip()
    number = re.sub(r"[,$ ]", "", text)
    return Decimal(number) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", number, re.ASCII) else text
