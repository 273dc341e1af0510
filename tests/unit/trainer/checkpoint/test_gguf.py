"""Models as GGUF files: what `gguf` reads back, and what llama.cpp itself continues."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from random_families import CASES, Case
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Gemma3TextConfig, GPT2Config, Olmo2Config, Qwen3Config, SmolLM3Config

from kindling_api.errors import SpecError
from kindling_dataprep.tokenize.tokenizer import LLAMA3, QWEN2
from kindling_storage import open_store
from kindling_trainer.checkpoint.gguf import FILE, write_gguf
from kindling_trainer.checkpoint.huggingface import read_model
from kindling_trainer.inference.batching import continue_tokens
from kindling_trainer.inference.sampling import GenerationOptions

TEXT = [
    "The fire was small, and it had to be fed with care; first the dry grass, then twigs, then 12 or 345 branches.",
    "Ünïcödé: „quoted“, don't I'LL we've — naïve café 🔥 日本語のテキスト\n\n\tdef f(x):\n    return x ** 2  # 2024",
]
PROBES = [*TEXT, "A fire  burnt\n\n on 1234567 nights, <|im_end|> it's said."]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def byte_level(pattern: str | None = None) -> Tokenizer:
    """A trained tokenizer in the manner of GPT-2, or one that cuts words by a pattern."""
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_]) if split else bytes_
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return tokenizer


def pieces() -> Tokenizer:
    """One in the manner of SentencePiece, with bytes for what it has no piece for; merges in the order of scores."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<|endoftext|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXT[:1] * 4, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [each for each in document["added_tokens"] if not each["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(document))


def small(case: Case, **fields: Any) -> Case:
    return replace(case, fields={**case.fields, "vocab_size": 400, **fields}, file_bytes=10**9)


def gpt2(vocab_size: int, **sizes: Any) -> GPT2Config:
    """GPT-2's own names of sizes, instead of those of all others."""
    return GPT2Config(
        vocab_size=vocab_size, n_embd=32, n_head=4, n_layer=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )


