"""Folders as transformers writes them, of every family of models, with random weights and odd sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

VOCABULARY = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 36, "intermediate_size": 54, "num_hidden_layers": 4,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
ODD = {"hidden_size": 40, "head_dim": 14}
"""Of a width that the heads do not divide."""


@dataclass(frozen=True)
class Case:
    """A model of a family."""

    config: Callable[..., PreTrainedConfig]
    fields: dict[str, Any]
    dtype: torch.dtype = torch.float32
    file_bytes: int = 10**9
    """The largest file of weights."""

    @property
    def dtype_name(self) -> Any:
        """As in `bfloat16`."""
        return str(self.dtype).removeprefix("torch.")

    def save(self, folder: Path, seed: int = 0) -> None:
        """The folder, whose every parameter has values of its own, large enough to tell apart."""
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(self.config(**{**SIZES, **self.fields}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.to(self.dtype).save_pretrained(folder, max_shard_size=self.file_bytes)
        tokenizer = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY)}, "t2"))
        tokenizer.save(str(folder / "tokenizer.json"))


def _llama(rope: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 500_000.0, **rope}, **fields}


_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
_BF16 = torch.bfloat16

CASES: dict[str, Case] = {
    "llama-2": Case(LlamaConfig, {"num_key_value_heads": 6}, _BF16, file_bytes=40_000),
    "llama-3": Case(LlamaConfig, _llama({"rope_type": "default"}, attention_bias=True)),
    "llama-3.1": Case(LlamaConfig, _llama(_LLAMA3), _BF16),
    "llama-3.2": Case(LlamaConfig, _llama(_LLAMA3, tie_word_embeddings=True, head_dim=10), file_bytes=40_000),
    "llama-linear": Case(LlamaConfig, _llama({"rope_type": "linear", "factor": 4.0})),
    "llama-yarn": Case(LlamaConfig, _llama(_YARN | {"beta_fast": 4.0, "mscale": 0.7, "mscale_all_dim": 0.3})),
    "mistral-window": Case(MistralConfig, {"sliding_window": 7}, _BF16),
    "mistral-nemo": Case(MistralConfig, {"sliding_window": None, **ODD}),
    "qwen2.5": Case(Qwen2Config, {"tie_word_embeddings": True}, _BF16, file_bytes=40_000),
    "qwen2.5-yarn-window": Case(
        Qwen2Config,
        {"rope_parameters": _YARN, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
    ),
    "qwen3": Case(Qwen3Config, {"tie_word_embeddings": True, **ODD}, _BF16),
    "smollm2": Case(LlamaConfig, {"tie_word_embeddings": True}, _BF16),
    "smollm3": Case(SmolLM3Config, {"no_rope_layer_interval": 3, "use_sliding_window": True, "sliding_window": 5}),
    "olmo-2": Case(Olmo2Config, {}, file_bytes=40_000),
    "gemma-3": Case(
        Gemma3TextConfig,
        {"head_dim": 10, "query_pre_attn_scalar": 20, "sliding_window": 6, "sliding_window_pattern": 2},
        _BF16,
    ),
    "gemma-3-linear": Case(
        Gemma3TextConfig,
        {
            "head_dim": 8, "sliding_window": 5, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
}  # fmt: skip
