"""A reward model in Hugging Face form: transformers gives every text the reward that we give it, and it is never taken
for a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForSequenceClassification

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.model import ModelShape
from kindling_storage import open_store
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.checkpoint.huggingface import ChatFiles, export, read_model
from kindling_trainer.models import build_model
from kindling_trainer.models.scored import build_scored

SIZES: dict[str, dict[str, Any]] = {
    "llama": {"architecture": "llama", "kv_heads": 2, "tied_embeddings": True},
    "gpt2": {"architecture": "gpt2", "kv_heads": 4, "bias": True},
}
VOCAB, PAD, END = 50, 48, 49


def save(folder: Path, sizes: dict[str, Any], *, scored: bool) -> torch.nn.Module:
    shape = ModelShape.model_validate(sizes | {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": 16})
    model = (build_scored if scored else build_model)(shape, 64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCAB)}))
    weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    export(
        open_store(folder.as_uri()), weights, model.shape, vocab_size=VOCAB, tokenizer=tokenizer.to_str().encode(),
        end_of_document=None, chat=ChatFiles("{{ messages }}", END), scored=scored,
        special=SpecialTokens({"pad_token": f"w{PAD}"}, pad=PAD),
    )  # fmt: skip
    return model.eval()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_transformers_gives_our_rewards(tmp_path: Path, sizes: dict[str, Any]) -> None:
    model = save(tmp_path, sizes, scored=True)
    again = read_model(open_store(tmp_path.as_uri()), scored=True)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokens = torch.randint(PAD, (3, 9), generator=torch.Generator().manual_seed(1))
    tokens[0, 8] = tokens[1, 5] = tokens[2, 8] = END  # as every dialogue ends
    tokens[1, 6:] = PAD
    with torch.no_grad():
        ours = model(tokens)
        found = theirs(tokens).logits
        torch.testing.assert_close(again(tokens), ours)
    expected = torch.stack([ours[0, 8], ours[1, 5], ours[2, 8]])[:, None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert theirs.config.id2label == {0: "reward"} and theirs.config.num_labels == 1


@pytest.mark.parametrize("scored", [True, False])
def test_a_model_that_judges_is_not_one_that_speaks(tmp_path: Path, scored: bool) -> None:
    save(tmp_path, SIZES["llama"], scored=scored)
    found, allowed = ("a reward model", "a language model") if scored else ("a language model", "a reward model")
    with pytest.raises(SpecError, match=f"found {found}; allowed: {allowed}"):
        read_model(open_store(tmp_path.as_uri()), scored=not scored)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"id2label": {"0": "bad", "1": "good"}}, "2 labels: bad, good"),
        ({"id2label": None, "num_labels": 3}, "3 labels"),
        ({"id2label": None}, r"score\.weight \[2, 32\]"),
    ],
    ids=["named", "counted", "left out, as transformers does with two"],
)
def test_a_classifier_with_several_labels_is_no_reward_model(
    tmp_path: Path, labels: dict[str, Any], found: str
) -> None:
    save(tmp_path, SIZES["llama"], scored=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["score.weight"] = weights["score.weight"].repeat(2, 1)
    save_file(weights, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text()) | labels
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in config if config[name]}))
    with pytest.raises(SpecError, match=f"found {found}"):
        read_model(open_store(tmp_path.as_uri()), scored=True)
