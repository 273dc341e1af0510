"""Ten families of models are prompted, taught and stopped with the very tokens that transformers has for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.model import ModelShape
from kindling_storage import ObjectStore, open_store
from kindling_trainer.align.data.check import check_template
from kindling_trainer.align.data.formats import dialogue
from kindling_trainer.chat.message import Message
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.chat.template import ChatTemplate
from kindling_trainer.checkpoint.huggingface import ChatFiles, export, read_chat_template, read_tokenizer
from kindling_trainer.inference.generate import load_model
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize

Folder = Callable[..., ObjectStore]
NAMES = sorted(path.stem for path in (Path(__file__).parent / "templates").glob("*.jinja"))
WITHOUT_SYSTEM = ("gemma", "mistral")
TALK = (
    Message("system", "Be brief, please."),
    Message("user", "What is two and\nthree?"),
    Message("assistant", "Five. "),
    Message("user", "Sure? 🙂"),
    Message("assistant", " Yes, it is.\n\nNaïve 🙂"),
)
every_family = pytest.mark.parametrize("name", NAMES)


def talk_of(name: str) -> tuple[Message, ...]:
    return TALK[1:] if name in WITHOUT_SYSTEM else TALK


def ours(store: ObjectStore) -> tuple[ChatTemplate, SpecialTokens]:
    tokenizer, special = read_tokenizer(store)
    source = read_chat_template(store)
    assert source is not None
    return ChatTemplate(source, tokenizer, special.named), special


def theirs(store: ObjectStore) -> PreTrainedTokenizerFast:
    path = store.local_path("tokenizer.json")
    assert path is not None
    return AutoTokenizer.from_pretrained(path.parent)


def plain(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [message._asdict() for message in messages]


@every_family
def test_special_tokens_and_plain_texts_are_transformers(name: str, folder: Folder) -> None:
    template, special = ours(folder(name))
    other = theirs(folder(name))
    assert special.named == other.special_tokens_map
    assert special.eos == other.eos_token_id and other.bos_token_id in (None, special.bos)
    for text in ("", "Sure? 🙂", " two\n three", "".join(special.named.values())):
        assert template.tokenizer.encode(text).ids == other(text)["input_ids"], text


@every_family
def test_a_prompt_and_a_dialogue_are_transformers_tokens(name: str, folder: Folder) -> None:
    template, _ = ours(folder(name))
    other, talk = theirs(folder(name)), talk_of(name)
    assert template.render(talk) == other.apply_chat_template(plain(talk), tokenize=False)
    for end in (len(talk) - 1, len(talk) - 3):
        expected = other.apply_chat_template(plain(talk[:end]), add_generation_prompt=True, return_dict=False)
        assert template.prompt(talk[:end]) == expected
    (encoded,) = template.encode([(talk, 0)])
    assert encoded.tokens.tolist() == other.apply_chat_template(plain(talk), return_dict=False)


@every_family
def test_the_tokens_that_count_are_those_of_transformers_mask(name: str, folder: Folder) -> None:
    """By the marks of a template, and without them by what it makes of the dialogue's beginnings."""
    talk, marked = talk_of(name), folder(name, marked=True)
    masked = theirs(marked).apply_chat_template(plain(talk), return_dict=True, return_assistant_tokens_mask=True)
    assert 0 < sum(masked["assistant_masks"]) < len(masked["input_ids"])
    for store in (marked, folder(name)):
        template, _ = ours(store)
        (encoded,) = template.encode([(talk, 0)])
        assert encoded.tokens.tolist() == masked["input_ids"]
        mask = masked["assistant_masks"]
        if name == "phi-3" and store is not marked:  # what is one stretch here is two blocks with marks
            between = [token for token, ours, other in zip(*encoded, mask, strict=True) if ours and not other]
            mask = encoded.counted.astype(int).tolist() if template.tokenizer.decode(between) == "\n" else mask
        assert encoded.counted.astype(int).tolist() == mask
        first = next(number for number, message in enumerate(talk) if message.role == "assistant")
        without = (*talk[:first], talk[first]._replace(learned=False), *talk[first + 1 :])
        (last,), (others,) = template.encode([(talk, len(talk) - 1)]), template.encode([(without, 0)])
        assert others.counted.tolist() == last.counted.tolist(), "by its weight, or by where learning begins"
        asked = len(template.prompt(talk[:-1]))
        expected = [0] * asked + mask[asked:]
        assert last.counted.astype(int).tolist() == expected, "the first answer is in the prompt"


