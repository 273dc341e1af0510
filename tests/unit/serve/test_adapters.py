"""One base with several adapters: each is asked for by its name, and answers as it would alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest
import torch

from kindling_trainer.checkpoint.huggingface.peft import LowRank, PeftAdapter
from kindling_trainer.inference.adapted import adapted
from kindling_trainer.inference.generate import Generator
from kindling_trainer.inference.sampling import GenerationOptions

OPTIONS = GenerationOptions(max_tokens=24, temperature=0)


def tuned(base: Generator, seed: int) -> Generator:
    draw = torch.Generator().manual_seed(seed)
    low, high = torch.randn(2, 16, generator=draw), torch.randn(16, 2, generator=draw)
    layers = {f"layers.{layer}.attention.output": LowRank(low, high, 2.0) for layer in range(2)}
    return replace(base, model=adapted(base.model, PeftAdapter("an adapter", layers, {})))


def test_a_name_chooses_the_adapter(tiny: Callable[..., Generator], serve: Any) -> None:
    base = tiny()
    others = {"one": tuned(base, 1), "two": tuned(base, 2)}
    expected = {name: "".join(each.generate("abc", OPTIONS)) for name, each in {"tiny": base, **others}.items()}
    assert len(set(expected.values())) == 3, "they differ"
    client = openai.OpenAI(base_url=f"{serve(base, adapted=others).url}/v1", api_key="any", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny", "one", "two"]
    for name, text in [*expected.items(), *expected.items()]:
        said = client.completions.create(model=name, prompt="abc", temperature=0, max_tokens=24)
        assert (said.choices[0].text, said.model) == (text, name)
    with pytest.raises(openai.NotFoundError, match="there is `tiny`, `one`, `two`"):
        client.completions.create(model="three", prompt="abc")


def test_the_weights_of_a_base_are_in_memory_once(tiny: Callable[..., Generator]) -> None:
    base = tiny()
    shared = {parameter.data_ptr() for parameter in base.model.parameters()}
    added = [each for each in tuned(base, 1).model.parameters() if each.data_ptr() not in shared]
    assert sum(each.numel() for each in added) == 2 * 2 * 2 * 16
