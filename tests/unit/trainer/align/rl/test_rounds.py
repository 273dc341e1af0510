"""Rounds of answers divide into steps and micro-batches, the same for every layout."""

from __future__ import annotations

import pytest
import torch

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.parallelism import Layout
from kindling_trainer.align.rl.rounds import RoundPlan, Rounds, TokenAnswers, plan_rounds
from kindling_trainer.loop.objective import Interruptible
from kindling_trainer.parallel.mesh import Ranks

ALONE = Ranks(0, Layout(), torch.device("cpu"), mesh=None, control=None, background=None)


def plan(batch: dict[str, int], processes: int = 1) -> RoundPlan:
    """PPO over 24 answers, twice."""
    rewards = [{"exactAnswer": {}}]
    spec = {
        "base": {"uri": "base"},
        "method": {"ppo": {"epochs": 2, "rollout": {"prompts": 24}, "rewards": rewards}},
        "data": [{"uri": "prompts.jsonl"}],
        "training": {"steps": 1, "batch": batch},
        "resources": {"processesPerNode": processes},
    }
    return plan_rounds(AlignmentRunSpec.model_validate(spec, strict=False), 16)


def test_a_step_learns_from_a_whole_round_unless_told_otherwise() -> None:
    assert plan({}).steps == 2
    assert plan({"tokens": 8 * 16}).steps == 6
    assert sorted(plan({}).rows(5)) == list(range(24))


def test_each_pass_has_every_answer_once_in_an_order_of_its_own() -> None:
    cut = plan({"tokens": 8 * 16})
    first, second = ([row for step in steps for row in cut.rows(step)] for steps in ((0, 1, 2), (3, 4, 5)))
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_rows_of_a_step(processes: int) -> None:
    cut = plan({"tokens": 8 * 16, "microBatch": 2}, processes)
    found = [row for rank in range(processes) for some in cut.micro_batches(3, rank) for row in some]
    assert found == cut.rows(3)
    assert {len(some) for some in cut.micro_batches(3, 0)} == {2}


def test_a_round_that_does_not_divide_is_refused() -> None:
    with pytest.raises(SpecError, match=r"found 112 = 7 answers .* a divisor of the 24 answers of a round"):
        plan({"tokens": 7 * 16})


def test_a_round_is_drawn_at_its_first_step_alone() -> None:
    cut, drawn = plan({"tokens": 8 * 16}), list[int]()

    def draw(number: int, interruptible: Interruptible[int]) -> TokenAnswers:
        drawn.append(number)
        tokens = torch.full((24, 4), number)
        return TokenAnswers(tokens, tokens)

    rounds = Rounds(cut, ALONE, draw)
    numbers = []
    for step in range(12):
        batch = rounds.local_batch(step, iter)
        numbers.append({int(answers.tokens[0, 0]) for answers in batch.micro_batches})
        assert batch.normaliser == 8 * 4
    assert drawn == [0, 1]
    assert numbers == [{0}] * 6 + [{1}] * 6


def test_no_run_begins_within_a_round() -> None:
    with pytest.raises(AssertionError, match="at the beginning of a round"):
        Rounds(plan({"tokens": 8 * 16}), ALONE, lambda *_: pytest.fail("drawn")).local_batch(1, iter)
