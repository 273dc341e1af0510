"""Tokenizers and data for alignment."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from kindling_api.base import Metadata, canonical_json, key_of
from kindling_api.resolve import resolve
from kindling_api.v1alpha1.alignment_run import AlignmentData, AlignmentRun, AlignmentRunSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Progress
from kindling_api.v1alpha1.status import AlignmentResult
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import open_store
from kindling_trainer.align.data.read import DataSource, open_sources
from kindling_trainer.chat.template import DEFAULT, ChatTemplate, add_special_tokens
from kindling_trainer.checkpoint.huggingface import ChatFiles, export
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.scored import build_scored
from kindling_trainer.telemetry.metrics import METRICS


def byte_tokenizer() -> Tokenizer:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.fixture
def template() -> Callable[..., ChatTemplate]:
    """Makes a template, with a tokenizer of bytes unless another is given."""

    def make(source: str = DEFAULT, tokenizer: Tokenizer | None = None) -> ChatTemplate:
        tokenizer = tokenizer or byte_tokenizer()
        add_special_tokens(tokenizer, source)
        return ChatTemplate(source, tokenizer)

    return make


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], list[DataSource]]:
    """Writes records into a JSONL file, and opens it."""

    def make(records: Sequence[dict[str, Any]]) -> list[DataSource]:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return open_sources([AlignmentData(uri=str(path))], open_store)

    return make


TINY_BASES = {
    "llama": {"architecture": "llama", "kv_heads": 2},
    "gpt2": {"architecture": "gpt2", "kv_heads": 4, "bias": True, "tied_embeddings": True},
}


@pytest.fixture
def base(tmp_path: Path) -> Callable[..., str]:
    """Writes a Hugging Face folder of a tiny model that reads bytes; gives its URI. One that is `scored` judges."""

    def make(architecture: str = "llama", context: int = 48, *, scored: bool = False) -> str:
        store = open_store((tmp_path / f"{'judge' if scored else 'base'}-{architecture}").as_uri())
        sizes = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": context}
        shape = ModelShape.model_validate(TINY_BASES[architecture] | sizes)
        tokenizer = byte_tokenizer()
        if scored:
            add_special_tokens(tokenizer, DEFAULT)
        model = (build_scored if scored else build_model)(shape, tokenizer.get_vocab_size())
        initialize(model, 1)
        if scored:
            nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
        weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
        file = tokenizer.to_str().encode()
        vocabulary = {"vocab_size": tokenizer.get_vocab_size(), "tokenizer": file, "end_of_document": None}
        chat = ChatFiles(DEFAULT, tokenizer.token_to_id("<|end|>")) if scored else None
        export(store, weights, model.shape, scored=scored, chat=chat, **vocabulary)
        return store.uri

    return make


def dialogues(count: int) -> list[dict[str, Any]]:
    """Questions about letters, of many lengths, some with two turns: there is something to learn in a few steps."""
    records = []
    for number in range(count):
        letter = string.ascii_lowercase[number % 26]
        asked = {"role": "user", "content": f"{letter}{'?' * (number % 7 + 1)}"}
        messages = [asked, {"role": "assistant", "content": letter * (number % 5 + 1)}]
        if number % 4 == 0:
            messages += [{"role": "user", "content": "more"}, {"role": "assistant", "content": letter.upper()}]
        records.append({"messages": messages})
    return records


@pytest.fixture
def alignment_file(tmp_path: Path, base: Callable[..., str]) -> Callable[..., Path]:
    """Makes a run file over a tiny base; keyword arguments replace whole fields of the spec."""

    def make(
        *, records: Sequence[dict[str, Any]] | None = None, name: str = "tiny", base_uri: str = "",
        method: dict[str, Any] | None = None, store: str = "", **fields: Any,
    ) -> Path:  # fmt: skip
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(record) + "\n" for record in records or dialogues(120)))
        uri = base_uri or base()
        training = {"steps": 10, "batch": {"tokens": 384, "microBatch": 2}, "precision": "fp32", "compile": "never"}
        training |= {"optimizer": {"adamW": {"learningRate": 3e-3}}}
        spec = {
            "base": {"uri": uri},
            "method": method or {"sft": {}},
            "data": [{"uri": str(data)}],
            "training": training,
            "checkpoint": {"every": 4},
            "evaluation": {"every": 5, "prompts": ["a?"], "promptTokens": 4},
        }
        for field, value in fields.items():
            spec[field] = {**spec.get(field, {}), **value} if isinstance(value, dict) else value
        if "epochs" in spec["training"]:
            del spec["training"]["steps"]
        document = AlignmentRun(metadata=Metadata(name=name), spec=AlignmentRunSpec.model_validate(spec, strict=False))
        run = resolve(document, storage=StorageSpec(uri=(tmp_path / "store").as_uri()), finished={})
        assert isinstance(run, AlignmentRunFile)
        run = run.model_copy(update={"key": key_of(store or name)})
        path = tmp_path / f"{name}.run.json"
        path.write_bytes(canonical_json(run.document()))
        return path

    return make


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads metrics.jsonl of a run from its last word."""

    def read(run: Path) -> list[dict[str, Any]]:
        store = open_store(result(run).uri)
        return [json.loads(line) for line in store.get(METRICS).splitlines()]

    return read


def result(run: Path) -> AlignmentResult:
    """What came out of a run that succeeded."""
    word = Progress.model_validate_json(run.with_suffix(".progress").read_bytes())
    assert isinstance(word.result, AlignmentResult), word
    return word.result
