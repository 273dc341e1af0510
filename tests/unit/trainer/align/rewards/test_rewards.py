"""Rewards by rule are what they say; a function that fails, hangs, dies or lies ends in one clear sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kindling_api.errors import DataError, UserError
from kindling_api.v1alpha1.alignment_method import FormatReward, Reward
from kindling_trainer.align.rewards.function import Answer, RewardProcess
from kindling_trainer.align.rewards.rewards import RewardSet, exact_answers
from kindling_trainer.chat.message import Message


def answer(text: str, line: int = 1, **record: Any) -> Answer:
    return Answer((Message("user", "What is 2 + 3?"),), text, record, f"sums.jsonl:{line}")


@pytest.mark.parametrize(
    ("text", "expected", "marker", "reward"),
    [
        ("2 + 3 is 5.\n#### 5", "#### 5", "####", 1.0),
        ("#### 4, no: #### 5", "so\n#### 5", "####", 1.0),
        ("#### 1,234.0", "1234", "####", 1.0),
        ("#### $18", "#### 18.00", "####", 1.0),
        ("#### 18\n\nThat is it.", "18", "####", 1.0),
        ("#### 1,018 eggs.", "#### 1018", "####", 1.0),
        ("#### 18 eggs", "19", "####", 0.0),
        ("#### about 18", "18", "####", 0.0),
        ("#### seven eggs", "seven", "####", 0.0),
        ("####  seven. ", "seven", "####", 1.0),
        ("5", "5", "####", 0.0),  # the marker is part of what is asked for
        ("#### 6", "5", "####", 0.0),
        ("#### ", "5", "####", 0.0),
        ("#### nan", "5", "####", 0.0),
        ("5", "5", "", 1.0),
        ("it is 5", "5", "", 0.0),
    ],
)
def test_an_exact_answer_is_worth_1(text: str, expected: str, marker: str, reward: float) -> None:
    assert exact_answers([answer(text, answer=expected)], marker=marker) == [reward]


def test_a_record_without_the_expected_answer_is_named() -> None:
    with pytest.raises(DataError, match=r"sums\.jsonl:7: found the fields prompt, level; allowed: a field answer or"):
        exact_answers([answer("5", line=7, prompt="2 + 3", level=1)], marker="")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module with a function `reward` of this body; gives its import path."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def make(body: str) -> str:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "judged.py").write_text(f"import os, sys, time\n\ndef reward(prompts, answers, records):\n{lines}")
        return "judged:reward"

    return make


def rewards_of(*rewards: dict[str, Any]) -> RewardSet:
    return RewardSet([Reward.model_validate(reward) for reward in rewards])


ANSWERS = [answer("one", 1, weight=0.5), answer("two", 2, weight=2.0)]


def test_several_rewards_are_told_apart(module: Callable[[str], str]) -> None:
    function = module('print("noise")\nreturn [record["weight"] for record in records]')
    rewards = rewards_of(
        {"function": {"importPath": function}}, {"format": {"pattern": "t.*"}}, {"format": {"pattern": ".*e"}}
    )
    try:
        for _ in range(2):
            assert rewards(ANSWERS) == {"function": [0.5, 2.0], "format1": [0.0, 1.0], "format2": [1.0, 0.0]}
    finally:
        rewards.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            'return [1.0 if a == "one" else float("nan") for a in answers]',
            "found nan for sums.jsonl:2, answered 'two'; allowed: a finite number",
        ),
        (
            'return [1.0 if a == "one" else {}["key"] for a in answers]',
            "found KeyError: 'key', for sums.jsonl:2; allowed: one finite number for each answer",
        ),
        ("return [1.0]", "found ValueError: it returned 1 numbers for 2 answers, for 2 answers, to sums.jsonl:1"),
        ('return ["good" for a in answers]', "found ValueError: could not convert string to float: 'good', for sums"),
        ("return None", "found TypeError: 'NoneType' object is not iterable, for sums.jsonl:1"),
        ("os._exit(3)", "found the end of its process, with exit code 3, in 2 answers, to sums.jsonl:1"),
        ("sys.exit(3)", "found the end of its process, with exit code 3, in 2 answers, to sums.jsonl:1"),
        ("time.sleep(60)", "found no result within 1 s for 2 answers, to sums.jsonl:1 and others"),
    ],
)
@pytest.mark.slow
def test_a_function_that_goes_wrong_is_told_with_its_record(
    module: Callable[[str], str], body: str, message: str
) -> None:
    began = time.monotonic()
    judge = RewardProcess(module(body), field="spec.method.grpo.rewards[0].function", timeout=1)
    try:
        with pytest.raises(UserError) as caught:
            judge(ANSWERS)
        assert str(caught.value).startswith("spec.method.grpo.rewards[0].function: judged:reward: ")
        assert message in str(caught.value)
        assert time.monotonic() - began < 20
    finally:
        judge.close()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere:reward", "found ModuleNotFoundError: No module named 'nowhere'"),
        ("math:nothing", "found AttributeError: module 'math' has no attribute 'nothing'"),
    ],
)
def test_a_function_that_is_not_there_is_told(function: str, message: str) -> None:
    with pytest.raises(UserError, match="importable: in the image, the current folder or PYTHONPATH") as caught:
        RewardProcess(function, field="field", timeout=1)(ANSWERS)
    assert message in str(caught.value)


@pytest.mark.slow
def test_a_pattern_that_takes_for_ever_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kindling_trainer.align.rewards.rewards.MATCHING_SECONDS", 1.0)
    rewards = rewards_of({"format": {"pattern": "(a+)+b"}})
    try:
        with pytest.raises(UserError, match="no result within 1 s"):
            rewards([answer("a" * 64)])
    finally:
        rewards.close()


def test_a_reward_model_judges_in_its_place() -> None:
    def model(answers: Sequence[Answer]) -> list[float]:
        return [len(one.text) / 2 for one in answers]

    rewards = RewardSet([Reward.model_validate({"model": {"name": "judge"}})], models=[model])
    assert rewards(ANSWERS) == {"model": [1.5, 1.5]}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", r"found '\(' \(missing \), unterminated subpattern at position 0\)"),
        ("a{99999999999}", "the repetition number is too large"),
        ("(" * 500 + ")" * 500, "maximum recursion depth exceeded"),
    ],
    ids=["not closed", "too often", "too deep"],
)
def test_a_pattern_that_is_none_is_refused_with_the_specification(pattern: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FormatReward(pattern=pattern)


def test_a_pattern_that_takes_long_to_compile_costs_its_reader_nothing() -> None:
    began = time.process_time()
    FormatReward(pattern="(?i)" + "[\x00-\U0010ffff]" * 200)  # whoever compiles it needs seven seconds
    assert time.process_time() - began < 2
