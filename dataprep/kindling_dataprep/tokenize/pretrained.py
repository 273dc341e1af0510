"""A tokenizer that somebody else made: its file, and the token that ends a document, as its own files name it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.dataset_build import END_OF_DOCUMENT, TokenizerFrom
from kindling_api.v1alpha1.products import TOKENIZER
from kindling_storage import ObjectStore

USUAL_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "<|eot|>", "</s>", "<eos>", "[EOS]", "[SEP]")
"""Names of the token that ends a document, GPT-2's first; taken where no file names one."""

_BY_NAME = ("tokenizer_config.json", "special_tokens_map.json")
"""Files of a Hugging Face folder with `eos_token`."""
_BY_NUMBER = ("config.json", "generation_config.json")
"""Files with `eos_token_id`."""

_WHERE = "spec.tokenizer.from"


@dataclass(frozen=True)
class Existing:
    """A tokenizer that exists."""

    file: bytes
    """The content of tokenizer.json."""
    end_of_document: int
    """The token that ends each document."""


def fetch(asked: TokenizerFrom, open_store: Callable[[str], ObjectStore]) -> Existing:
    """The tokenizer at a URI: the file itself, or in a Hugging Face folder. A path is one of this machine.

    Raises:
        SpecError: there is none, or it is no tokenizer, or which of its tokens ends a document is not known.
    """
    store, path = _find(asked.uri, open_store)
    data = store.get(path)
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises Exception itself
        found = f"a file at {asked.uri} that is no tokenizer ({error})"
        allowed, remedy = "a tokenizer.json, or a Hugging Face folder that holds one", "correct the URI"
        raise SpecError(explain(f"{_WHERE}.uri", found=found, allowed=allowed, remedy=remedy)) from error
    folder, _, _ = path.rpartition("/")
    return Existing(data, _end_of_document(asked, tokenizer, store.child(folder) if folder else store))


def _find(uri: str, open_store: Callable[[str], ObjectStore]) -> tuple[ObjectStore, str]:
    place = uri if "://" in uri else Path(uri).absolute().as_uri()
    folder, _, name = place.rstrip("/").rpartition("/")
    choices = [(place, TOKENIZER)]
    if name.endswith(".json"):
        choices.insert(0, (folder, name))
    for where, path in choices:
        store = open_store(where)
        if store.exists(path):
            return store, path
    allowed, remedy = "a tokenizer.json, or a Hugging Face folder that holds one", "correct the URI"
    raise SpecError(explain(f"{_WHERE}.uri", found=f"nothing at {uri}", allowed=allowed, remedy=remedy))


def _end_of_document(asked: TokenizerFrom, tokenizer: Tokenizer, store: ObjectStore) -> int:
    """The token that the spec names, or else the tokenizer's own files, or else the first with a usual name."""
    if asked.end_of_document is not None:
        number = tokenizer.token_to_id(asked.end_of_document)
        if number is None:
            raise _unknown(f"{asked.end_of_document!r}, which the tokenizer at {asked.uri} does not have")
        return int(number)
    for number in _named(tokenizer, store):
        return number
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    numbers = (tokenizer.token_to_id(name) for name in USUAL_ENDS if name in added)
    if (usual := next(numbers, None)) is None:
        raise _unknown(
            f"no token in the tokenizer at {asked.uri} that its files name as eos_token, nor one of a usual name"
        )
    return int(usual)


def _named(tokenizer: Tokenizer, store: ObjectStore) -> Iterator[int]:
    """The tokens that the files name, and that the tokenizer has."""
    for path in _BY_NAME:
        token = _fields(store, path).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and (number := tokenizer.token_to_id(token)) is not None:
            yield int(number)
    for path in _BY_NUMBER:
        found = _fields(store, path).get("eos_token_id")
        first = found[0] if isinstance(found, list) and found else found
        if isinstance(first, int) and not isinstance(first, bool) and _has(tokenizer, first):
            yield first


def _has(tokenizer: Tokenizer, number: int) -> bool:
    return 0 <= number < 1 << 32 and tokenizer.id_to_token(number) is not None


def _fields(store: ObjectStore, path: str) -> dict[str, Any]:
    """What is in a JSON file; nothing where there is none, or it is no object."""
    if not store.exists(path):
        return {}
    try:
        fields = json.loads(store.get(path))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _unknown(found: str) -> SpecError:
    remedy = f"name the token that ends a document in {_WHERE}.endOfDocument"
    return SpecError(explain(f"{_WHERE}.endOfDocument", found=found, allowed="a token of the tokenizer", remedy=remedy))
