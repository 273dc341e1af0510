"""Models of every family, as transformers wrote them: computed, continued and handed back as there."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from random_families import CASES, VOCABULARY, Case
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.sizes import parameters
from kindling_storage import ObjectStore, open_store
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.checkpoint.huggingface import cast, export, read_model, read_shape, read_tokenizer
from kindling_trainer.checkpoint.huggingface.config import from_config, to_config
from kindling_trainer.checkpoint.huggingface.folder import WHOLE
from kindling_trainer.inference.batching import continue_all, continue_tokens
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize

BENCH = Path(__file__).parents[4] / "bench" / "families" / "bench.py"
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
GREEDY = GenerationOptions(max_tokens=32, temperature=0)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "model").as_uri())


def write_back(store: ObjectStore, back: ObjectStore, **options: Any) -> None:
    """Import and export, without training."""
    model = read_model(store)
    tokenizer, special = read_tokenizer(store)
    weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    export(
        back, weights, model.shape, vocab_size=VOCABULARY, tokenizer=tokenizer.to_str().encode(),
        end_of_document=special.eos, special=special, **options,
    )  # fmt: skip


@every_case
def test_logits_and_greedy_texts_are_those_of_transformers(case: Case, store: ObjectStore, tmp_path: Path) -> None:
    case.save(tmp_path / "model")
    ours = read_model(store)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    tokens = torch.randint(0, VOCABULARY, (2, 64), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)
    prompts = [tokens[0, :10].tolist(), tokens[1, :3].tolist()]
    expected = [
        theirs.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=32, eos_token_id=None, pad_token_id=0
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]  # fmt: skip
    assert list(continue_tokens(ours, prompts[0], GREEDY)) == expected[0]
    together = continue_all(ours, [(prompt, GREEDY) for prompt in prompts])
    assert [each.tokens for each in together] == expected


@every_case
def test_a_folder_that_was_not_trained_is_handed_back_as_it_came(
    case: Case, store: ObjectStore, tmp_path: Path
) -> None:
    case.save(tmp_path / "model")
    back = open_store((tmp_path / "back").as_uri())
    write_back(store, back)
    if case.dtype != torch.float32:
        cast(back, case.dtype_name)
    given, found = tmp_path / "model", tmp_path / "back"
    assert (found / "config.json").read_text() == (given / "config.json").read_text()
    if (given / WHOLE).exists():
        assert (found / WHOLE).read_bytes() == (given / WHOLE).read_bytes()
    tensors = {name: each for file in given.glob("*.safetensors") for name, each in load_file(file).items()}
    written = load_file(found / WHOLE)
    assert tensors.keys() == written.keys()
    assert all(each.dtype == written[name].dtype and torch.equal(each, written[name]) for name, each in tensors.items())


@pytest.mark.parametrize("name", ["llama-3.2", "qwen3", "gemma-3-linear"])
def test_transformers_continues_a_folder_that_was_rounded_to_bfloat16_as_ours(
    name: str, store: ObjectStore, tmp_path: Path
) -> None:
    """Both compute in fp32: where each sums in bfloat16, in an order of its own, random models have near ties."""
    replace(CASES[name], dtype=torch.float32).save(tmp_path / "model")
    cast(store, "bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").dtype == torch.bfloat16
    ours = read_model(store)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    prompt = [3, 5, 9, 22, 40]
    found = theirs.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=32, eos_token_id=None, pad_token_id=0
    )
    assert list(continue_tokens(ours, prompt, GREEDY)) == found[0, len(prompt) :].tolist()


@every_case
def test_a_shape_alone_makes_a_folder_that_transformers_reads_the_same(
    case: Case, store: ObjectStore, tmp_path: Path
) -> None:
    case.save(tmp_path / "model")
    shape, _ = read_shape(store)
    config = to_config(shape, VOCABULARY, SpecialTokens())
    assert from_config(config, "")[0] == shape
    assert ModelShape.model_validate_json(json.dumps(shape.document())) == shape
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    tokens = torch.arange(VOCABULARY)[None]
    with torch.no_grad():
        torch.testing.assert_close(read_model(store)(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)


@every_case
def test_parameters_are_counted_exactly_and_begin_from_the_seed(case: Case, store: ObjectStore, tmp_path: Path) -> None:
    case.save(tmp_path / "model")
    shape, rows = read_shape(store)
    model = build_model(shape, rows)
    initialize(model, 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters(shape, rows)
    norms = {name: parameter for name, parameter in model.named_parameters() if "norm" in name}
    assert all((norm == (0 if name.endswith("offset") else 1)).all() for name, norm in norms.items())


def test_a_shape_of_the_first_families_is_written_as_it_always_was() -> None:
    sizes = {"layers": 1, "heads": 2, "kvHeads": 1, "width": 8, "ffnWidth": 16, "context": 8}
    document = ModelShape.model_validate({"architecture": "llama", **sizes}).document()
    assert document == {
        "architecture": "llama", **sizes, "dropout": 0.0, "ropeTheta": 10_000.0, "normEpsilon": 1e-5,
        "tiedEmbeddings": False, "bias": False, "vocabMultiple": 1,
    }  # fmt: skip


OF_EACH_KIND = ("llama-3.2", "qwen2.5", "qwen3", "olmo-2", "gemma-3")
"""Between them they have every difference of a layer: biases, head widths, norms, windows, scaled positions."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "families", [OF_EACH_KIND, pytest.param(tuple(CASES), marks=pytest.mark.exhaustive)], ids=["of each kind", "all"]
)
def test_every_family_trains_on_every_layout_as_on_one_process(families: tuple[str, ...], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH), "--json", str(figures), "--families", *families]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(figures.read_text())["rows"]
    assert list(rows) == list(families)
    for family, row in rows.items():
        assert row["greedy"] == 32 and row["export"] is True, family
        assert max(row[name] for name in ("import", "again")) <= 1e-4, family
        assert max(row[name] for name in ("dp2", "fsdp2", "tp2", "pp2", "cp2")) <= 1e-4, family
