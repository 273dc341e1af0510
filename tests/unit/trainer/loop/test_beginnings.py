"""What a model continues at the end of a run that names no prompts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from kindling_api.v1alpha1.checkpoint import EvaluationSpec
from kindling_trainer.loop.pretrain import BEGINNING_TOKENS, Pretraining

WORDS = {"<end>": 0, "once": 1, "upon": 2, "a": 3, "time": 4}


@pytest.mark.parametrize(
    ("held_out", "beginnings"),
    [
        ([1, 2, 3, 4, 0, 3, 3], ["once upon a time"]),
        ([0, 1, 2], []),
        ([], []),
        ([3] * 99, [" ".join("a" * BEGINNING_TOKENS)]),
    ],
    ids=["the first text", "an empty text", "nothing held out", "a long text"],
)
def test_a_model_continues_the_first_words_that_are_held_out(held_out: list[int], beginnings: list[str]) -> None:
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="<end>"))
    tokenizer.pre_tokenizer = Whitespace()
    stream = SimpleNamespace(read=lambda start, count: np.array(held_out[start : start + count], dtype=np.int64))
    vocabulary = SimpleNamespace(tokenizer=tokenizer, end_of_document=0)
    parts = cast(Any, SimpleNamespace(stream=stream))
    objective = Pretraining(cast(Any, None), parts, parts, cast(Any, vocabulary), EvaluationSpec())
    assert objective._beginnings() == beginnings
