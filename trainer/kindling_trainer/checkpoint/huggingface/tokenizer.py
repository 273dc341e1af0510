"""The tokenizer of a Hugging Face folder: special tokens and chat templates as transformers finds them in its files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from kindling_api.errors import NoRepositoryError, NotFoundError, SpecError, explain
from kindling_storage import ObjectStore
from kindling_trainer.chat.special_tokens import NAMES, SpecialTokens
from kindling_trainer.checkpoint.huggingface.families import Config

log = logging.getLogger(__name__)

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP = "tokenizer_config.json", "special_tokens_map.json"
CHAT_TEMPLATE, CHAT_TEMPLATES = "chat_template.jinja", "additional_chat_templates/"

_DEFAULT = "default"
"""The name of the template for whoever names none."""


@dataclass(frozen=True)
class ChatFiles:
    """What a folder says of dialogues, to whoever loads it."""

    template: str
    """Jinja, as `apply_chat_template` renders it: without generation markers, which few servers know."""
    end_of_turn: int
    """The token after which the other one speaks, and generation stops."""


def read_tokenizer(store: ObjectStore) -> tuple[Tokenizer, SpecialTokens]:
    """The tokenizer in the folder `store`, with the special tokens that its files name beside those it has.

    Names come from tokenizer_config.json; special_tokens_map.json goes before it in folders without
    `added_tokens_decoder`, as they were saved before 2023. What stands before and after a text is the tokenizer's own
    matter: transformers passes over `add_bos_token` where there is a tokenizer.json. The end of what the model says is
    in generation_config.json, or else config.json, and is the tokenizer's own end token besides.

    Raises:
        SpecError: there is no tokenizer.json, or it is none; it has tokens of text that the model has no
            embedding for; or another file is no JSON.
        StorageError: the store cannot be read.
    """
    tokenizer = _tokenizer(store)
    fields = _named(store)
    named = {name: text for name in NAMES if (text := _text(fields.get(name)))}
    additional = [text for one in _additional(fields) if (text := _text(one))]
    decoder = fields.get("added_tokens_decoder") or {}
    tokenizer.add_tokens([_added(decoder[number]) for number in sorted(decoder, key=int)])
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    missing = [text for text in dict.fromkeys([*named.values(), *additional]) if text not in known]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in missing])
    config = read_json(store, CONFIG)
    _check_rows(store, tokenizer, config)
    generation = read_json(store, GENERATION) if store.exists(GENERATION) else {}
    files = [{f"{name}_id": tokenizer.token_to_id(text) for name, text in named.items()}, generation, config]
    eos = _numbers(files[0].get("eos_token_id"))
    stops = tuple(dict.fromkeys([*(_listed("eos_token_id", generation, config)), *eos]))
    first = {name: next(iter(_listed(name, *files)), None) for name in ("bos_token_id", "pad_token_id")}
    return tokenizer, SpecialTokens(
        named, additional, first["bos_token_id"], next(iter([*eos, *stops]), None), first["pad_token_id"], stops,
        config, generation,
    )  # fmt: skip


def read_chat_template(store: ObjectStore) -> str | None:
    """The chat template in the folder `store`, if it has one; of several, the one that is named `default`.

    Files go before what tokenizer_config.json holds, as in transformers.

    Raises:
        SpecError: there are several, and none is the default; or a file that may hold it is no JSON.
        StorageError: the store cannot be read.
    """
    templates = dict(_template_files(store)) or _configured_templates(store)
    if not templates:
        return None
    others = sorted(templates.keys() - {_DEFAULT})
    if _DEFAULT not in templates:
        found = f"the chat templates {', '.join(others)}"
        remedy = f"name one of them so, or put it into {CHAT_TEMPLATE}"
        raise SpecError(explain(store.uri, found=found, allowed=f"one that is named {_DEFAULT}", remedy=remedy))
    if others:
        log.info("%s: of several chat templates the default is taken; there are also %s", store.uri, ", ".join(others))
    return templates[_DEFAULT]


def tokenizer_config(tokenizer: Tokenizer, special: SpecialTokens, context: int, chat: ChatFiles | None) -> Config:
    """The tokenizer_config.json of a model: its special tokens by name, and how it speaks.

    The end token becomes the one with which a turn ends, unless the model has stopped at that before, or the template
    itself writes another by that name.
    """
    named = dict(special.named)
    if chat is not None:
        stays = chat.end_of_turn in special.stops or "eos_token" in chat.template
        if not stays or "eos_token" not in named:
            named["eos_token"] = tokenizer.id_to_token(chat.end_of_turn) or ""
        named.setdefault("pad_token", named["eos_token"])
    config: Config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **named,
    }
    if special.additional:
        config["additional_special_tokens"] = list(special.additional)
    if chat is not None:
        # Older readers look for the template here. Texts in a batch are filled up in front, so that all end together.
        config |= {"chat_template": chat.template, "padding_side": "left"}
    return config


def generation_config(special: SpecialTokens, chat: ChatFiles | None) -> Config:
    """The generation_config.json of a model: that of the one it was made from, with a stop at the end of a turn."""
    stops = list(special.stops)
    if chat is not None and chat.end_of_turn not in stops:
        stops.append(chat.end_of_turn)
    config = {"bos_token_id": special.bos, **special.generation}
    if set(stops) != set(_numbers(config.get("eos_token_id"))):
        config["eos_token_id"] = stops if chat is not None else next(iter(stops), None)
    return {"eos_token_id": None, **config}


def read_json(store: ObjectStore, path: str) -> Config:
    """The object in a JSON file of the folder `store`.

    Raises:
        SpecError: there is none.
        StorageError: the store cannot be read; on the Hub, there is no such repository.
    """
    where, remedy = f"{store.uri}/{path}", "give a folder that transformers' save_pretrained or Kindling wrote"
    try:
        document = json.loads(store.get(path))
    except NoRepositoryError:
        raise
    except NotFoundError as error:
        raise SpecError(explain(where, found="no such file", allowed="a JSON object", remedy=remedy)) from error
    except ValueError as error:
        raise SpecError(explain(where, found=error, allowed="a JSON object", remedy=remedy)) from error
    if not isinstance(document, dict):
        raise SpecError(explain(where, found=type(document).__name__, allowed="a JSON object", remedy=remedy))
    return document


def _tokenizer(store: ObjectStore) -> Tokenizer:
    where = f"{store.uri}/{TOKENIZER}"
    allowed, remedy = "a tokenizer in the form of the tokenizers library", "export the model again"
    try:
        return Tokenizer.from_str(store.get(TOKENIZER).decode())
    except NotFoundError as error:
        raise SpecError(explain(where, found="no such file", allowed=allowed, remedy=remedy)) from error
    except Exception as error:  # the library raises Exception itself
        raise SpecError(explain(where, found=error, allowed=allowed, remedy=remedy)) from error


def _check_rows(store: ObjectStore, tokenizer: Tokenizer, config: Config) -> None:
    """Refuse a tokenizer that makes tokens of plain text that the model has never had an embedding for.

    Special tokens may lie beyond: nobody writes them unawares, and models are published so (Gemma 3's of 1B has one).
    """
    rows, special = config.get("vocab_size"), _special(tokenizer)
    if not isinstance(rows, int):
        return
    tokens = tokenizer.get_vocab(with_added_tokens=True)
    beyond = sorted((number, token) for token, number in tokens.items() if number >= rows and token not in special)
    if beyond:
        (first, token), more = beyond[0], f", and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        raise SpecError(
            explain(
                f"{store.uri}/{TOKENIZER}",
                found=f"{token!r}, which is token {first}{more}",
                allowed=f"tokens below {rows}, the rows of the embedding (vocab_size in {CONFIG})",
                remedy="save the model again after resize_token_embeddings, or take these tokens out of its files",
            )
        )


def _special(tokenizer: Tokenizer) -> set[str]:
    return {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}


def _named(store: ObjectStore) -> Config:
    """The fields of tokenizer_config.json, and those of special_tokens_map.json where they count."""
    fields = read_json(store, TOKENIZER_CONFIG) if store.exists(TOKENIZER_CONFIG) else {}
    if "added_tokens_decoder" in fields or not store.exists(SPECIAL_TOKENS_MAP):
        return fields
    return fields | read_json(store, SPECIAL_TOKENS_MAP)


def _additional(fields: Config) -> list[Any]:
    given = fields.get("extra_special_tokens") or fields.get("additional_special_tokens") or []
    return list(given.values() if isinstance(given, Mapping) else given)


def _text(token: Any) -> str | None:
    """A token as its text, or as the object that older files have for it."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _added(fields: Mapping[str, Any]) -> AddedToken:
    known = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(fields["content"], **{name: fields[name] for name in known if name in fields})


def _numbers(value: Any) -> list[int]:
    """A number of a token, a list of them, or none."""
    return [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]


def _listed(field: str, *files: Config) -> list[int]:
    """The numbers in the first of some files that has any in a field."""
    return next((found for fields in files if (found := _numbers(fields.get(field)))), [])


def _template_files(store: ObjectStore) -> Iterator[tuple[str, str]]:
    if store.exists(CHAT_TEMPLATE):
        yield _DEFAULT, store.get(CHAT_TEMPLATE).decode()
    for entry in store.list(CHAT_TEMPLATES):
        name = entry.path.removeprefix(CHAT_TEMPLATES)
        if "/" not in name and name.endswith(".jinja"):
            yield name.removesuffix(".jinja"), store.get(entry.path).decode()


def _configured_templates(store: ObjectStore) -> dict[str, str]:
    given = read_json(store, TOKENIZER_CONFIG).get("chat_template") if store.exists(TOKENIZER_CONFIG) else None
    if isinstance(given, str):
        return {_DEFAULT: given}
    if not given:
        return {}
    try:
        return {str(one["name"]): str(one["template"]) for one in given}
    except (TypeError, KeyError) as error:
        where, allowed = f"{store.uri}/{TOKENIZER_CONFIG}: chat_template", "a text, or a list of names and templates"
        raise SpecError(explain(where, found=given, allowed=allowed, remedy="correct the file")) from error
