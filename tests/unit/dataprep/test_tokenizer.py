"""Every tokenizer is a file that the `tokenizers` library loads, with the ids that we write into shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.errors import DataError, SpecError
from kindling_dataprep import tokenizer
from kindling_storage import open_store

TEXTS = ["The cat sat.\n\tOn the mat\n", "naïve 東京 🚀 <|endoftext|> done", "", "the the the\r\n"]


@pytest.fixture(scope="module", params=["bpe", "char", "byte"])
def encoder(request: pytest.FixtureRequest) -> tokenizer.TextEncoder:
    """Each kind in turn, made from TEXTS."""
    made = {
        "bpe": lambda: tokenizer.train_bpe([TEXTS], 300),
        "char": lambda: tokenizer.characters([TEXTS]),
        "byte": tokenizer.of_bytes,
    }[request.param]()
    return tokenizer.load(made.to_bytes(), made.kind)


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
    one = tokenizer.train_bpe([TEXTS * 5], 300)
    many = tokenizer.train_bpe([[text] for text in TEXTS * 5], 300)
    assert one.to_bytes() == many.to_bytes()


def test_characters_are_numbered_in_the_order_of_code_points() -> None:
    assert tokenizer.characters([["cab", "b\n"]]).tokenizer.get_vocab() == {"\n": 0, "a": 1, "b": 2, "c": 3}


def test_an_unseen_character_is_named() -> None:
    with pytest.raises(DataError, match=r"no token for the character '€' \(U\+20AC\)"):
        tokenizer.characters([["ab"]]).encode(["a", "ab€b"])


def test_a_tokenizer_without_an_unknown_token_refuses_what_it_has_no_token_for() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(DataError) as caught:
        tokenizer.load(words.to_str().encode(), "other").encode(["a b", "a c"])
    assert str(caught.value) == (
        "found WordLevel error: Missing [UNK] token from the vocabulary; allowed: texts that the tokenizer has tokens "
        "for. To fix it: use a tokenizer that falls back to bytes or to an unknown token, or leave such documents out."
    )


@pytest.mark.parametrize("place", ["tokenizer.json", ""], ids=["the file", "its folder"])
def test_an_existing_tokenizer_is_found(tmp_path: Path, place: str) -> None:
    made = tokenizer.train_bpe([TEXTS], 300)
    (tmp_path / "tokenizer.json").write_bytes(made.to_bytes())
    fetched = tokenizer.fetch(str(tmp_path / place), open_store)
    assert tokenizer.load(fetched, "other").end_of_document == made.end_of_document


def test_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        tokenizer.fetch(str(tmp_path), open_store)
    assert str(caught.value) == (
        f"spec.tokenizer.from.uri: found nothing at {tmp_path}; allowed: a tokenizer.json, or a Hugging Face folder "
        "that holds one. To fix it: correct the URI."
    )


def test_a_file_that_is_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SpecError, match="that is no tokenizer"):
        tokenizer.fetch(str(tmp_path), open_store)
