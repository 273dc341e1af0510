"""The families of models in Hugging Face form: every field of config.json that is known of each, and its treatment.

A field is honoured (`config.py` reads it into the shape), fixed (what ours computes has these values, any other is
refused), or without effect on what a decoder computes. Any further field is refused: nobody knows what it changes.
Defaults are those of transformers' own classes, for files that leave a field out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]
Fixed = dict[str, tuple[Any, ...]]
"""The values that are allowed, by field; the first is the default."""


@dataclass(frozen=True)
class FamilyFiles:
    """What the files of a family hold."""

    decoder: str
    """transformers' class, in `architectures`."""
    classifier: str
    """The class with a head that scores."""
    honoured: frozenset[str]
    fixed: Fixed
    defaults: Config = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """All fields that may be there."""
        return self.honoured | self.fixed.keys() | NO_EFFECT


def _fields(text: str) -> frozenset[str]:
    return frozenset(text.split())


NO_EFFECT = _fields("""
    _name_or_path name_or_path architectures model_type dtype torch_dtype transformers_version _commit_hash auto_map
    id2label label2id num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix
    output_attentions output_hidden_states return_dict torchscript use_bfloat16 tf_legacy_loss
    chunk_size_feed_forward cross_attention_hidden_size tie_encoder_decoder is_decoder use_cache cache_implementation
    attn_implementation _attn_implementation _attn_implementation_autoset

    bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id

    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
    top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens

    initializer_range pretraining_tp is_llama_config transformers.js_config unsloth_version unsloth_fixed
""")
"""What transformers' base configuration has; tokens, for which the tokenizer's files are asked, too; generation, as old
files set it here; what other trainers and converters leave."""

_FIXED: Fixed = {
    "quantization_config": (None,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "per_layer_config": (None,),
}
_LLAMA_FIXED: Fixed = _FIXED | {
    "hidden_act": ("silu", "swish"),
    "attention_dropout": (0.0,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0, None),
    "rope_interleaved": (False,),
}
_NO_BIAS: Fixed = {"attention_bias": (False,)}

_SIZES = _fields("""
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
    max_position_embeddings original_max_position_embeddings rms_norm_eps tie_word_embeddings
    rope_theta rope_scaling rope_parameters
""")
_BIAS, _LAYER_TYPES = _fields("attention_bias"), _fields("use_sliding_window sliding_window layer_types")
_LLAMA_DEFAULTS: Config = {
    "num_key_value_heads": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False,
    "rope_theta": 10_000.0, "sliding_window": None, "use_sliding_window": False,
}  # fmt: skip
_QWEN_DEFAULTS = _LLAMA_DEFAULTS | {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}

FAMILIES: dict[str, FamilyFiles] = {
    "llama": FamilyFiles(
        "LlamaForCausalLM", "LlamaForSequenceClassification", _SIZES | _BIAS, _LLAMA_FIXED, _LLAMA_DEFAULTS
    ),
    "mistral": FamilyFiles(
        "MistralForCausalLM", "MistralForSequenceClassification", _SIZES | {"sliding_window"}, _LLAMA_FIXED | _NO_BIAS,
        _LLAMA_DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096},
    ),
    "qwen2": FamilyFiles(
        "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", _SIZES | _LAYER_TYPES | {"max_window_layers"},
        _LLAMA_FIXED | {"attention_bias": (True,), "use_mrope": (False,)}, _QWEN_DEFAULTS,
    ),
    "qwen3": FamilyFiles(
        "Qwen3ForCausalLM", "Qwen3ForSequenceClassification", _SIZES | _BIAS | _LAYER_TYPES | {"max_window_layers"},
        _LLAMA_FIXED, _QWEN_DEFAULTS | {"head_dim": 128},
    ),
    "smollm3": FamilyFiles(
        "SmolLM3ForCausalLM", "SmolLM3ForSequenceClassification",
        _SIZES | _BIAS | _LAYER_TYPES | {"no_rope_layers", "no_rope_layer_interval", "max_window_layers"}, _LLAMA_FIXED,
        _LLAMA_DEFAULTS | {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 2_000_000.0},
    ),
    "olmo2": FamilyFiles(
        "Olmo2ForCausalLM", "Olmo2ForSequenceClassification", _SIZES | _BIAS, _LLAMA_FIXED,
        _LLAMA_DEFAULTS | {"rms_norm_eps": 1e-5},
    ),
    "gemma3_text": FamilyFiles(
        "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification",
        _SIZES | _BIAS | _fields(
            "sliding_window layer_types sliding_window_pattern _sliding_window_pattern query_pre_attn_scalar"
            " rope_local_base_freq"
        ),
        _LLAMA_FIXED | {
            "hidden_act": ("gelu_pytorch_tanh", "gelu"), "hidden_activation": ("gelu_pytorch_tanh",),
            "final_logit_softcapping": (None,), "attn_logit_softcapping": (None,),
            "use_bidirectional_attention": (False, None),
        },
        _LLAMA_DEFAULTS | {
            "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256, "tie_word_embeddings": True, "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
        },
    ),
    "gpt2": FamilyFiles(
        "GPT2LMHeadModel", "GPT2ForSequenceClassification",
        _fields("""
            vocab_size n_layer n_head n_embd n_inner n_positions layer_norm_epsilon resid_pdrop embd_pdrop attn_pdrop
            tie_word_embeddings

            n_ctx reorder_and_upcast_attn predict_special_tokens
            summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout
        """),
        _FIXED | {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,),
        },
    ),
}  # fmt: skip
"""By `model_type`."""


def nearest_family(config: Config) -> tuple[str, list[str]]:
    """The family that knows most of a configuration's fields, and those that it does not know."""
    unknown = {name: sorted(config.keys() - files.known) for name, files in FAMILIES.items()}
    name = min(unknown, key=lambda name: len(unknown[name]))
    return name, unknown[name]