@every_family
def test_generation_ends_where_transformers_ends_it(name: str, folder: Folder) -> None:
    store = folder(name)
    template, special = ours(store)
    path = store.local_path("generation_config.json")
    assert path is not None
    end = GenerationConfig.from_pretrained(path.parent).eos_token_id
    assert set(special.stops) == set(end if isinstance(end, list) else [end])
    assert check_template(template) in special.stops, "what is taught as the end of a turn is one of them"


@every_family
def test_a_model_that_was_taught_with_its_own_template_keeps_its_tokens_and_stops(
    name: str, folder: Folder, tmp_path: Path
) -> None:
    store, talk = folder(name), talk_of(name)
    template, special = ours(store)
    size = template.tokenizer.get_vocab_size()
    sizes = {"layers": 1, "heads": 2, "kv_heads": 2, "width": 8, "ffn_width": 8, "context": 256}
    model = build_model(ModelShape.model_validate({"architecture": "llama", **sizes}), size)
    initialize(model, 1)
    taught = open_store((tmp_path / "taught").as_uri())
    export(
        taught, ((name, parameter.detach()) for name, parameter in model.named_parameters()), model.shape,
        vocab_size=size, tokenizer=template.tokenizer.to_str().encode(), end_of_document=special.eos, special=special,
        chat=ChatFiles(template.exported, check_template(template)),
    )  # fmt: skip
    again, kept = ours(taught)
    assert again.prompt(talk[:-1]) == template.prompt(talk[:-1])
    assert {**kept.named, **special.named} == kept.named, "a padding token may come to it"
    assert kept.stops == special.stops and kept.generation == {"bos_token_id": special.bos, **special.generation}
    before, after = theirs(store), theirs(taught)
    for given in (before, after):
        given.pad_token = None
    assert after.special_tokens_map == before.special_tokens_map
    assert after.apply_chat_template(plain(talk)) == before.apply_chat_template(plain(talk))
    generator = load_model(taught)
    for text in ("", "Sure? 🙂"):
        first = special.eos if special.bos is None else special.bos
        assert generator.encode(text) == (before(text)["input_ids"] or [first])
    assert generator.stops == frozenset(special.stops)


TEMPLATES = {"default": "{{ bos_token }}d{{ messages[0].content }}", "tool_use": "t", "rag": "r"}
FORMS: dict[str, dict[str, Any]] = {
    "a list of named ones": {
        "tokenizer_config.json": [{"name": name, "template": TEMPLATES[name]} for name in ("tool_use", "default")]
    },
    "files go before the list": {
        "tokenizer_config.json": [{"name": "default", "template": "old"}],
        "chat_template.jinja": TEMPLATES["default"],
        "additional_chat_templates/rag.jinja": "r",
    },
    "one file": {"tokenizer_config.json": "old", "chat_template.jinja": TEMPLATES["default"]},
}


def with_templates(store: ObjectStore, files: dict[str, Any]) -> ObjectStore:
    for path, content in files.items():
        if path == "tokenizer_config.json":
            content = json.dumps(json.loads(store.get(path)) | {"chat_template": content})
        store.put(path, content.encode())
    return store


@pytest.mark.parametrize("files", FORMS.values(), ids=FORMS)
def test_of_several_templates_the_default_is_taken_as_transformers_does(
    files: dict[str, Any], folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = with_templates(folder("llama-2"), files)
    template, _ = ours(store)
    assert template.source == theirs(store).get_chat_template()
    assert template.prompt(TALK) == theirs(store).apply_chat_template(plain(TALK), return_dict=False)
    others = {"a list of named ones": "tool_use", "files go before the list": "rag"}
    told = [record.getMessage().rpartition(" ")[2] for record in caplog.records if "chat templates" in record.msg]
    assert set(told) == set(filter(None, [others.get(next(form for form in FORMS if FORMS[form] is files))]))


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": [{"name": name, "template": "t"} for name in ("tool_use", "rag")]},
        {"tokenizer_config.json": "old", **{f"additional_chat_templates/{name}.jinja": "t" for name in TEMPLATES}},
    ],
    ids=["a list", "files"],
)
def test_several_templates_without_a_default_are_refused_with_their_names(
    files: dict[str, Any], folder: Folder
) -> None:
    files.pop("additional_chat_templates/default.jinja", None)
    with pytest.raises(SpecError, match="found the chat templates rag, tool_use; allowed: one that is named default"):
        read_chat_template(with_templates(folder("llama-2"), files))


