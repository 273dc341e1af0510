"""Words that were seen before get the ids that the `tokenizers` library gives their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from kindling_dataprep import tokenizer, word_cache
from kindling_dataprep.word_cache import WordCache, splits_like_gpt2

PROSE = (
    "It's the cat's 1st nap; they'll see -- 3.14 naïve cafés, we've 12 of x1y2's.\n\n\tif (a != b) { return; }  \r\n"
)
NASTY = " '\t\n\r\x0b\x1c\x1f\x85\xa0\u2003\u200b\u3000sdtmlver19é—¿東🚀٣²Ⅷ\u0301\x00\x7f.,<|>"
"""White space that is and is not Python's, contractions, numbers that are no digits, and marks."""


@pytest.fixture(scope="module")
def library() -> Tokenizer:
    """Byte-level BPE with merges in and beyond ASCII."""
    trained = tokenizer.train_bpe([[PROSE, "東京 東京 é's é's \u3000\u3000 \xa0\xa0"] * 3], 400).tokenizer
    trained.encode_special_tokens = True
    return trained


@pytest.fixture(scope="module")
def cache(library: Tokenizer) -> WordCache:
    """One for all texts, as in a worker."""
    return WordCache(library)


def ids(encoded: Sequence[Any]) -> list[list[int]]:
    return [list(one) for one in encoded]


def by_library(library: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in library.encode_batch_fast(list(texts), add_special_tokens=False)]


@given(st.lists(st.text(st.sampled_from(NASTY), max_size=30) | st.text(st.characters(exclude_categories=["Cs"]))))
@example([PROSE, "", "é's 'sé \u3000a  é \xa0\n 's''s x—y\xa0z \n\té", "<|endoftext|>"])
def test_ids_are_those_of_the_library(library: Tokenizer, cache: WordCache, texts: list[str]) -> None:
    assert ids(cache.encode(texts)) == by_library(library, texts)


def test_every_character_splits_as_in_the_library_through_the_last_white_space(
    library: Tokenizer, cache: WordCache
) -> None:
    texts = ["".join(_beside_others(code, code + 256)) for code in range(0, 0x3100, 256)]
    assert ids(cache.encode(texts)) == by_library(library, texts)


def _beside_others(first: int, last: int) -> Iterator[str]:
    for character in map(chr, range(first, last)):
        yield f"a{character}b {character}1{character} .{character}  {character}'s{character}\n{character} "


def test_a_full_table_is_begun_anew(library: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "MOST", 10)
    cache = WordCache(library)
    for text in (PROSE, "东 other words", PROSE):
        assert ids(cache.encode([text])) == by_library(library, [text])
    assert len(cache._numbers) == len(set(word_cache._WORD.findall(PROSE)))


def test_a_refusal_leaves_no_words_without_tokens() -> None:
    refusing = Tokenizer(models.WordLevel({"a": 0}, unk_token="none"))
    refusing.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cache = WordCache(refusing)
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)unk"):
            cache.encode(["ab"])
    assert ids(cache.encode(["a"])) == [[0]]


OTHERS = {
    "another splitter": {"pre_tokenizer": pre_tokenizers.Whitespace()},
    "a space in front": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
    "no splitting": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
    "a normalizer": {"normalizer": normalizers.NFC()},
    "dropout": {"model": models.BPE(dropout=0.5)},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_words_are_not_those_of_other_tokenizers(library: Tokenizer, changes: dict[str, Any]) -> None:
    other = Tokenizer.from_str(library.to_str())
    assert splits_like_gpt2(other)
    for name, value in changes.items():
        setattr(other, name, value)
    assert not splits_like_gpt2(other)


def test_tokens_added_to_the_vocabulary_are_found_in_texts_and_not_in_words(library: Tokenizer) -> None:
    other = Tokenizer.from_str(library.to_str())
    other.add_tokens([AddedToken("the cat")])
    assert not splits_like_gpt2(other)
