"""Reward models as rewards and as judges of evaluations: who wins, what is refused, and what a policy learns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared_alignment import uninterrupted

from kindling_api.errors import SpecError, UserError
from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_trainer.align.answers import open_examiner
from kindling_trainer.align.method import prepare
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.align.rewards.model import RewardScorer, open_judge
from kindling_trainer.chat.message import Message
from kindling_trainer.loop.objective import Evaluation
from kindling_trainer.loop.win_rate import AnswerScores
from kindling_trainer.parallel.mesh import Ranks, join
from kindling_trainer.telemetry.metrics import Metrics
from kindling_trainer.telemetry.reporter import Reporter

AlignmentFactory = Callable[..., Path]
CPU = torch.device("cpu")
ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def answer(text: str) -> Answer:
    return Answer((Message("user", "a?"),), text, {}, "here")


def opened(path: Path) -> tuple[AlignmentRunFile, Ranks]:
    run = read_run_file(path)
    assert isinstance(run, AlignmentRunFile)
    return run, join(run.spec.layout(), run.spec.resources)


@pytest.mark.parametrize(
    ("scores", "before", "rate"),
    [
        ([2.0, 1.0], [1.0, 2.0], 0.5),
        ([2.0, 3.0], [1.0, 2.0], 1.0),
        ([-2.0, -3.0], [-1.0, -2.0], 0.0),
        ([1.0, 1.0, 2.0], [1.0, 1.0, 1.0], 2 / 3),
        ([1.0 + 1e-7, 1e-7], [1.0, 0.0], 0.5),
    ],
    ids=["one each", "all won", "none won", "ties are half", "rounding is a tie"],
)
def test_the_win_rate_is_the_share_that_is_better(scores: list[float], before: list[float], rate: float) -> None:
    assert AnswerScores(ONE, scores).win_rate(AnswerScores(ONE, before)) == pytest.approx(rate)


def test_answers_to_different_questions_are_not_compared() -> None:
    assert AnswerScores(ONE, [1.0]).win_rate(AnswerScores(OTHER, [2.0])) is None


@pytest.fixture
def judged_file(alignment_file: AlignmentFactory, base: Callable[..., str]) -> Callable[..., Path]:
    """Makes a run file whose evaluations are judged; by a reward model, unless `judge` says otherwise."""

    def make(judge: str = "", **fields: Any) -> Path:
        uri = judge or base(scored=True)
        return alignment_file(**fields | {"evaluation": {"judge": {"uri": uri}, **fields.get("evaluation", {})}})

    return make


def test_what_a_judge_says_depends_on_the_answer_alone(judged_file: AlignmentFactory) -> None:
    run, ranks = opened(judged_file())
    texts = ["b", "a long answer, beside which others are padded", ""]
    judge = open_judge(run, ranks.device)
    assert judge is not None
    alone = [judge([answer(text)])[0] for text in texts]
    assert len({round(score, 3) for score in alone}) == 3
    assert judge([]) == [], "a process may have no share"
    found = open_examiner(run, ranks)([answer(text) for text in texts], uninterrupted).answer_scores
    assert found is not None and found.scores == pytest.approx(alone, abs=1e-5)
    assert found.win_rate(AnswerScores(found.asked, alone)) == 0.5


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda base: base(), r"^spec\.evaluation\.judge: .* found a language model; allowed: a reward model"),
        (lambda base: "file:///nowhere", r"^spec\.evaluation\.judge: "),
    ],
    ids=["it speaks", "it is not there"],
)
def test_a_judge_that_is_no_reward_model_is_refused(
    judged_file: AlignmentFactory, base: Callable[..., str], judge: Callable[..., str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        prepare(*opened(judged_file(judge(base))))


def test_a_judge_without_a_chat_template_is_refused(judged_file: AlignmentFactory, base: Callable[..., str]) -> None:
    uri = base(scored=True)
    store = open_store(uri)
    config = json.loads(store.get("tokenizer_config.json"))
    store.put("tokenizer_config.json", json.dumps({**config, "chat_template": None}).encode())
    store.delete("chat_template.jinja")
    with pytest.raises(SpecError, match=r"^spec\.evaluation\.judge: found no chat template in "):
        prepare(*opened(judged_file(uri)))


def test_a_judge_of_held_out_prompts_needs_some(judged_file: AlignmentFactory) -> None:
    reward = {"rewards": [{"format": {"pattern": "a"}}], "rollout": {"prompts": 8, "maxNewTokens": 4}}
    with pytest.raises(SpecError, match=r"spec\.evaluation\.judge: found no prompt that is held out"):
        prepare(*opened(judged_file(method={"ppo": reward}, validation={"fraction": 0})))


def test_a_judge_whose_numbers_are_none_ends_the_run(judged_file: AlignmentFactory) -> None:
    run, ranks = opened(judged_file())
    judge = open_judge(run, ranks.device)
    assert isinstance(judge, RewardScorer)
    judge.model.head.weight.fill_(math.nan)
    with pytest.raises(UserError, match=r"spec\.evaluation\.judge: found nan for here, from the reward model"):
        judge([answer("b")])


def test_a_run_that_resumes_compares_with_what_was_said_before_it(tmp_path: Path) -> None:
    def told(finished: int, step: int, scores: list[float], asked: str = ONE) -> dict[str, float]:
        metrics = Metrics(open_store(tmp_path.as_uri()), finished)
        reporter = Reporter(
            ProgressWriter(None), metrics, heartbeat=None, steps=8, step_tokens=1, flops_per_token=1.0,
            peak_flops=None, started=0.0, aligning=True,
        )  # fmt: skip
        found = reporter.evaluated(step, Evaluation(answer_scores=AnswerScores(asked, scores)), final=False)
        reporter.close()
        return found.figures

    assert told(0, 0, [1.0, 2.0]) == {}
    assert told(4, 4, [1.5, 1.0]) == {"win_rate": 0.5}
    assert told(5, 5, [1.5, 2.5]) == {"win_rate": 1.0}
    assert told(6, 6, [1.5, 2.5], OTHER) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_learns_what_a_reward_model_has_learnt(
    alignment_file: AlignmentFactory, base: Callable[..., str], runs: Any
) -> None:
    """Two runs: a reward model learns that letters are better than digits; GRPO, on two processes, is judged by it."""
    uri = base()
    pairs = [{"prompt": "say", "chosen": "abcd"[n % 4] * 4, "rejected": "1234"[n // 4 % 4] * 4} for n in range(64)]
    training = {"steps": 20, "batch": {"tokens": 384, "microBatch": 4}}
    judge = alignment_file(name="judge", base_uri=uri, records=pairs, method={"reward": {}}, training=training)
    product = {"uri": runs.store(judge).uri}

    rollout = {"prompts": 8, "maxNewTokens": 4}
    method = {"grpo": {"groupSize": 4, "rollout": rollout, "klCoefficient": 0, "rewards": [{"model": product}]}}
    training = {"steps": 20, "batch": {"microBatch": 4}, "optimizer": {"adamW": {"learningRate": 1e-2}}}
    policy = alignment_file(
        name="policy", base_uri=uri, records=[{"prompt": "say"}] * 40, method=method, training=training,
        validation={"fraction": 0.2}, evaluation={"every": 10, "judge": product}, resources={"processesPerNode": 2},
    )  # fmt: skip
    runs.train_in_turn([judge, policy])
    rewards = [row["reward"] for row in runs.rows(policy) if "reward" in row]
    assert rewards[-1] > rewards[0] + 0.2
    manifest = read_manifest(runs.store(policy), ModelManifest)
    assert manifest is not None and manifest.evaluation is not None
    figures = manifest.evaluation
    assert figures["reward"] > figures["reward_before"] and figures["win_rate"] == 1.0
    assert {"toxicity", "toxicity_before"} <= set(figures) and "win_rate_before" not in figures
