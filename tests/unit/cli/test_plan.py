"""`kindling plan`: figures by hand, no effects, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_cli.commands.plan import plan_files
from kindling_cli.plans import plan_pretraining

EXAMPLES = Path(__file__).parents[3] / "examples"
Text = Callable[..., str]
Write = Callable[..., Path]


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    def plan(*files: Path, sets: tuple[str, ...] = (), flops: float | None = 1e9) -> list[dict[str, Any]]:
        plan_files(files, store=str(tmp_path / "store"), overrides=sets, flops_per_second=flops, as_json=True)
        plans: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return plans

    return plan


def test_documents_are_planned_in_the_order_in_which_they_would_run(
    write: Write, dataset: Text, pretrain: Text, plan: Callable[..., list[dict[str, Any]]]
) -> None:
    data, model = plan(write(pretrain("model", "text"), dataset("text")))
    assert (data["title"], data["tokenizer"], data["vocabSize"]) == ("DatasetBuild/text", "byte", 257)
    assert (model["title"], model["vocabSize"], model["vocabAssumed"]) == ("PretrainRun/model", 257, False)
    assert "finished" not in data | model


def test_a_small_model_is_planned_as_one_would_by_hand(
    write: Write, dataset: Text, pretrain: Text, plan: Callable[..., list[dict[str, Any]]]
) -> None:
    _, model = plan(write(pretrain("model", "text"), dataset("text")))
    layer = 4 * 16 * 16 + 3 * 16 * 64 + 2 * 16  # attention, SwiGLU (8/3 × 16 rounded up to 64), two norms
    assert model["parameters"] == 2 * 257 * 16 + layer + 16
    assert (model["steps"], model["tokens"]) == (10, 640)
    per_token = 6 * (257 * 16 + layer + 16) + 12 * 1 * 2 * 8 * 16
    assert model["flops"] == 640 * per_token
    assert model["seconds"] == model["flops"] / 1e9
    assert model["memory"]["optimizer"] == 8 * model["parameters"]
    assert model["checkpointBytes"] == 12 * model["parameters"]


def test_a_length_in_epochs_is_known_only_when_the_dataset_is() -> None:
    spec = PretrainRunSpec.model_validate(
        {
            "dataset": {"name": "text"},
            "model": {"preset": "llama-tiny"},
            "training": {"epochs": 2.0, "batch": {"tokens": 1280}},
        }
    )
    known = {"vocab_size": 257, "finished": None, "flops_per_second": 1e9}
    unknown = plan_pretraining("a", spec, dataset_tokens=None, **known)
    assert (unknown.steps, unknown.flops, unknown.seconds) == (None, None, None)
    assert plan_pretraining("a", spec, dataset_tokens=12_800, **known).steps == 20


def test_processes_share_the_work(
    write: Write, dataset: Text, pretrain: Text, plan: Callable[..., list[dict[str, Any]]]
) -> None:
    file = write(pretrain("model", "text"), dataset("text"))
    _, alone = plan(file)
    _, shared = plan(file, sets=("model:spec.resources.processesPerNode=2",))
    assert shared["seconds"] == alone["seconds"] / 2
    assert shared["memory"]["optimizer"] == alone["memory"]["optimizer"] / 2
    assert shared["batch"] == {"context": 16, "sequences": 4, "microBatch": 2, "accumulation": 1}


def test_the_stages_of_a_pipeline_wait_for_one_another(
    write: Write, dataset: Text, pretrain: Text, plan: Callable[..., list[dict[str, Any]]]
) -> None:
    file = write(pretrain("model", "text"), dataset("text"))
    sets = ("spec.model.layers=2", "spec.training.batch.microBatch=1")
    _, alone = plan(file, sets=tuple(f"model:{each}" for each in sets))
    staged = (*sets, "spec.parallelism.pipeline=2", "spec.resources.processesPerNode=2")
    _, shared = plan(file, sets=tuple(f"model:{each}" for each in staged))
    assert (alone["bubble"], shared["bubble"]) == (0, 1 / 5), "four micro-batches"
    assert shared["seconds"] == pytest.approx(alone["seconds"] / 2 * 5 / 4)


ALIGNED = """
apiVersion: kindling.dev/v1alpha1
kind: AlignmentRun
metadata: {{name: {name}}}
spec:
  base: {{name: model}}
  method: {method}
  data: [{{uri: {data}}}]
  evaluation: {evaluation}
"""


def test_models_that_each_process_holds_whole_are_counted(
    write: Write, dataset: Text, pretrain: Text, plan: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps({"prompt": "a?", "chosen": "a", "rejected": "b"}) + "\n")
    rewards = "{grpo: {rewards: [{model: {name: judge}}], rollout: {prompts: 8, maxNewTokens: 4}}}"
    judge = ALIGNED.format(name="judge", method="{reward: {}}", data=data, evaluation="{}")
    policy = ALIGNED.format(name="policy", method=rewards, data=data, evaluation="{judge: {name: judge}}")
    _, model, judging, learning = plan(write(pretrain("model", "text"), dataset("text"), judge, policy))
    whole = 4 * model["parameters"]
    one_judge = whole - 4 * 257 * 16 + 4 * 16  # one number in the place of a head
    assert judging["memory"]["wholeModels"] == 0
    assert learning["memory"]["wholeModels"] == whole + 2 * one_judge, "the base, a reward, a judge of evaluations"
    assert (learning["judge"], "judge" in judging) == ("run judge", False)


def test_nothing_is_written(
    write: Write, dataset: Text, plan: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    file = write(dataset("text"))
    plan(file)
    assert list(tmp_path.iterdir()) == [file]


def test_the_screen_holds_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [EXAMPLES / "01-quickstart", EXAMPLES / "02-tinyshakespeare"]
    plan_files(files, store=str(tmp_path), overrides=(), flops_per_second=1e11, as_json=False)
    said = capsys.readouterr().out
    assert "PretrainRun/shakespeare  to do" in said
    assert "768 tokens = 12 sequences × 1 accumulated × 1 ranks" in said
    assert "char, vocabulary known once it is built" in said
    assert "vocabulary 256 (assumed: the build will tell)" in said
    assert "Nothing was started or written." in said
    assert "AlignmentRun/quickstart-chat  to do" in said
    assert "sft, from run quickstart" in said and "builtin:python-docstrings" in said
    assert "known once the data is read" in said


def test_planning_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kindling_cli.commands.plan import plan_files;"
        f"plan_files([Path({str(EXAMPLES)!r}) / '01-quickstart'], store={str(tmp_path)!r}, overrides=(),"
        " flops_per_second=None, as_json=False);"
        "print([name for name in ('torch', 'ray', 'boto3') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
