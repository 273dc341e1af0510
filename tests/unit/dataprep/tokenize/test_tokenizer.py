"""Every tokenizer is a file that the `tokenizers` library loads, with the ids that we write into shards."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.dataset_build import TokenizerFrom, TrainTokenizer
from kindling_dataprep.tokenize import tokenizer
from kindling_dataprep.tokenize.pretrained import Existing, fetch
from kindling_storage import open_store

TEXTS = ["The cat sat.\n\tOn the mat\n", "naïve 東京 🚀 <|endoftext|> done", "", "the the the\r\n"]
SMALL = TrainTokenizer(vocab_size=300)


@pytest.fixture(scope="module", params=["bpe", "char", "byte"])
def encoder(request: pytest.FixtureRequest) -> tokenizer.TextEncoder:
    """Each kind in turn, made from TEXTS."""
    made = {
        "bpe": lambda: tokenizer.train_bpe([TEXTS], SMALL),
        "char": lambda: tokenizer.characters([TEXTS]),
        "byte": tokenizer.of_bytes,
    }[request.param]()
    return tokenizer.load(made.to_bytes(), made.kind, made.end_of_document)


def test_ids_are_those_of_the_library(encoder: tokenizer.TextEncoder) -> None:
    library = Tokenizer.from_str(encoder.to_bytes().decode())
    library.encode_special_tokens = True
    for text, ids in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        end = [] if encoder.end_of_document is None else [encoder.end_of_document]
        assert ids.tolist() == library.encode(text, add_special_tokens=False).ids + end


def test_texts_come_back_from_their_ids(encoder: tokenizer.TextEncoder) -> None:
    library = Tokenizer.from_str(encoder.to_bytes().decode())
    for text, ids in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        body = ids.tolist()[: None if encoder.end_of_document is None else -1]
        assert library.decode(body, skip_special_tokens=False) == text


def test_the_text_of_the_end_token_is_not_the_end_token(encoder: tokenizer.TextEncoder) -> None:
    (ids,) = encoder.encode(["a <|endoftext|> d"])
    if encoder.end_of_document is not None:
        assert ids.tolist().count(encoder.end_of_document) == 1


def test_ids_are_below_the_vocabulary_size(encoder: tokenizer.TextEncoder) -> None:
    assert max(ids.max(initial=0) for ids in encoder.encode(TEXTS)) < encoder.vocab_size


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_bytes(text: str) -> None:
    encoder = tokenizer.of_bytes()
    (ids,) = encoder.encode([text])
    assert ids.tolist() == [*text.encode(), 256]
    assert encoder.tokenizer.decode(ids.tolist()[:-1]) == text


def test_training_does_not_depend_on_the_batches() -> None:
    one = tokenizer.train_bpe([TEXTS * 5], SMALL)
    many = tokenizer.train_bpe([[text] for text in TEXTS * 5], SMALL)
    assert one.to_bytes() == many.to_bytes()


NUMBERS_AND_SPACES = ["in 2024 2024 x   y   z\n\n"] * 20


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("gpt2", ["in", " 2024", " 2024", " x", "  ", " y"]),
        ("gpt4", ["in", " ", "202", "4", " ", "202", "4", " x", "  ", " y"]),
        ("llama3", ["in", " ", "202", "4", " ", "202", "4", " x", "  ", " y"]),
        ("qwen2", ["in", " ", *"2024", " ", *"2024", " x", "  ", " y"]),
    ],
)
def test_digits_and_spaces_are_merged_as_the_named_tokenizer_splits_them(split: Any, pieces: list[str]) -> None:
    made = tokenizer.train_bpe([NUMBERS_AND_SPACES], TrainTokenizer(vocab_size=300, split=split))
    (ids,) = tokenizer.load(made.to_bytes(), "bpe", made.end_of_document).encode(["in 2024 2024 x   y"])
    assert [made.tokenizer.decode([number]) for number in ids[:-1]] == pieces


def test_own_special_tokens_follow_the_end_of_document_and_are_found_in_no_text() -> None:
    spec = TrainTokenizer(vocab_size=300, special_tokens=("<|im_start|>", "<|im_end|>"))
    made = tokenizer.train_bpe([["<|im_start|>"] * 9], spec)
    library = Tokenizer.from_str(made.to_bytes().decode())
    assert [library.token_to_id(token) for token in ("<|endoftext|>", *spec.special_tokens)] == [0, 1, 2]
    assert library.encode("<|im_start|>a").ids[0] == 1
    assert not {1, 2} & set(made.encode(["<|im_start|>"])[0].tolist())


def test_a_word_without_end_is_learned_from_in_pieces_and_encoded_whole() -> None:
    dna = "".join(random.Random(1).choices("ACGT", k=200_000))
    made = tokenizer.train_bpe([[dna]], TrainTokenizer(vocab_size=2000))
    assert made.vocab_size == 2000
    plain = json.loads(made.to_bytes())["pre_tokenizer"]
    assert plain == {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (ids,) = made.encode([dna[:10_000]])
    assert made.tokenizer.decode(ids.tolist()[:-1]) == dna[:10_000]


def test_characters_are_numbered_in_the_order_of_code_points() -> None:
    assert tokenizer.characters([["cab", "b\n"]]).tokenizer.get_vocab() == {"\n": 0, "a": 1, "b": 2, "c": 3}


def test_an_unseen_character_is_named() -> None:
    with pytest.raises(DataError, match=r"no token for the character '€' \(U\+20AC\)"):
        tokenizer.characters([["ab"]]).encode(["a", "ab€b"])


def test_a_tokenizer_without_an_unknown_token_refuses_what_it_has_no_token_for() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(DataError) as caught:
        tokenizer.load(words.to_str().encode(), "other", None).encode(["a b", "a c"])
    assert str(caught.value) == (
        "found WordLevel error: Missing [UNK] token from the vocabulary; allowed: texts that the tokenizer has tokens "
        "for. To fix it: use a tokenizer that falls back to bytes or to an unknown token, or leave such documents out."
    )


@pytest.mark.parametrize("place", ["tokenizer.json", ""], ids=["the file", "its folder"])
def test_an_existing_tokenizer_is_found(tmp_path: Path, place: str) -> None:
    made = tokenizer.train_bpe([TEXTS], SMALL)
    (tmp_path / "tokenizer.json").write_bytes(made.to_bytes())
    fetched = fetch(TokenizerFrom(uri=str(tmp_path / place)), open_store)
    assert fetched == Existing(made.to_bytes(), made.end_of_document)


def test_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        fetch(TokenizerFrom(uri=str(tmp_path)), open_store)
    assert str(caught.value) == (
        f"spec.tokenizer.from.uri: found nothing at {tmp_path}; allowed: a tokenizer.json, or a Hugging Face folder "
        "that holds one. To fix it: correct the URI."
    )


def test_a_file_that_is_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SpecError, match="that is no tokenizer"):
        fetch(TokenizerFrom(uri=str(tmp_path)), open_store)


EOS = {"tokenizer_config.json": {"eos_token": "<own>"}, "special_tokens_map.json": {"eos_token": {"content": "<map>"}}}
NUMBERS = {"config.json": {"eos_token_id": 3}, "generation_config.json": {"eos_token_id": [4, 3]}}


@pytest.mark.parametrize(
    ("files", "asked", "expected"),
    [
        (EOS | NUMBERS, "[SEP]", "[SEP]"),
        (EOS | NUMBERS, None, "<own>"),
        ({"tokenizer_config.json": {"eos_token": {"__type": "AddedToken", "content": "<own>"}}}, None, "<own>"),
        ({"tokenizer_config.json": {"eos_token": "<not there>"}, **NUMBERS}, None, "<number>"),
        ({**EOS, "tokenizer_config.json": []}, None, "<map>"),
        (NUMBERS, None, "<number>"),
        ({"generation_config.json": NUMBERS["generation_config.json"]}, None, "[SEP]"),
        ({"config.json": {"eos_token_id": 99}}, None, "[SEP]"),
        ({}, None, "[SEP]"),
    ],
    ids=["spec", "config", "as an object", "unknown name", "map", "number", "numbers", "unknown number", "usual name"],
)
def test_a_document_ends_as_the_tokenizers_own_files_say(
    tmp_path: Path, files: dict[str, object], asked: str | None, expected: str
) -> None:
    words = Tokenizer(models.WordLevel({"a": 0}))
    words.add_special_tokens(["<own>", "<map>", "<number>", "[SEP]"])
    (tmp_path / "tokenizer.json").write_text(words.to_str())
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = fetch(TokenizerFrom(uri=str(tmp_path), end_of_document=asked), open_store)
    assert words.id_to_token(found.end_of_document) == expected
    (ids,) = tokenizer.load(found.file, "other", found.end_of_document).encode(["a"])
    assert ids.tolist() == [0, found.end_of_document]


@pytest.mark.parametrize("asked", [None, "<end>"])
def test_where_no_token_is_known_to_end_a_document_the_field_that_names_it_is_told(
    tmp_path: Path, asked: str | None
) -> None:
    words = Tokenizer(models.WordLevel({"a": 0}))
    words.add_special_tokens(["<|im_start|>"])
    (tmp_path / "tokenizer.json").write_text(words.to_str())
    with pytest.raises(SpecError, match=r"^spec\.tokenizer\.from\.endOfDocument: found .* name the token that ends"):
        fetch(TokenizerFrom(uri=str(tmp_path), end_of_document=asked), open_store)
