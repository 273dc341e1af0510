"""Small models of the families that people have: the tokenizers' files as published, the tokens few."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from kindling_storage import ObjectStore, open_store

TEMPLATES = Path(__file__).parent / "templates"
"""Chat templates as their makers published them."""

CORPUS = ["Be brief, please. What is two and\nthree? Five. Sure? Yes, it is. user assistant system model"] * 8


@dataclass(frozen=True)
class Family:
    """What is published of one, and how its template looks with marks for training."""

    special: tuple[str, ...]
    """Its special tokens, by their ids from 0."""
    tokenizer_config: dict[str, Any]
    generation: dict[str, Any]
    """generation_config.json."""
    tagged: tuple[tuple[str, str], ...]
    """What of the template is replaced to mark what the assistant says."""
    pieces: bool = False
    """Whether spaces are written as ▁ and bytes as <0x0A>, as SentencePiece does; else each byte is a character."""
    begins: str | None = None
    """What the tokenizer itself puts before a text."""
    system: bool = True
    """Whether the template knows a system message."""
    files: dict[str, Any] = field(default_factory=dict)
    """Further files."""


def tagged(found: str, head: str = "") -> tuple[str, str]:
    """A part of a template, with a mark around what comes after `head`."""
    opened = f"{{{{ {head} }}}}" if head else ""
    said = found if not head else "{{ " + found.split(head, 1)[1].lstrip(" +")
    return found, opened + "{% generation %}" + said + "{% endgeneration %}"


def decoder(special: tuple[str, ...]) -> dict[str, Any]:
    """`added_tokens_decoder` of such tokens."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(number): {"content": text, **flags} for number, text in enumerate(special)}


LLAMA_2, LLAMA_3 = ("<unk>", "<s>", "</s>"), ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>")  # fmt: skip
PHI = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
OLMO = ("<|endoftext|>", "<|endofprompt|>", "<|pad|>")
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CHAT_ML_TURN = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"

