"""What a reward model says of a dialogue is what transformers says of it, from the exported folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_storage import open_store
from kindling_trainer.align.base import Base, open_base
from kindling_trainer.align.rewards.function import Answer
from kindling_trainer.align.rewards.model import RewardScorer
from kindling_trainer.chat.message import Message
from kindling_trainer.chat.template import DEFAULT, ChatTemplate, add_special_tokens
from kindling_trainer.checkpoint.huggingface import export, read_chat_template, read_model, read_tokenizer
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.scored import build_scored

ASKED = (Message("user", "a?"),)
TEXTS = ["b", "a long answer beside others", "two\nlines"]

PADDINGS: dict[str, dict[str, Any]] = {
    "no padding token": {},
    "the one that ends each dialogue": {"pad_token": "<|end|>", "eos_token": "<|end|>"},
    "one of its own": {"pad_token": "[PAD]"},
}


@pytest.mark.parametrize("named", PADDINGS.values(), ids=PADDINGS)
def test_transformers_scores_a_dialogue_at_the_token_that_training_read(
    named: dict[str, Any], base: Callable[..., str], alignment_file: Callable[..., Path], tmp_path: Path
) -> None:
    uri = base()
    store = open_store(uri)
    config = json.loads(store.get("tokenizer_config.json")) | named | {"chat_template": DEFAULT}
    if named:
        tokenizer, _ = read_tokenizer(store)
        add_special_tokens(tokenizer, DEFAULT)
        store.put("tokenizer.json", tokenizer.to_str().encode())
        store.put("tokenizer_config.json", json.dumps(config).encode())
    run = read_run_file(alignment_file(base_uri=uri, method={"reward": {}}))
    assert isinstance(run, AlignmentRunFile)
    exported = tmp_path / "exported"
    save(open_base(run), exported)
    store = open_store(exported.as_uri())
    tokenizer, special = read_tokenizer(store)
    template = ChatTemplate(read_chat_template(store) or "", tokenizer, special.named)
    judge = RewardScorer(read_model(store, scored=True), template, "spec")
    ours = judge([Answer(ASKED, text, {}, "here") for text in TEXTS])

    theirs = AutoTokenizer.from_pretrained(exported)
    dialogues = [[*(one._asdict() for one in ASKED), {"role": "assistant", "content": text}] for text in TEXTS]
    together = theirs.apply_chat_template(dialogues, padding=True, return_tensors="pt", return_dict=True)
    model = AutoModelForSequenceClassification.from_pretrained(exported)
    with torch.no_grad():
        alone = [model(torch.tensor([theirs.apply_chat_template(one)["input_ids"]])).logits.item() for one in dialogues]
        assert alone == pytest.approx(ours, abs=1e-4)
        assert model(**together).logits[:, 0].tolist() == pytest.approx(ours, abs=1e-4)


def save(base: Base, folder: Path) -> None:
    """Writes what the end of training would, with weights of no training."""
    vocabulary = base.vocabulary
    model = build_scored(base.shape, vocabulary.size)
    initialize(model, 1)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    export(
        open_store(folder.as_uri()), weights, model.shape, vocab_size=vocabulary.size, tokenizer=vocabulary.file,
        end_of_document=vocabulary.end_of_document, special=vocabulary.special, chat=vocabulary.chat, scored=True,
    )  # fmt: skip
