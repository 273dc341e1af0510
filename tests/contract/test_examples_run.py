"""Every example runs, from its text to a continued prompt; training is cut to a few steps."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLAY = "ROMEO:\nIs the day so young?\n\nBENVOLIO:\nBut new struck nine.\n\n" * 40

pytestmark = pytest.mark.slow


def test_chat_answers_after_what_it_was_taught(tmp_path: Path) -> None:
    short = "training={steps: 2, batch: {tokens: 1Ki}, compile: never}"
    asked = "evaluation={every: 50, prompts: ['What does a cow say?'], promptTokens: 4}"
    both = ("small-talk", "friendly-talk")
    aligned = [f"AlignmentRun/{name}:spec.{change}" for name in both for change in (short, asked)]
    printed = run("03-chat", "small-world", "What does a cow say?", tmp_path, *aligned, compiled=False)
    assert "› What does a cow say?" in printed
    taught, friendly = (model_of(name, tmp_path, "AlignmentRun") for name in ("small-talk", "friendly-talk"))
    assert friendly["tokenizer"] == taught["tokenizer"], "the template of the base, whose tokens are there"
    command = [sys.executable, "-m", "kindling_cli.main", "inspect", "friendly-talk", "--store", str(tmp_path)]
    lineage = subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("Lineage")[2]
    order = ["model", "pairs.jsonl", "base", "dialogues.jsonl", "base", "dataset", "text.jsonl"]
    assert re.search(".*".join(map(re.escape, order)), lineage, re.DOTALL), lineage
    assert friendly["evaluation"]["validation_loss_before"] == pytest.approx(math.log(2), abs=1e-6)  # type: ignore[index]


@pytest.mark.parametrize(("example", "files"), [("03-chat", 3), ("04-arithmetic", 4), ("05-finetune", 2)])
def test_the_files_of_an_example_are_those_that_its_script_writes(example: str, files: int, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / example / "make_data.py"), str(tmp_path)], check=True)
    written = sorted(tmp_path.glob("*.jsonl"))
    assert len(written) == files
    for path in written:
        assert path.read_bytes() == (EXAMPLES / example / path.name).read_bytes()


def test_arithmetic_is_rewarded_for_what_is_right(tmp_path: Path) -> None:
    short = "spec.training={steps: 2, batch: {tokens: 1Ki}, compile: never}"
    rounds = "spec.method.grpo.rollout={prompts: 2, maxNewTokens: 4}"
    aligned = [f"AlignmentRun/adder-{name}:{short}" for name in ("chat", "rewarded")]
    aligned.append(f"AlignmentRun/adder-rewarded:{rounds}")
    run("04-arithmetic", "adder", "3 + 4 =", tmp_path, *aligned, compiled=False)
    rewarded = model_of("adder-rewarded", tmp_path, "AlignmentRun")
    assert rewarded["steps"] == 2
    assert {"reward", "reward_before"} <= set(rewarded["evaluation"])  # type: ignore[call-overload]


def run(example: str, name: str, prompt: str, store: Path, *settings: str, compiled: bool = True) -> str:
    """What `kindling run` prints on its way through the example, with three steps of training.

    Args:
        compiled: as the example has it; one of each architecture is enough, for it takes longer than all else.
    """
    command = [sys.executable, "-m", "kindling_cli.main", "run", str(EXAMPLES / example)]
    command += ["--store", str(store), "--prompt", prompt]
    never = () if compiled else (f"PretrainRun/{name}:spec.training.compile=never",)
    for setting in (f"PretrainRun/{name}:spec.training.steps=3", *never, *settings):
        command += ["--set", setting]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout + finished.stderr


def model_of(name: str, store: Path, kind: str = "PretrainRun") -> dict[str, object]:
    """The manifest of the model of that name."""
    published = json.loads((store / "names" / kind / "default" / f"{name}.json").read_text())
    manifest: dict[str, object] = json.loads(
        (Path(published["uri"].removeprefix("file://")) / "manifest.json").read_text()
    )
    return manifest


def test_the_quickstart_trains_on_pythons_library_and_answers_a_question(tmp_path: Path) -> None:
    short = "AlignmentRun/quickstart-chat:spec.training={steps: 2, batch: {tokens: 1Ki}, compile: never}"
    printed = run("01-quickstart", "quickstart", "What does os.walk do?", tmp_path, short)
    assert "› What does os.walk do?" in printed
    model = model_of("quickstart", tmp_path)
    assert model["steps"] == 3
    assert model["validationLoss"] < 8.0  # type: ignore[operator]  # ln 2048 = 7.6 before any step
    aligned = model_of("quickstart-chat", tmp_path, "AlignmentRun")
    assert aligned["base"] and aligned["vocabSize"] == 2048 + 4, "the chat template's tokens"
    figures = {f"{name}{when}" for name in ("validation_loss", "toxicity") for when in ("", "_before")}
    assert set(aligned["evaluation"]) == figures  # type: ignore[call-overload]


def test_tiny_shakespeare_trains_on_the_text_that_it_is_given(tmp_path: Path) -> None:
    text = tmp_path / "play.txt"
    text.write_text(PLAY)
    source = f"DatasetBuild/shakespeare:spec.sources[0].uri={text}"
    run("02-tinyshakespeare", "shakespeare", "ROMEO:", tmp_path / "store", source)
    assert model_of("shakespeare", tmp_path / "store")["vocabSize"] == len(set(PLAY))
