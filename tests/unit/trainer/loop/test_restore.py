"""A run starts from another model's very weights, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kindling_api.base import digest_of
from kindling_api.errors import SpecError
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.products import CheckpointManifest, ModelManifest
from kindling_api.v1alpha1.runfile import Input, PretrainRunFile, read_run_file
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import commit, read_manifest
from kindling_trainer.checkpoint.huggingface import read_model
from kindling_trainer.loop.pretrain import prepare
from kindling_trainer.loop.restore import restore
from kindling_trainer.loop.setup import Setup
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.mesh import join

RunFactory = Callable[..., Path]
Begin = Callable[..., Setup]
ROWS = 64  # of the dataset's tokenizer
MINE = {"architecture": "llama", "heads": 4, "kvHeads": 2, "ffnWidth": 96}


@pytest.fixture
def begin(run_file: RunFactory, dataset: Callable[..., str]) -> Begin:
    """Gives a new run the state it starts from, in this process."""
    uri = dataset(name="mine")

    def make(base: Input, name: str = "mine", **fields: Any) -> Setup:
        run = read_run_file(run_file(name=name, store=name, dataset=uri, initialize=base, **fields))
        assert isinstance(run, PretrainRunFile)
        setup = prepare(run, join(run.spec.layout(), run.spec.resources))
        assert restore(setup) == 0
        return setup

    return make


def assert_same_weights(model: Decoder, expected: Decoder) -> None:
    theirs = dict(expected.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


@pytest.mark.slow
def test_a_run_starts_from_a_model_a_checkpoint_or_a_hugging_face_folder(
    run_file: RunFactory, runs: Any, begin: Begin, dataset: Callable[..., str]
) -> None:
    base = run_file(name="base", dataset=dataset(name="theirs"))
    runs.finish(base)
    store = runs.store(base)
    trained = read_model(store.child("model"))
    manifest = read_manifest(store, ModelManifest)
    assert manifest is not None
    for name, start in {
        "named": Input(uri=store.uri, digest=manifest.digest),
        "model": Input(uri=store.uri),
        "checkpoint": Input(uri=f"{store.uri}/checkpoints/step-00000020-a1"),
        "folder": Input(uri=f"{store.uri}/model"),
    }.items():
        assert_same_weights(begin(start, name=name).model, trained)


@pytest.mark.parametrize("rows", [ROWS, ROWS + 8], ids=["whole", "padded"])
def test_a_run_starts_from_a_llama_that_transformers_wrote(tmp_path: Path, begin: Begin, rows: int) -> None:
    config = LlamaConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, rms_norm_eps=1e-5,
    )  # fmt: skip
    theirs = tmp_path / "theirs"
    LlamaForCausalLM(config).save_pretrained(theirs)
    model = begin_from(
        theirs, begin, tmp_path, model={"architecture": "llama", "heads": 4, "kvHeads": 2, "ffnWidth": 96}
    )
    expected = dict(read_model(open_store(theirs.as_uri())).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name][:ROWS] if name.startswith(("embed", "head")) else expected[name])


def test_a_run_starts_from_a_gpt2_that_transformers_wrote(tmp_path: Path, begin: Begin) -> None:
    theirs = tmp_path / "theirs"
    config = GPT2Config(vocab_size=ROWS, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(theirs)
    model = begin_from(theirs, begin, tmp_path, model="gpt2")
    assert_same_weights(model, read_model(open_store(theirs.as_uri())))


def begin_from(theirs: Path, begin: Begin, tmp_path: Path, **fields: Any) -> Decoder:
    """A run that starts from a Hugging Face folder with the dataset's own tokenizer."""
    (theirs / "tokenizer.json").write_bytes((tmp_path / "mine" / "tokenizer.json").read_bytes())
    return begin(Input(uri=theirs.as_uri()), **fields).model


SHAPE = ModelShape(architecture="llama", layers=2, heads=4, kv_heads=2, width=32, ffn_width=96, context=16)


