"""GRPO and PPO: what a round holds, that all ways to compute it agree, and that runs learn, resume and fit layouts."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared_alignment import ready, uninterrupted

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_storage import open_store
from kindling_trainer.align.data.sources import with_contents
from kindling_trainer.align.rl.grpo import GroupRelativeOptimisation
from kindling_trainer.align.rl.ppo import ProximalPolicyOptimisation

AlignmentFactory = Callable[..., Path]
PROMPTS = [{"prompt": f"say {word}", "answer": word} for word in ("one", "two", "three", "four", "five", "six") * 4]
ROLLOUT = {"prompts": 8, "maxNewTokens": 6}
SHORT = {"context": 8, "batch": {"tokens": 8 * 32}}
EARLY_LETTERS = """
def reward(prompts, answers, records):
    return [sum(letter < "n" for letter in answer) / max(1, len(answer)) for answer in answers]
"""


def method(name: str, **settings: Any) -> dict[str, Any]:
    group = {"groupSize": 4} if name == "grpo" else {}
    return {name: {**group, "rollout": ROLLOUT, "rewards": [{"function": {"importPath": "early:reward"}}], **settings}}


@pytest.fixture
def policy_file(
    alignment_file: AlignmentFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Makes a run file that rewards letters from the first half of the alphabet."""
    (tmp_path / "early.py").write_text(EARLY_LETTERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda **fields: alignment_file(**{"records": PROMPTS, "validation": {"fraction": 0.1}, **fields})


def test_the_first_loss_of_grpo_is_what_the_advantages_make_it(policy_file: AlignmentFactory) -> None:
    """On policy every ratio is 1 and the divergence 0: sampling, the base's copy and training agree on each token."""
    objective = ready(policy_file(method=method("grpo"), training={"batch": {"microBatch": 8}})).objective
    assert isinstance(objective, GroupRelativeOptimisation)
    local_batch = objective.local_batch(0, uninterrupted)
    loss = figures = torch.zeros(2)
    expected = 0.0
    for batch in local_batch.micro_batches:
        part, found = objective.loss(batch)
        expected -= float((batch.advantages * (batch.targets >= 0).sum(dim=1)).sum())
        loss, figures = loss + part.detach(), figures + found["kl"]
    assert float(loss[0]) == pytest.approx(expected, abs=1e-3) and local_batch.normaliser == figures[1]
    assert float(figures[0]) == pytest.approx(0, abs=1e-6)


def test_by_dr_grpo_an_answer_counts_for_what_it_could_have_had_and_cut_ones_teach_nothing(
    policy_file: AlignmentFactory,
) -> None:
    settings = {"estimator": "drGrpo", "maskCut": True, "clipHigh": 0.28, "klCoefficient": 0}
    objective = ready(policy_file(method=method("grpo", **settings), training={"batch": {"microBatch": 8}})).objective
    assert isinstance(objective, GroupRelativeOptimisation)
    local_batch = objective.local_batch(0, uninterrupted)
    assert local_batch.normaliser == 32 * ROLLOUT["maxNewTokens"]  # type: ignore[operator]
    batches = list(local_batch.micro_batches)
    rewards, advantages, cut, counted = (
        torch.cat(parts)
        for parts in (
            [batch.facts["reward"] for batch in batches],
            [batch.advantages for batch in batches],
            [batch.facts["completions/clipped_ratio"] for batch in batches],
            [(batch.targets >= 0).sum(dim=1) for batch in batches],
        )
    )
    assert cut.sum() > 0 and (counted[cut == 1] == 0).all() and (counted[cut == 0] > 0).all()
    order = objective.plan.rows(0)
    groups, centred = torch.zeros(32), torch.zeros(32)
    groups[order], centred[order] = rewards, advantages
    torch.testing.assert_close(centred.view(8, 4), groups.view(8, 4) - groups.view(8, 4).mean(dim=1, keepdim=True))


def test_rewards_are_added_by_their_weights(policy_file: AlignmentFactory) -> None:
    rewards = [{"function": {"importPath": "early:reward"}}, {"format": {"pattern": ".*[a-m]"}}]
    file = policy_file(method=method("grpo", rewards=rewards, rewardWeights=[2, -0.5], klCoefficient=0))
    objective = ready(file).objective
    assert isinstance(objective, GroupRelativeOptimisation)
    facts = objective.rollouts.draw(0, uninterrupted).facts
    expected = 2 * facts["rewards/function"] - 0.5 * facts["rewards/format"]
    torch.testing.assert_close(facts["reward"], expected)


def test_a_round_is_drawn_from_the_seed_and_its_number(policy_file: AlignmentFactory) -> None:
    objective = ready(policy_file(method=method("grpo", klCoefficient=0))).objective
    assert isinstance(objective, GroupRelativeOptimisation)
    rollouts = objective.rollouts
    one, again, other = (rollouts.draw(number, uninterrupted) for number in (0, 0, 1))
    assert one.drawn == again.drawn != other.drawn
    assert len(one.drawn) == 32 and one.reference is None
    for row, drawn in enumerate(one.drawn):
        assert drawn.prompt == one.drawn[row - row % 4].prompt, "those to one prompt stand together"
        end = len(drawn.prompt) - 1 + len(drawn.answer)
        assert one.tokens[row, :end].tolist() == (drawn.prompt + drawn.answer)[:-1]
        assert one.targets[row][one.mask[row]].tolist() == drawn.answer
        assert drawn.ended == (drawn.answer[-1] in rollouts.stops) and len(drawn.answer) <= 6
    assert len({tuple(drawn.answer) for drawn in one.drawn}) > 28, "answers to one prompt differ"


def test_the_first_loss_of_ppo_comes_from_returns_alone(policy_file: AlignmentFactory) -> None:
    """With values of 0 the error is half the square of the returns, and whitened advantages add up to nothing."""
    settings = {"valueCoefficient": 1.0, "gae": {"lambda": 1.0}}
    objective = ready(policy_file(method=method("ppo", **settings), training={"batch": {"microBatch": 8}})).objective
    assert isinstance(objective, ProximalPolicyOptimisation)
    local_batch = objective.local_batch(0, uninterrupted)
    (batch,) = local_batch.micro_batches
    mask = batch.targets >= 0
    assert batch.values.abs().max() == 0
    torch.testing.assert_close(batch.returns, batch.facts["reward"][:, None] * mask, atol=1e-5, rtol=0)
    loss, _ = objective.loss(batch)
    expected = 0.5 * (batch.facts["reward"] ** 2 * mask.sum(dim=1)).sum()
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"method": method("grpo", rollout={"maxNewTokens": 48})}, SpecError, "less than the context, 48"),
        (
            {"method": method("grpo", rewards=[{"exactAnswer": {}}]), "records": [{"prompt": "say one"}] * 4},
            DataError,
            r"tiny\.jsonl:1: found the fields prompt; allowed: a field answer or solution",
        ),
        (
            {"method": method("grpo", rollout={"maxNewTokens": 40})},
            DataError,
            "do not fit into the context",
        ),
        ({"method": method("grpo", rollout={"maxNewTokens": 8}), "training": SHORT}, SpecError, "context, 8"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_the_first_step(
    policy_file: AlignmentFactory, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ready(policy_file(**fields))


@pytest.mark.parametrize(
    ("name", "settings", "epochs", "steps"),
    [
        ("grpo", {}, 1.0, 12),
        ("grpo", {}, 0.5, 8),
        ("ppo", {"epochs": 2}, 1.0, 6),
        ("ppo", {"epochs": 2}, 1.5, 10),
    ],
)
def test_epochs_are_whole_rounds_in_which_every_prompt_is_answered_as_often(
    policy_file: AlignmentFactory, name: str, settings: dict[str, Any], epochs: float, steps: int
) -> None:
    """22 prompts, 8 a round, whose answers are learnt from 8 at a time."""
    setup = ready(policy_file(method=method(name, **settings), training={"epochs": epochs}))
    assert (setup.steps, setup.round_steps) == (steps, 4 if name == "grpo" else 2)


FOUR = {"resources": {"processesPerNode": 4}, "parallelism": {"tensor": 2}}
TWO = {"resources": {"processesPerNode": 2}, "parallelism": {"tensor": 2}}
ADAPTER = {"adapter": {"lora": {}}}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("algorithm", "layout"),
    [
        pytest.param("grpo", FOUR, id="grpo-fsdp2-tp2"),
        pytest.param("ppo", TWO, id="ppo-tp2"),
        pytest.param("ppo", TWO | ADAPTER, id="ppo-tp2-adapter", marks=pytest.mark.exhaustive),
    ],
)
def test_every_layout_learns_the_same(
    policy_file: AlignmentFactory, base: Callable[..., str], runs: Any, algorithm: str, layout: Any
) -> None:
    recipe = {"base_uri": base(), "method": method(algorithm), "training": {"steps": 4, "batch": {"microBatch": 4}}}
    adapter = {name: value for name, value in layout.items() if name == "adapter"}
    files = [policy_file(name="one", **recipe | adapter), policy_file(name="spread", **recipe, **layout)]
    runs.train_in_turn(files)
    curves = []
    for run in files:
        found = [row for row in runs.rows(run) if "loss" in row]
        curves.append([row[name] for row in found for name in ("loss", "reward", "kl", "grad_norm")])
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_was_killed_in_a_round_begins_the_round_anew(
    policy_file: AlignmentFactory, base: Callable[..., str], runs: Any, rows: Any
) -> None:
    """PPO with an adapted penalty, four steps a round: weights, moments and the penalty itself are as they were."""
    uri, adapted = base(), method("ppo", klTarget=0.01)
    training = {"steps": 40, "batch": {"tokens": 4 * 48, "microBatch": 4}}
    fields = {"base_uri": uri, "method": adapted, "training": training, "checkpoint": {"every": 3}}
    whole, killed = (policy_file(name=name, **fields) for name in ("whole", "killed"))
    runs.finish(whole)
    kill_after(runs, killed, 18)
    runs.finish(killed)
    names = ("loss", "reward", "objective/kl_coef")
    curves = [[row[name] for row in rows(run) if "loss" in row for name in names] for run in (whole, killed)]
    assert curves[0] == curves[1], "bit for bit"
    assert len(curves[0]) == 120 and curves[0][2] < curves[0][-1]


def kill_after(runs: Any, run: Path, step: int) -> None:
    document = read_run_file(run)
    assert isinstance(document, AlignmentRunFile)
    curve = open_store(document.output).child(f"models/{with_contents(document).key.removeprefix('sha256:')[:16]}")
    process: subprocess.Popen[str] = runs.start(run)
    until = time.monotonic() + 120
    while not (curve.exists("metrics.jsonl") and f'"step": {step}' in curve.get("metrics.jsonl").decode()):
        assert process.poll() is None and time.monotonic() < until, "the step was not reached"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    time.sleep(1)  # its training process dies with it
