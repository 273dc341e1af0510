"""`kindling plan`: figures by hand, no effects, no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.errors import UserError
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.training import PretrainingSpec
from kindling_cli.commands.plan import plan_files
from kindling_cli.plans import START_SECONDS, plan_pretraining
from kindling_cli.remarks import Machine, on_epochs, on_instability, on_machine, on_steps
from kindling_trainer.align.data.dry_run import stand_in

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
    assert model["seconds"] == START_SECONDS + model["flops"] / 1e9
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
    known = {"vocab_size": 257, "finished": None, "flops_per_second": 1e9, "machine": Machine(memory=2**40, gpus=0)}
    unknown = plan_pretraining("a", spec, dataset_tokens=None, **known)
    assert (unknown.steps, unknown.flops, unknown.seconds) == (None, None, None)
    assert plan_pretraining("a", spec, dataset_tokens=12_800, **known).steps == 20


def test_processes_share_the_work(
    write: Write, dataset: Text, pretrain: Text, plan: Callable[..., list[dict[str, Any]]]
) -> None:
    file = write(pretrain("model", "text"), dataset("text"))
    _, alone = plan(file)
    _, shared = plan(file, sets=("model:spec.resources.processesPerNode=2",))
    assert shared["seconds"] - START_SECONDS == pytest.approx((alone["seconds"] - START_SECONDS) / 2)
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
    assert shared["seconds"] - START_SECONDS == pytest.approx((alone["seconds"] - START_SECONDS) / 2 * 5 / 4)


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


def watching(instability: dict[str, Any] | None, steps: int) -> list[str]:
    schedule = {"cosine": {"warmupFraction": 0.05}}
    given = {"steps": steps, "schedule": schedule, "instability": instability}
    return on_instability(PretrainingSpec.model_validate(given, strict=False), steps)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (on_steps(20), []),
        (on_steps(1), ["1 optimizer step: too few to learn much; raise training.epochs or training.steps, or lower"]),
        (on_steps(7), ["7 optimizer steps: too few to learn much"]),
        (watching({"spike": 8}, 105), ["spikes are found from step 106 on, after the warm-up and instability.window"]),
        (watching({"spike": 8}, 106), []),
        (watching({"spike": 0}, 50), []),
        (watching(None, 50), []),
        (on_epochs(4_000_000, 1_000_000), []),
        (on_epochs(2_500_000_000, 1_700_000), ["about 1,471 epochs over 1.70 M tokens: the model will know them by"]),
    ],
)
def test_what_will_not_be_learnt_is_told(said: list[str], expected: list[str]) -> None:
    assert len(said) == len(expected)
    for sentence, beginning in zip(said, expected, strict=True):
        assert sentence.startswith(beginning)


GIB = 2**30


@pytest.mark.parametrize(
    ("resources", "memory_each", "machine", "said"),
    [
        ({}, 4 * GIB, Machine(8 * GIB, 0), None),
        ({"processesPerNode": 4}, 4 * GIB, Machine(8 * GIB, 0), "4 processes of 4.0 GiB, and this machine has 8.0 GiB"),
        ({"gpu": "nvidia.com/gpu"}, 4 * GIB, Machine(8 * GIB, 1), None),
        ({"gpu": "nvidia.com/gpu"}, 4 * GIB, Machine(8 * GIB, 0), "asks for 1 GPU, and this machine has none"),
        (
            {"gpu": "nvidia.com/gpu", "nodes": 2, "processesPerNode": 4},
            4 * GIB,
            Machine(8 * GIB, 2),
            "asks for 8 GPUs, and this machine has 2",
        ),
    ],
)
def test_what_the_machine_has_not_is_told(
    resources: dict[str, Any], memory_each: int, machine: Machine, said: str | None
) -> None:
    told = on_machine(TrainingResources.model_validate(resources), memory_each, machine)
    assert [sentence.partition(":")[0] for sentence in told] == ([said] if said else [])


@pytest.mark.parametrize(
    ("training", "steps", "sequences", "epochs", "remark"),
    [
        ({}, 25, 1, 25, None),
        ({"epochs": 2.0}, 2, 1, 2.0, "2 optimizer steps: too few to learn much"),
        ({"steps": 3000}, 3000, 32, 96_000.0, "about 96.0 K epochs over 16 tokens"),
        ({"epochs": 50.0, "batch": {"tokens": 32}}, 25, 2, 50.0, None),
    ],
    ids=["nothing said", "epochs", "steps", "epochs and a batch"],
)
def test_what_a_recipe_leaves_open_is_chosen_for_the_size_of_the_data_and_nothing_else_is(
    training: dict[str, Any],
    steps: int,
    sequences: int,
    epochs: float,
    remark: str | None,
    write: Write,
    dataset: Text,
    pretrain: Text,
    alignment: Text,
    plan: Callable[..., list[dict[str, Any]]],
) -> None:
    said = f"  training: {json.dumps(training)}\n" if training else ""
    document = alignment("talk", "model") + said
    *_, talk = plan(write(dataset("text"), pretrain("model", "text"), document))
    assert (talk["steps"], talk["batch"]["sequences"], talk["epochs"]) == (steps, sequences, epochs)
    assert [each.startswith(remark or "") for each in talk["remarks"]] == [True] * (remark is not None)


SOURCES = [
    ("", {"a.jsonl": '{"text": "a"}\n' * 4}, (1, 56, {"jsonl": 1})),
    ("", {"a.txt": "some text", "b.md": "more"}, (2, 13, {"text": 2})),
    ("*.md", {"a.txt": "some text", "b.md": "more"}, (1, 4, {"text": 1})),
]


@pytest.mark.parametrize(("glob", "files", "found"), SOURCES)
def test_the_files_of_a_build_are_counted(
    glob: str,
    files: dict[str, str],
    found: tuple[int, int, dict[str, int]],
    write: Write,
    dataset: Text,
    plan: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    put(tmp_path / "in", files)
    (data,) = plan(write(dataset("text").replace("text.txt", f"in/{glob}")))
    assert (data["files"], data["bytes"], data["formats"]) == found
    assert data["remarks"] == []


REFUSED = [
    ("nothing/*.jsonl", {}, "spec.sources[0].uri: found nothing at "),
    ("in/a.json", {"a.json": "[]"}, "spec.sources[0].uri: found 'a.json'; allowed: a suffix that tells the format"),
    ("in", {"a.txt": ""}, "spec.sources: found a.txt, with 0 bytes"),
    ("in", {"a.jsonl": '{"body": "a"}\n' * 9}, "spec.sources[0].textField: found none of the first 9 records with a"),
    ("in", {"a.csv": "id,body\n1,a\n"}, "spec.sources[0].textField: found 'text', which"),
]


@pytest.mark.parametrize(("uri", "files", "said"), REFUSED)
def test_a_build_that_would_be_refused_is_refused(
    uri: str,
    files: dict[str, str],
    said: str,
    write: Write,
    dataset: Text,
    plan: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    put(tmp_path / "in", files)
    file = write(dataset("text").replace("text.txt", uri))
    with pytest.raises(UserError) as error:
        plan(file)
    assert str(error.value).startswith(f"{file}:6: DatasetBuild/text: {said}")


CONFIG = {
    "model_type": "llama", "vocab_size": 257, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip
REWARDED = "{ppo: {rewardModel: {uri: judge}, rollout: {maxNewTokens: 2}}}"


@pytest.mark.parametrize(
    ("kind", "said", "instead", "scored"),
    [
        ("alignment", "{name: model}", "{uri: judge}", False),
        ("alignment", "{sft: {}}", REWARDED, True),
        ("alignment", "{sft: {}}", "{sft: {}}\n  evaluation: {prompts: [a], judge: {uri: judge}}", True),
        ("pretrain", "spec:", "spec:\n  initialize: {from: {uri: judge}}", False),
    ],
    ids=["base", "reward model", "judge", "where pretraining starts"],
)
def test_a_model_whose_tokenizer_is_larger_than_its_embedding_is_refused(
    kind: str, said: str, instead: str, scored: bool, write: Write, dataset: Text, pretrain: Text, alignment: Text,
    plan: Callable[..., list[dict[str, Any]]], tmp_path: Path,
) -> None:  # fmt: skip
    tokenizer = stand_in()
    tokenizer.add_tokens(["<end>", "<pad>"])
    labels = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1, "pad_token_id": 0}
    put(
        tmp_path / "judge",
        {"config.json": json.dumps(CONFIG | (labels if scored else {})), "tokenizer.json": tokenizer.to_str()},
    )
    documents = {"pretrain": pretrain("model", "text"), "alignment": alignment("talk", "model")}
    documents[kind] = documents[kind].replace(said, instead)
    with pytest.raises(UserError, match=r"judge/tokenizer.json: found '<pad>', which is token 257; allowed: .* 257"):
        plan(write(dataset("text"), *documents.values()))


def test_a_base_that_is_not_there_is_told_by_its_field(
    write: Write, alignment: Text, plan: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    file = write(alignment("talk", "model").replace("{name: model}", "{uri: ./made-later}"))
    with pytest.raises(UserError, match=r"spec.base.uri: found no model in \S*made-later; allowed: .* config.json"):
        plan(file)
    put(tmp_path / "made-later", {})
    with pytest.raises(UserError, match=r"AlignmentRun/talk: spec.base.uri: found no model in \S*made-later"):
        plan(file)


def test_what_a_build_leaves_out_is_told(
    write: Write, dataset: Text, plan: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    put(tmp_path / "in", {"a.jsonl": '{"text": "a"}\n' * 8 + "{}\n", "README": "", "b.doc": ""})
    (data,) = plan(write(dataset("text").replace("text.txt", "in")))
    left_out, bad = data["remarks"]
    assert left_out == "spec.sources[0]: 2 files of the folder left out for the suffix, as README"
    assert "1 of the first 9 records" in bad and "0/a.jsonl#9 (no string in 'text'; its fields: none)" in bad


def test_a_store_out_of_reach_does_not_keep_from_planning(
    write: Write, dataset: Text, plan: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    (data,) = plan(write(dataset("text").replace("text.txt", "s3://raw/*.txt")))
    assert data["remarks"][0].startswith("the sources were not looked at: ")


def put(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def test_nothing_is_written(
    write: Write, dataset: Text, plan: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    file = write(dataset("text"))
    before = sorted(tmp_path.iterdir())
    plan(file)
    assert sorted(tmp_path.iterdir()) == before


def test_the_screen_holds_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shakespeare = shutil.copytree(EXAMPLES / "02-tinyshakespeare", tmp_path / "shakespeare")
    (shakespeare / "input.txt").write_text("To be, or not to be.\n" * 1000)
    files = [EXAMPLES / "01-quickstart", shakespeare]
    plan_files(files, store=str(tmp_path), overrides=(), flops_per_second=1e11, as_json=False)
    said = capsys.readouterr().out
    assert "PretrainRun/shakespeare  to do" in said
    assert "768 tokens = 12 sequences × 1 accumulated × 1 ranks" in said
    assert "1 text; 20.5 KiB" in said
    assert "char, vocabulary 11" in said
    assert "1 read, 1 kept" in said and "about 18.9 K to train on" in said
    assert "Nothing was started or written." in said
    assert "AlignmentRun/quickstart-chat  to do" in said
    assert "sft, from run quickstart" in said and "builtin:python-docstrings" in said
    assert "12 epochs" in said


def test_the_planner_is_loaded_without_anything_heavy() -> None:
    heavy = ("torch", "ray", "boto3", "numpy", "pyarrow", "pandas", "scipy", "tokenizers", "jinja2", "matplotlib")
    code = f"import sys; import kindling_cli.commands.plan; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_planning_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kindling_cli.commands.plan import plan_files;"
        f"plan_files([Path({str(EXAMPLES)!r}) / '01-quickstart'], store={str(tmp_path)!r}, overrides=(),"
        " flops_per_second=None, as_json=False);"
        "print([name for name in ('torch', 'ray', 'boto3') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
