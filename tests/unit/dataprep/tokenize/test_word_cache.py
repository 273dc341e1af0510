"""Words that were seen before get the ids that the `tokenizers` library gives their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from kindling_dataprep.tokenize import tokenizer, word_cache
from kindling_dataprep.tokenize.word_cache import LLAMA3, QWEN2, WordCache, words_of

PROSE = (
    "It's the cat's 1st nap; they'll see -- 3.14 naïve cafés, we've 12 of x1y2's.\n\n\tif (a != b) { return; }  \r\n"
)
NASTY = " '\t\n\r\x0b\x1c\x1f\x85\xa0\u2003\u200b\u3000sſSdtmlLver19é—¿東🚀٣²Ⅷ\u0301\x00\x7f.,<|>"
"""White space that is and is not Python's, contractions, numbers that are no digits, and marks."""
TEXTS = [PROSE, "東京 東京 é's é's \u3000\u3000 \xa0\xa0", "It'S é.\n\n \n\tetc!\r\n—\r\n\n 12345 1² (é) \n x"]


def by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


SPLITTERS: dict[str, pre_tokenizers.PreTokenizer] = {
    "GPT-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "Llama 3": by_pattern(LLAMA3),
    "Qwen 2": by_pattern(QWEN2),
}


@pytest.fixture(scope="module", params=SPLITTERS.values(), ids=SPLITTERS)
def library(request: pytest.FixtureRequest) -> Tokenizer:
    """Byte-level BPE with merges in and beyond ASCII."""
    trained = Tokenizer(models.BPE(ignore_merges=True))
    trained.pre_tokenizer = request.param
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    trained.add_special_tokens([tokenizer.END_OF_DOCUMENT])
    trained.encode_special_tokens = True
    return trained


def cache_of(library: Tokenizer) -> WordCache:
    words = words_of(library)
    assert words is not None
    return WordCache(library, words)


@pytest.fixture(scope="module")
def cache(library: Tokenizer) -> WordCache:
    """One for all texts, as in a worker."""
    return cache_of(library)


def ids(encoded: Sequence[Any]) -> list[list[int]]:
    return [list(one) for one in encoded]


def by_library(library: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in library.encode_batch_fast(list(texts), add_special_tokens=False)]


@given(st.lists(st.text(st.sampled_from(NASTY), max_size=30) | st.text(st.characters(exclude_categories=["Cs"]))))
@example([*TEXTS, "", "é's 'sé \u3000a  é \xa0\n 's''s x—y\xa0z \n\té", "<|endoftext|>"])
def test_ids_are_those_of_the_library(library: Tokenizer, cache: WordCache, texts: list[str]) -> None:
    assert ids(cache.encode(texts)) == by_library(library, texts)


@pytest.mark.slow
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
    cache = cache_of(library)
    for text in (PROSE, "东 other words", PROSE):
        assert ids(cache.encode([text])) == by_library(library, [text])
    assert len(cache._numbers) == len(set(cache._words.findall(PROSE)))


def test_a_refusal_leaves_no_words_without_tokens() -> None:
    refusing = Tokenizer(models.WordLevel({"a": 0}, unk_token="none"))
    refusing.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cache = cache_of(refusing)
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)unk"):
            cache.encode(["ab"])
    assert ids(cache.encode(["a"])) == [[0]]


OTHERS = {
    "another splitter": {"pre_tokenizer": pre_tokenizers.Whitespace()},
    "a space in front": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
    "no splitting": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
    "another pattern": {"pre_tokenizer": by_pattern(LLAMA3.replace("{1,3}", "+"))},
    "a normalizer": {"normalizer": normalizers.NFC()},
    "dropout": {"model": models.BPE(dropout=0.5)},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_words_are_not_those_of_other_tokenizers(library: Tokenizer, changes: dict[str, Any]) -> None:
    other = Tokenizer.from_str(library.to_str())
    assert words_of(other) is not None
    for name, value in changes.items():
        setattr(other, name, value)
    assert words_of(other) is None


def test_tokens_added_to_the_vocabulary_are_found_in_texts_and_not_in_words(library: Tokenizer) -> None:
    other = Tokenizer.from_str(library.to_str())
    other.add_tokens([AddedToken("the cat")])
    assert words_of(other) is None
