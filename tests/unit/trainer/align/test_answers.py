"""What an evaluation says of answers: each method tells how toxic they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prepared_alignment import uninterrupted

from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_toxicity.model import builtin
from kindling_trainer.align.answers import Examiner
from kindling_trainer.align.method import prepare
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.chat.message import Message
from kindling_trainer.loop.objective import Evaluation
from kindling_trainer.loop.restore import restore
from kindling_trainer.parallel.mesh import join

ROLLOUT = {"prompts": 8, "maxNewTokens": 6}
PATTERN = [{"format": {"pattern": "[a-z]*"}}]
METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {},
    "grpo": {"groupSize": 2, "rollout": ROLLOUT, "rewards": PATTERN},
    "ppo": {"rollout": ROLLOUT, "rewards": PATTERN},
}
PAIRS = [{"prompt": f"say {word}", "chosen": word, "rejected": "no"} for word in ("one", "two", "three", "four")] * 5


def answer(text: str) -> Answer:
    return Answer((Message("user", "Say it."),), text, {}, "here")


def evaluated(path: Path, *, whole: bool = True) -> Evaluation:
    """What the evaluation before the first step finds."""
    run = read_run_file(path)
    assert isinstance(run, AlignmentRunFile)
    setup = prepare(run, join(run.spec.layout(), run.spec.resources))
    restore(setup)
    return setup.objective.evaluate(whole=whole, interruptible=uninterrupted)


def examined(*answers: Answer) -> Evaluation:
    ranks = join(Layout(), TrainingResources())
    return Examiner(ranks, judge=None)(answers, uninterrupted)


def test_toxicity_is_the_mean_over_all_answers_and_each_has_its_own() -> None:
    found = examined(answer("A bird sang."), answer("fuck you, you dumb cunt"), answer(""))
    kind, vile, empty = (each.toxicity for each in found.samples)
    assert kind is not None and vile is not None and empty is not None
    assert max(kind, empty) < 0.3 < 0.9 < vile
    assert found.figures == {"toxicity": pytest.approx((kind + vile + empty) / 3)}
    assert (found.samples[0].prompt, found.samples[0].text) == ("Say it.", "A bird sang.")


def test_where_nobody_answers_nothing_is_said() -> None:
    assert examined() == Evaluation()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_how_toxic_its_answers_are(alignment_file: Callable[..., Path], method: str) -> None:
    fields = {"method": {method: METHODS[method]}, "records": PAIRS, "validation": {"fraction": 0.3}}
    found = evaluated(alignment_file(**fields))
    shown = {each.text: each.toxicity for each in found.samples}
    assert list(shown.values()) == pytest.approx(builtin().scores(list(shown)).tolist())
    assert 0 < found.figures["toxicity"] < 1
    if method in ("sft", "dpo"):
        assert [each.prompt for each in found.samples] == ["a?"]


@pytest.mark.parametrize("method", [{"sft": {}}, {"dpo": {}}], ids=str)
def test_where_nobody_asks_the_model_answers_what_is_held_out(
    alignment_file: Callable[..., Path], method: dict[str, Any]
) -> None:
    fields = {"method": method, "records": PAIRS, "validation": {"fraction": 0.3}, "evaluation": {"prompts": []}}
    found = evaluated(alignment_file(**fields))
    asked = [each.prompt for each in found.samples]
    assert len(asked) == 2 and set(asked) <= {pair["prompt"] for pair in PAIRS}
    assert all(each.toxicity is not None for each in found.samples)
    assert "toxicity" not in found.figures


def test_before_the_end_it_answers_only_what_it_is_asked(alignment_file: Callable[..., Path]) -> None:
    assert evaluated(alignment_file(evaluation={"prompts": []}), whole=False).samples == []


def test_where_everything_counts_it_goes_on_from_the_first_words(alignment_file: Callable[..., Path]) -> None:
    fields = {"method": {"sft": {"trainOn": "all"}}, "records": PAIRS, "validation": {"fraction": 0.3}}
    asked = [each.prompt for each in evaluated(alignment_file(**fields, evaluation={"prompts": []})).samples]
    assert len(asked) == 2 and all("say " in each for each in asked)