@pytest.fixture
def base(tmp_path: Path, dataset: Callable[..., str], begin: Begin) -> ObjectStore:
    """A model's folder with a manifest only: whether a run may start from it is decided before weights are read."""
    tokenizer = digest_of((tmp_path / "mine" / "tokenizer.json").read_bytes())
    store = open_store((tmp_path / "base").as_uri())
    facts: dict[str, Any] = {"dataset": digest_of(b"dataset"), "tokenizer": tokenizer, "vocab_size": ROWS}
    facts |= {"key": digest_of(b"key"), "files": [], "shape": SHAPE, "tokens": 1}
    commit(store, ModelManifest(**facts, spec={}, dataset_uri="file:///elsewhere", steps=1))
    commit(store.child("checkpoint"), CheckpointManifest(**facts, step=1, attempt=1, layout=Layout()))
    other = {**facts, "tokenizer": digest_of(b"other")}
    commit(store.child("foreign"), ModelManifest(**other, spec={}, dataset_uri="file:///elsewhere", steps=1))
    return store


@pytest.mark.parametrize("folder", ["", "/checkpoint"], ids=["model", "checkpoint"])
@pytest.mark.parametrize(
    ("changed", "field", "found", "allowed"),
    [
        ({"layers": 3}, "layers", "3", "2"),
        ({"architecture": "gpt2", "kvHeads": None}, "architecture", "gpt2", "llama"),
        ({"context": 8}, "context", "8", "16"),
        ({"normEpsilon": 1e-6}, "normEpsilon", "1e-06", "1e-05"),
        ({"tiedEmbeddings": True}, "tiedEmbeddings", "True", "False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_model_of_other_sizes_is_refused(
    base: ObjectStore, begin: Begin, folder: str, changed: dict[str, Any], field: str, found: str, allowed: str
) -> None:
    with pytest.raises(SpecError) as refusal:
        begin(Input(uri=base.uri + folder), model={**MINE, **changed})
    assert str(refusal.value) == (
        f"spec.model.{field}: found {found}; allowed: {allowed}, as in the model to start from, {base.uri}{folder}. "
        "To fix it: use that model's sizes, or start from another model."
    )


def test_a_model_of_another_tokenizer_is_refused(base: ObjectStore, begin: Begin) -> None:
    with pytest.raises(SpecError) as refusal:
        begin(Input(uri=f"{base.uri}/foreign"), model=MINE)
    message = str(refusal.value)
    assert message.startswith(f"spec.initialize.from: {base.uri}/foreign: found a model trained with the tokenizer sha")
    assert "; allowed: the tokenizer of the run's dataset, sha256:" in message
    assert message.endswith(
        "To fix it: build the dataset with tokenizer.from that model, or start from random weights."
    )


def test_a_checkpoint_with_another_padding_is_refused(base: ObjectStore, begin: Begin) -> None:
    with pytest.raises(SpecError) as refusal:
        begin(Input(uri=f"{base.uri}/checkpoint"), model={**MINE, "vocabMultiple": 48})
    assert str(refusal.value) == (
        f"spec.model.vocabMultiple: found 48, which makes 96 rows of the embedding; allowed: 1, which makes the 64 of "
        f"the checkpoint {base.uri}/checkpoint. To fix it: use that, or start from the finished model, whose padding "
        "is left out."
    )


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (
            "mine",
            "spec.initialize.from: {uri}: found a dataset; allowed: a model, a checkpoint or a Hugging Face folder. "
            "To fix it: give the folder of a finished PretrainRun, or one of its checkpoints.",
        ),
        (
            "nowhere",
            "{uri}/config.json: found no such file; allowed: a JSON object. "
            "To fix it: give a folder that transformers' save_pretrained or Kindling wrote.",
        ),
    ],
    ids=["dataset", "nothing"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, begin: Begin, folder: str, message: str) -> None:
    uri = (tmp_path / folder).as_uri()
    with pytest.raises(SpecError) as refusal:
        begin(Input(uri=uri), model=MINE)
    assert str(refusal.value) == message.format(uri=uri)