FAMILIES: dict[str, tuple[Case, Tokenizer]] = {
    "gpt2": (small(Case(gpt2, {})), byte_level()),
    "llama": (small(CASES["llama-3.1"], attention_bias=True), byte_level(LLAMA3)),
    "llama-2": (small(CASES["llama-2"]), pieces()),
    "linear": (small(CASES["llama-linear"]), byte_level()),
    "yarn": (small(CASES["llama-yarn"]), byte_level()),
    "mistral": (small(CASES["mistral-nemo"]), pieces()),
    "qwen2": (small(CASES["qwen2.5"]), byte_level(QWEN2)),
    "qwen3": (small(Case(Qwen3Config, CASES["qwen3"].fields)), byte_level(QWEN2)),
    "smollm3": (small(Case(SmolLM3Config, {"use_sliding_window": False})), byte_level(LLAMA3)),
    "olmo2": (small(Case(Olmo2Config, {})), byte_level(LLAMA3)),
    "gemma3": (
        small(
            Case(Gemma3TextConfig, {
                "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5,
                "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            })
        ),
        pieces(),
    ),
}  # fmt: skip
THREE = ("llama", "qwen2", "gpt2")


def save(name: str, folder: Path) -> Tokenizer:
    """The folder of a family, in fp32, with a tokenizer and a chat template."""
    case, tokenizer = FAMILIES[name]
    replace(case, dtype=torch.float32).save(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return tokenizer


def written(folder: Path, **options: Any) -> GGUFReader:
    path = folder.parent / FILE
    write_gguf(open_store(folder.as_uri()), path, "a model", **options)
    assert [each.name for each in folder.parent.iterdir() if each.name.endswith(".part")] == []
    return GGUFReader(path)


def fields(reader: GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def test_a_file_has_the_sizes_the_tokenizer_and_the_tensors_of_the_folder(tmp_path: Path) -> None:
    tokenizer = save("llama", tmp_path / "model")
    reader = written(tmp_path / "model")
    found, model = fields(reader), read_model(open_store((tmp_path / "model").as_uri()))
    expected = {
        "general.architecture": "llama", "general.name": "a model", "general.file_type": 0,
        "llama.block_count": 4, "llama.context_length": 64, "llama.embedding_length": 36,
        "llama.feed_forward_length": 54, "llama.attention.head_count": 6, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 6, "llama.rope.freq_base": 500_000.0, "llama.vocab_size": 400,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "dbrx", "tokenizer.chat_template": TEMPLATE,
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.add_bos_token": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    numbers = tokenizer.get_vocab()
    assert found["tokenizer.ggml.tokens"][: len(numbers)] == sorted(numbers, key=lambda token: numbers[token])
    assert found["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert found["tokenizer.ggml.merges"][0] == " ".join(json.loads(tokenizer.to_str())["model"]["merges"][0])
    tensors = {each.name: torch.tensor(each.data) for each in reader.tensors}
    ours = dict(model.named_parameters())
    # Rotary positions turn neighbours, in llama.cpp's Llama as in ours, and halves in transformers.
    for theirs, name in {
        "token_embd.weight": "embedding.weight", "output.weight": "head.weight",
        "blk.3.attn_q.weight": "layers.3.attention.query.weight", "blk.3.attn_k.bias": "layers.3.attention.key.bias",
        "blk.0.ffn_down.weight": "layers.0.feed_forward.down.weight", "output_norm.weight": "norm.weight",
    }.items():  # fmt: skip
        assert torch.equal(tensors[theirs], ours[name]), theirs
    assert "rope_freqs.weight" in tensors and len(tensors) == len(ours) + 1


@pytest.mark.parametrize("name", [each for each in FAMILIES if each != "llama"])
def test_every_family_has_the_tensors_that_its_keys_tell_of(name: str, tmp_path: Path) -> None:
    save(name, tmp_path / "model")
    reader = written(tmp_path / "model", dtype="bfloat16")
    found, model = fields(reader), read_model(open_store((tmp_path / "model").as_uri()))
    kinds = {each.name: each.tensor_type.name for each in reader.tensors}
    fused = 4 * model.shape.layers if name == "gpt2" else 0  # of query, key and value with their biases
    assert len(kinds) == len(list(model.named_parameters())) - fused
    assert kinds["token_embd.weight"] == "BF16" and kinds["output_norm.weight"] == "F32"
    assert found["general.file_type"] == 32
    assert found[f"{found['general.architecture']}.block_count"] == model.shape.layers
    query = next(each for each in reader.tensors if each.name in ("blk.1.attn_q.weight", "blk.1.attn_qkv.weight"))
    bits = torch.tensor(query.data).view(torch.bfloat16)
    assert (
        sorted(bits.flatten().tolist())[:32]
        == sorted(
            value
            for part in (("query", "key", "value") if name == "gpt2" else ("query",))
            for value in dict(model.named_parameters())[f"layers.1.attention.{part}.weight"]
            .bfloat16()
            .flatten()
            .tolist()
        )[:32]
    )


REFUSED = {
    "a window of Mistral's": ("mistral-window", {}, "sliding_window: found 7"),
    "biases that llama.cpp passes over": ("qwen3", {"attention_bias": True}, "attention_bias: found True"),
    "rotary positions that a family has not": ("qwen2.5", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }}, "rope_type: found llama3"),
    "other layers without positions": ("smollm3", {"use_sliding_window": False}, "no_rope_layers"),
    "other scores": ("gemma-3", {}, "query_pre_attn_scalar: found 20"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "more", "message"), REFUSED.values(), ids=REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused_before_anything_is_written(
    case: str, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    small(CASES[case], **more).save(tmp_path / "model")
    byte_level().save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(SpecError, match=message):
        written(tmp_path / "model")
    assert not (tmp_path / FILE).exists()


def without_cuts() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (Tokenizer(models.WordLevel({"a": 0}, "a")), "model.type: found WordLevel"),
        (Tokenizer(models.Unigram([("a", -1.0)], 0)), "model.type: found Unigram"),
        (without_cuts(), "pre_tokenizer: found"),
    ],
    ids=["words", "unigrams", "no cuts"],
)
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(tokenizer: Tokenizer, message: str, tmp_path: Path) -> None:
    save("gpt2", tmp_path / "model")
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(SpecError, match=message):
        written(tmp_path / "model")


LLAMA_CPP = """
import json, sys
from llama_cpp import GGML_TYPE_F32, Llama
path, prompts, probes = sys.argv[1], *map(json.loads, sys.argv[2:])
model = Llama(path, n_ctx=64, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, n_threads=1, verbose=False)
tokens = []
for prompt in prompts:
    model.reset()
    generated = model.generate(prompt, temp=0.0, repeat_penalty=1.0)
    tokens.append([next(generated) for _ in range(32)])
print(json.dumps([tokens, [model.tokenize(text.encode(), add_bos=False, special=True) for text in probes]]))
"""


def llama_cpp() -> str | None:
    """A Python that has llama-cpp-python: LLAMA_CPP_PYTHON, or this one."""
    import importlib.util
    import os

    here = sys.executable if importlib.util.find_spec("llama_cpp") else None
    return os.environ.get("LLAMA_CPP_PYTHON", here)


@pytest.mark.skipif(llama_cpp() is None, reason="no llama-cpp-python; LLAMA_CPP_PYTHON may name a Python that has it")
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in THREE else pytest.mark.exhaustive) for each in FAMILIES]
)
def test_llama_cpp_reads_texts_and_continues_them_as_ours(name: str, tmp_path: Path) -> None:
    tokenizer = save(name, tmp_path / "model")
    written(tmp_path / "model")
    model, options = (
        read_model(open_store((tmp_path / "model").as_uri())),
        GenerationOptions(max_tokens=32, temperature=0),
    )
    prompts = [tokenizer.encode(TEXT[0]).ids[:20], [300, 5, 17]]
    python, path = str(llama_cpp()), str(tmp_path / FILE)
    command = [python, "-c", LLAMA_CPP, path, json.dumps(prompts), json.dumps(PROBES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    tokens, texts = json.loads(done.stdout)
    assert tokens == [list(continue_tokens(model, prompt, options)) for prompt in prompts]
    assert texts == [tokenizer.encode(text).ids for text in PROBES]