FAMILIES = {
    "llama-2": Family(
        LLAMA_2,
        {**NAMED, "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder(LLAMA_2)},
        {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        (tagged("{{ ' '  + content.strip() + ' ' + eos_token }}"),),
        pieces=True, begins="<s>",
    ),
    "llama-3": Family(
        LLAMA_3,
        {"bos_token": LLAMA_3[0], "eos_token": "<|eot_id|>", "added_tokens_decoder": decoder(LLAMA_3)},
        {"bos_token_id": 0, "eos_token_id": [1, 4, 5], "do_sample": True, "temperature": 0.6},
        (
            (
                "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}",  # noqa: E501
                "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}{%- if message.role == 'assistant' %}"  # noqa: E501
                "{%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}"
                "{%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}",
            ),
        ),
        begins=LLAMA_3[0],
    ),
    "mistral": Family(
        LLAMA_2,
        {**NAMED, "add_bos_token": True, "additional_special_tokens": [], "pad_token": None},
        {"bos_token_id": 1, "eos_token_id": 2},
        (tagged("{{ message['content'] + eos_token}}"),),
        pieces=True, begins="<s>", system=False,
        files={"special_tokens_map.json": {name: {"content": text, "lstrip": False, "normalized": False,
            "rstrip": False, "single_word": False} for name, text in NAMED.items()}},
    ),
    "zephyr": Family(
        LLAMA_2,
        {**NAMED, "pad_token": "</s>", "added_tokens_decoder": decoder(LLAMA_2),
            "additional_special_tokens": ["<unk>", "<s>", "</s>"]},
        {"bos_token_id": 1, "eos_token_id": 2},
        (
            (
                "{{ '<|assistant|>\n'  + message['content'] + eos_token }}",
                "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] + eos_token + '\n' }}{% endgeneration %}",
            ),
        ),
        pieces=True, begins="<s>",
    ),
    "qwen-2.5": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
            "add_bos_token": False, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
        {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": [2, 0], "repetition_penalty": 1.1},
        (
            (
                "{%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}\n"  # noqa: E501
                "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}",
                "{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}{%- generation %}"
                "{{- message.content + '<|im_end|>\\n' }}{%- endgeneration %}"
                "{%- elif message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}",
            ),
        ),
    ),
    "gemma": Family(
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": {"content": "<unk>",
            "__type": "AddedToken", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}},
        {"bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0},
        (
            (
                "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
                "{{ '<start_of_turn>' + role + '\n' }}{% if role == 'model' %}{% generation %}"
                "{{ message['content'] | trim + '<end_of_turn>\n' }}{% endgeneration %}"
                "{% else %}{{ message['content'] | trim + '<end_of_turn>\n' }}{% endif %}",
            ),
        ),
        pieces=True, begins="<bos>", system=False,
    ),
    "phi-3": Family(
        PHI,
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>",
            "add_bos_token": False, "added_tokens_decoder": decoder(PHI)},
        {"bos_token_id": 1, "eos_token_id": [3, 4, 6], "pad_token_id": 3},
        (
            tagged("{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}", "'<|assistant|>\n'"),
            tagged("{{ eos_token }}"),
        ),
        pieces=True,
    ),
    "smollm-2": Family(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>"},
        {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
        (
            (
                CHAT_ML_TURN,
                "{{'<|im_start|>' + message['role'] + '\n'}}{% if message.role == 'assistant' %}{% generation %}"
                "{{ message['content'] + '<|im_end|>\n'}}{% endgeneration %}{% else %}"
                "{{ message['content'] + '<|im_end|>\n'}}{% endif %}",
            ),
        ),
    ),
    "deepseek": Family(
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        {"add_bos_token": True, "bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>",
            "pad_token": "<｜end▁of▁sentence｜>"},
        {"bos_token_id": 0, "eos_token_id": 1},
        (
            (
                "{{ 'Assistant: ' + message['content'] + eos_token }}",
                "{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}",
            ),
        ),
    ),
    "olmo-2": Family(
        OLMO,
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>",
            "unk_token": "<|endoftext|>", "added_tokens_decoder": decoder(OLMO)},
        {"eos_token_id": 0, "pad_token_id": 2},
        (
            (
                "{{ '<|assistant|>\\n'  + message['content'] + eos_token + '\\n' }}",
                "{{ '<|assistant|>\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
                "{{ '\\n' }}",
            ),
            tagged("{{ '<|assistant|>\\n'  + message['content'] + eos_token }}", "'<|assistant|>\\n'"),
        ),
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., ObjectStore]:
    """Writes the files of a family, without weights; gives their folder."""
    return lambda name, **options: write(tmp_path / f"{name}{'-marked' * len(options)}", name, **options)


def source_of(name: str, *, marked: bool = False) -> str:
    """The template of a family, as published or with marks."""
    source = (TEMPLATES / f"{name}.jinja").read_text()
    for found, instead in FAMILIES[name].tagged if marked else ():
        assert found in source, f"{name} has {found}"
        source = source.replace(found, instead)
    return source


def write(folder: Path, name: str, *, marked: bool = False) -> ObjectStore:
    """A family's files, without the weights."""
    family = FAMILIES[name]
    tokenizer = _pieces(family) if family.pieces else _bytes(family)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    documents = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", **family.tokenizer_config,
            "chat_template": source_of(name, marked=marked),
        },
        "config.json": {"model_type": "llama", "vocab_size": tokenizer.get_vocab_size()},
        "generation_config.json": family.generation, **family.files,
    }  # fmt: skip
    for path, document in documents.items():
        (folder / path).write_text(json.dumps(document))
    return open_store(folder.as_uri())


def _pieces(family: Family) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.normalizer = _space()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    known = [*family.special, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {text: number for number, text in enumerate([*known, *learned["vocab"]])}
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = _space()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finished(tokenizer, family)


def _space() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def _bytes(family: Family) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=list(family.special), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    trained.decoder = decoders.ByteLevel()
    return _finished(trained, family)


def _finished(tokenizer: Tokenizer, family: Family) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in family.special])
    if family.begins:
        begin = tokenizer.token_to_id(family.begins)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.begins} $A", pair=f"{family.begins} $A $B", special_tokens=[(family.begins, begin)]
        )
    elif not family.pieces:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer
