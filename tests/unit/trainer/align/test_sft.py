"""Supervised fine-tuning, whole runs as processes: one curve on every layout, packed or not, killed or not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Progress, read_run_file
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_trainer.align.data.sources import with_contents
from kindling_trainer.inference.generate import load_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
AlignmentFactory = Callable[..., Path]
Rows = Callable[[Path], list[dict[str, Any]]]

REPORTED = re.compile(r"</div><td class=\"number\">([01]\.\d{3})</tr>")
"""The toxicity of an answer, in the report."""
TWO, FOUR, TENSOR = ({"processesPerNode": 2}, {"processesPerNode": 4}, {"tensor": 2})
EPOCH = {"epochs": 1, "context": 24}
"""66 sequences, the model's context being twice as long: four batches of 16, and what is left."""
UNPACKED = {"sft": {"packing": False}}
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "one": {},
        "fsdp2": {"resources": TWO},
        "tp2-unpacked": {"resources": TWO, "parallelism": TENSOR, "method": UNPACKED},
        "fsdp2-tp2": {"resources": FOUR, "parallelism": TENSOR},
    },
    "gpt2": {
        "one": {},
        "tp2-unpacked": {"resources": TWO, "parallelism": TENSOR, "method": UNPACKED},
        "cp2": {"resources": TWO, "parallelism": {"context": 2}},
    },
}


@pytest.mark.parametrize("architecture", ["llama", pytest.param("gpt2", marks=pytest.mark.exhaustive)])
def test_every_layout_gives_the_same_losses_packed_or_not(
    alignment_file: AlignmentFactory, base: Callable[..., str], runs: Any, architecture: str
) -> None:
    uri, curves, ends = base(architecture), {}, {}
    files = {
        name: alignment_file(name=name, base_uri=uri, training=EPOCH, evaluation={"every": 3}, **layout)
        for name, layout in LAYOUTS[architecture].items()
    }
    runs.train_in_turn(list(files.values()))
    for name, run in files.items():
        curves[name] = runs.losses(run)
        ends[name] = [row["validation_loss"] for row in runs.rows(run) if "validation_loss" in row]
    assert len(curves["one"]) == 5 and len(ends["one"]) == 3
    assert curves["one"][-1] < curves["one"][0] - 0.1
    for name in curves:
        assert curves[name] == pytest.approx(curves["one"], abs=1e-5), name
        assert ends[name] == pytest.approx(ends["one"], abs=1e-5), name


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been_and_its_model_talks(
    alignment_file: AlignmentFactory, base: Callable[..., str], runs: Any, rows: Rows
) -> None:
    uri = base()
    length = {"steps": 60, "batch": {"tokens": 384, "microBatch": 2}, "precision": "fp32", "compile": "never"}
    whole, killed = (alignment_file(name=name, base_uri=uri, training=length) for name in ("whole", "killed"))
    runs.finish(whole)
    _kill_after(runs, killed, 23)
    runs.finish(killed)
    losses, expected = ([row["loss"] for row in rows(run) if "loss" in row] for run in (killed, whole))
    assert losses == expected, "bit for bit"
    _check_model(killed, uri)


def _kill_after(runs: Any, run: Path, step: int) -> None:
    document = read_run_file(run)
    assert isinstance(document, AlignmentRunFile)
    curve = open_store(document.output).child(f"models/{with_contents(document).key.removeprefix('sha256:')[:16]}")
    process: subprocess.Popen[str] = runs.start(run)
    until = time.monotonic() + 120
    while not (curve.exists("metrics.jsonl") and f'"step": {step}' in curve.get("metrics.jsonl").decode()):
        assert time.monotonic() < until, "the step was not reached"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    time.sleep(1)  # its training process dies with it


def _check_model(run: Path, base: str) -> None:
    """What the run left: lineage, figures before and after, and a folder that others read as we do."""
    result = Progress.model_validate_json(run.with_suffix(".progress").read_bytes()).result
    assert result is not None and not hasattr(result, "documents")
    manifest = read_manifest(open_store(result.uri), ModelManifest)
    assert manifest is not None and manifest.inputs is not None
    assert [entry.path.rpartition("/")[2] for entry in manifest.inputs] == [f"{run.name.partition('.')[0]}.jsonl"]
    assert manifest.evaluation is not None
    assert manifest.evaluation["validation_loss"] < manifest.evaluation["validation_loss_before"] - 0.5
    reported = REPORTED.findall(open_store(result.uri).get("report.html").decode())  # the latest first
    harm = (manifest.evaluation["toxicity"], manifest.evaluation["toxicity_before"])
    assert tuple(f"{each:.3f}" for each in harm) == (reported[0], reported[-1])

    folder = Path(result.model.removeprefix("file://"))
    ours = load_model(folder)
    stop = ours.tokenizer.token_to_id("<|end|>")
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [stop]
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "b?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.chat is not None
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert (text, ids) == ("<|user|>b?<|end|><|assistant|>", tokenizer.encode(text))
    assert tokenizer.eos_token == "<|end|>" and theirs.config.vocab_size == 260
    tokens = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(ours.model(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)
