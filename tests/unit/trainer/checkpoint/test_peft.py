"""`peft` loads the adapters of a run on the base, and computes what we do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.adapter import LoRA
from kindling_api.v1alpha1.model import ModelShape
from kindling_storage import open_store
from kindling_trainer.checkpoint.huggingface import export, read_model
from kindling_trainer.checkpoint.huggingface.peft import (
    ADAPTER_CONFIG,
    export_adapter,
    fingerprint,
    fingerprinted,
    read_adapter,
)
from kindling_trainer.inference.adapted import adapted, load_adapted
from kindling_trainer.inference.generate import load_model
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.lora import adapters_off, add_adapters, is_adapter, merged
from kindling_trainer.models.scored import build_scored, is_scored

SIZES = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"architecture": "llama", "kv_heads": 2},
    "gpt2": {"architecture": "gpt2", "kv_heads": 4, "bias": True, "tied_embeddings": True},
}
VOCABULARY = 40


def with_adapters(shape: ModelShape, lora: LoRA, *, scored: bool = False) -> Any:
    """A model of random weights, with adapters that count."""
    model = (build_scored if scored else build_model)(shape, VOCABULARY)
    add_adapters(model, lora)
    initialize(model, 1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if is_adapter(name) or (scored and name == "head.weight"):
            nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.eval()


def write_base(folder: Path, model: Any) -> Path:
    """The model without its adapters, as a Hugging Face folder."""
    tokenizer = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, "0"))
    weights = [(name, value.detach()) for name, value in model.named_parameters() if not is_adapter(name)]
    export(
        open_store(folder.as_uri()), weights, model.shape, vocab_size=VOCABULARY, tokenizer=tokenizer.to_str().encode(),
        end_of_document=0, scored=is_scored(model),
    )  # fmt: skip
    return folder


def write_adapter(folder: Path, model: Any, lora: LoRA, *more: str) -> Path:
    parts = {name: value.detach() for name, value in model.named_parameters() if is_adapter(name) or name in more}
    base = fingerprint(model.get_parameter(fingerprinted(model.shape)))
    export_adapter(open_store(folder.as_uri()), parts, model.shape, lora, base_uri=None, base=base)
    return folder


@pytest.mark.parametrize(
    ("architecture", "lora"),
    [
        ("llama", {}),
        ("llama", {"rank": 3, "alpha": 7.0, "targets": ("k_proj", "down_proj"), "rank_stabilized": True}),
        ("gpt2", {"rank": 3}),
        ("gpt2", {"rank": 3, "targets": ("v_proj", "q_proj", "up_proj"), "rank_stabilized": True}),
        ("gpt2", {"targets": ("k_proj",)}),
    ],
)
def test_peft_and_the_merged_weights_give_the_same_logits(
    tmp_path: Path, architecture: str, lora: dict[str, Any]
) -> None:
    shape, settings = ModelShape.model_validate(SHAPES[architecture] | SIZES), LoRA(**lora)
    model = with_adapters(shape, settings)
    base = AutoModelForCausalLM.from_pretrained(write_base(tmp_path / "base", model))
    tokens = torch.arange(16)[None] * 7 % VOCABULARY
    with torch.no_grad():
        ours, plain = model(tokens), base(tokens).logits
        with adapters_off(model):
            torch.testing.assert_close(model(tokens), plain, atol=1e-5, rtol=0)
        theirs = PeftModel.from_pretrained(base, write_adapter(tmp_path / "adapter", model, settings))(tokens).logits
        together = build_model(shape, VOCABULARY)
        together.load_state_dict(dict(merged(model.named_parameters(), settings.scale)), strict=False)
        together.tie()
        merged_logits = together.eval()(tokens)
    assert (ours - plain).abs().max() > 5e-3, "the adapters count"
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    torch.testing.assert_close(merged_logits, ours, atol=1e-5, rtol=0)
    folder = open_store((tmp_path / "adapter").as_uri())
    with torch.no_grad():
        again = read_model(open_store((tmp_path / "base").as_uri()))
        read = adapted(again, read_adapter(folder, shape))(tokens)
        again.get_parameter(fingerprinted(shape)).mul_(1.01)
    torch.testing.assert_close(read, ours, atol=1e-5, rtol=0)
    with pytest.raises(SpecError, match="found one for a model with other weights; allowed: adapters of this base"):
        adapted(again, read_adapter(folder, shape))


def test_peft_gives_the_same_rewards(tmp_path: Path) -> None:
    shape, settings = ModelShape.model_validate(SHAPES["llama"] | SIZES), LoRA()
    model = with_adapters(shape, settings, scored=True)
    folder = write_base(tmp_path / "base", model)
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        base.score.weight.zero_()  # what the adapters bring of their own
    theirs = PeftModel.from_pretrained(base, write_adapter(tmp_path / "adapter", model, settings, "head.weight"))
    theirs.base_model.model.config.pad_token_id = VOCABULARY - 1
    tokens = torch.arange(16)[None] * 7 % VOCABULARY
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits[:, 0], model(tokens)[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("layers", "width", "config", "message"),
    [
        (
            1,
            32,
            {},
            "found one for layers.1.feed_forward.down of 48 to 32 numbers; allowed: .* with 1 layers of width 32",
        ),
        (
            2,
            64,
            {},
            "found one for layers.0.feed_forward.down of 48 to 32 numbers; allowed: .* with 2 layers of width 64",
        ),
        (2, 32, {"r": 8}, "mlp.down_proj of rank 16; allowed: rank 8, as adapter_config.json says"),
        (2, 32, {"use_dora": True}, "found use_dora True; allowed: plain LoRA"),
        (2, 32, {"peft_type": "IA3"}, "found peft_type 'IA3'; allowed: plain LoRA"),
        (2, 32, None, "adapter_config.json: found no such file; allowed: a PEFT folder"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, layers: int, width: int, config: dict[str, Any] | None, message: str
) -> None:
    settings = LoRA()
    shape = ModelShape.model_validate(SHAPES["llama"] | SIZES)
    folder = write_adapter(tmp_path / "adapter", with_adapters(shape, settings), settings)
    file = folder / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))
    if config is None:
        file.unlink()
    other = build_model(shape.model_copy(update={"layers": layers, "width": width}), VOCABULARY)
    place = write_base(tmp_path / "base", other)
    with pytest.raises(SpecError, match=message):
        load_adapted(load_model(place), open_store(place.as_uri()), open_store(folder.as_uri()))
