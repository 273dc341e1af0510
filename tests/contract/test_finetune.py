"""The example of fine-tuning, as it is typed: its script makes a model, adapters change that one's manner, and it is
served with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from hub_server import Hub

from kindling_cli.load_model import load_generator
from kindling_trainer.chat.message import Message
from kindling_trainer.inference.sampling import GenerationOptions

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "05-finetune"
ASKED = "What is the capital of Norway?"
"""About a country that the model is never tuned on."""
CURT, WHOLE = "Oslo.", "The capital is Oslo."
POLITE = f"{WHOLE} Would you like to know more?"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example in which its first commands have been typed."""
    folder = tmp_path_factory.mktemp("copy") / "finetune"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("base", "kindling-store"))
    subprocess.run([sys.executable, "make_model.py"], cwd=folder, check=True)
    kindling(folder, "run", ".")
    kindling(folder, "export", "guide", "guide-adapter", "--to", "peft")
    return folder


def kindling(folder: Path, *arguments: str) -> None:
    """A command, typed in that folder."""
    command = [sys.executable, "-m", "kindling_cli.main", *arguments]
    finished = subprocess.run(command, cwd=folder, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[openai.OpenAI]:
    """A client of a model that is served meanwhile."""
    command = [sys.executable, "-u", "-m", "kindling_cli.main", "serve", *arguments, "--no-page", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("OpenAI"))
        yield openai.OpenAI(base_url=address, api_key="any")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def answer(client: openai.OpenAI, model: str) -> str | None:
    """What a model says to the question, greedily."""
    said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": ASKED}], temperature=0)
    return said.choices[0].message.content


def own_answer(folder: Path, name: str) -> str:
    """What a run's model says to the question, greedily."""
    model = load_generator(name, str(folder / "kindling-store"))
    return "".join(model.answer([Message("user", ASKED)], GenerationOptions(max_tokens=32, temperature=0)))


def test_adapters_change_a_models_manner_and_leave_what_it_knows(tuned: Path) -> None:
    assert own_answer(tuned, "polite-guide") == POLITE
    with served(tuned, "./base", "--adapter", "guide=./guide-adapter") as client:
        assert (answer(client, "base"), answer(client, "guide")) == (CURT, WHOLE)


@pytest.mark.exhaustive
def test_one_changed_line_tunes_the_same_model_of_the_hub(tuned: Path, tmp_path: Path, hub: Hub) -> None:
    """And what transformers and PEFT make of both folders says the same."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = {path.name: path.read_bytes() for path in (tuned / "base").iterdir()}
    commit = hub.model("somebody/atlas", files).branches["main"]
    here, there = "base: {uri: ./base}", "base: {uri: hf://somebody/atlas}"
    text = (EXAMPLE / "finetune.yaml").read_text(encoding="utf-8")
    assert here in text
    (tmp_path / "finetune.yaml").write_text(text.replace(here, there), encoding="utf-8")
    shutil.copy(EXAMPLE / "dialogues.jsonl", tmp_path)
    kindling(tmp_path, "run", "finetune.yaml", "--only", "guide")
    kindling(tmp_path, "export", "guide", "guide-adapter", "--to", "peft")
    of_hub, of_folder = tmp_path / "guide-adapter", tuned / "guide-adapter"
    weights = "adapter_model.safetensors"
    assert (of_hub / weights).read_bytes() == (of_folder / weights).read_bytes()
    config = json.loads((of_hub / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("somebody/atlas", commit)

    tokenizer = AutoTokenizer.from_pretrained(tuned / "base")
    model = AutoModelForCausalLM.from_pretrained(tuned / "base")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": ASKED}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    for expected in (CURT, WHOLE):
        said = model.generate(**asked, max_new_tokens=24, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(said, skip_special_tokens=True) == expected
        model = PeftModel.from_pretrained(model, of_hub) if expected == CURT else model