NAMINGS: dict[str, dict[str, Any]] = {
    "a map goes before a configuration without added tokens": {
        "tokenizer_config.json": {"bos_token": "<unk>", "eos_token": "</s>"},
        "special_tokens_map.json": {"bos_token": {"content": "<s>", "lstrip": False, "rstrip": False,
            "normalized": False, "single_word": False}, "pad_token": "</s>"},
    },
    "and not before one with them": {
        "tokenizer_config.json": {"bos_token": "<s>", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"bos_token": "<unk>", "eos_token": "</s>"},
    },
    "a token that the tokenizer does not have is added": {"tokenizer_config.json": {"pad_token": "[PAD]"}},
    "a token of the vocabulary becomes special": {
        "tokenizer_config.json": {"eos_token": "Five", "additional_special_tokens": ["two", "<tool>"]}
    },
    "the post-processor decides what begins a text": {
        "tokenizer_config.json": {"bos_token": "</s>", "add_bos_token": False, "add_eos_token": True}
    },
    "none at all": {},
}  # fmt: skip


@pytest.mark.parametrize("files", NAMINGS.values(), ids=NAMINGS)
def test_special_tokens_come_from_the_files_in_transformers_order(files: dict[str, Any], folder: Folder) -> None:
    store = folder("mistral")
    for path in ("special_tokens_map.json", "tokenizer_config.json"):
        store.delete(path)
    for path, document in files.items():
        store.put(path, json.dumps(document | {"tokenizer_class": "PreTrainedTokenizerFast"}).encode())
    tokenizer, special = read_tokenizer(store)
    path = store.local_path("tokenizer.json")
    assert path is not None
    other = PreTrainedTokenizerFast.from_pretrained(path.parent)
    assert special.named == other.special_tokens_map
    for text in ("<s>What is two</s>", "Five two <tool>[PAD]"):
        assert tokenizer.encode(text).ids == other(text)["input_ids"]
    source = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ 'no' if bos_token is not defined }}"
    rendered = other.apply_chat_template(plain(TALK), chat_template=source, tokenize=False)
    assert ChatTemplate(source, tokenizer, special.named).render(TALK) == rendered


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ({"eos_token_id": [0, 2]}, {"eos_token_id": 1}, (0, 2)),
        ({"bos_token_id": 1}, {"eos_token_id": [1, 0]}, (1, 0, 2)),
        (None, {"eos_token_id": 1}, (1, 2)),
        (None, {}, (2,)),
    ],
    ids=["generation_config.json", "config.json where that has none", "config.json alone", "the tokenizer's own"],
)
def test_every_token_that_ends_a_text_is_a_stop(
    generation: dict[str, Any] | None, config: dict[str, Any], stops: tuple[int, ...], folder: Folder
) -> None:
    store = folder("llama-2")
    store.delete("generation_config.json")
    if generation is not None:
        store.put("generation_config.json", json.dumps(generation).encode())
    store.put("config.json", json.dumps(config).encode())
    template, special = ours(store)
    assert special.stops == stops
    assert template.render(TALK).endswith(" </s>"), "and the end token of a template is the tokenizer's"


@pytest.mark.parametrize(
    "arguments",
    ["", "(indent=2)", "(ensure_ascii=true)", "(separators=(',', ':'), sort_keys=true)", "(false, 1)"],
)
def test_json_in_a_template_has_transformers_arguments(arguments: str, folder: Folder) -> None:
    store = folder("llama-2")
    source = "{{ {'b': messages[0].content, 'a': ['<é>']} | tojson" + arguments + " }}"
    expected = theirs(store).apply_chat_template(plain(TALK), chat_template=source, tokenize=False)
    assert ChatTemplate(source, ours(store)[0].tokenizer).render(TALK) == expected


def test_what_a_model_thinks_is_written_by_the_names_that_transformers_gives_it(folder: Folder) -> None:
    source = "{% for m in messages %}{{ m.thinking or '-' }}{{ m.reasoning_content or '-' }}{{ m.content }}{% endfor %}"
    store = folder("llama-2")
    given = [
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes.", "thinking": "Five </s>"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Three"},
    ]
    found = dialogue({"messages": given}, "messages")
    assert found is not None
    expected = theirs(store).apply_chat_template(given, chat_template=source, tokenize=False)
    assert ChatTemplate(source, ours(store)[0].tokenizer).render(found.messages) == expected
