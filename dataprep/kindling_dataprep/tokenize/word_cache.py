"""Tokens by a table of words: a tokenizer that splits as GPT-2, Llama 3 or Qwen 2 sees each word once; its are the ids.

The library encodes some 1.5 MB/s on a core, nearly all of it spent on splitting and on keeping offsets; a text of
10 MB has 60,000 words in 2.8 million places. Here `re` finds the words, and the library encodes those that are new.

`re` knows no classes of Unicode, and the library's version of Unicode is its own. So only what stands among ASCII is
split to the end. A run of characters that are no white space is left whole from where the first word that touches one
beyond ASCII begins: no word of GPT-2's extends over its end, since white space is only ever first in a word that is no
white space. The library splits such a run, as it would within its text. Llama 3's punctuation takes the line ends that
follow; its run goes on to the last line end of the white space behind it, after which a word always begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

MOST = 1 << 21
"""Words and their tokens that are remembered, together: some 200 MB. Beyond, the table is begun anew."""

_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, which is `\\s` for the library; Python's has U+001C to U+001F besides."""
_AMONG_ASCII = rf"(?![^\x00-\x7f{_SPACE}])"
_PUNCTUATION = r"\x00-\x08\x0e-\x1f!-/:-@\[-`{-\x7f"
_GPT2 = re.compile(
    rf" ?[A-Za-z]++{_AMONG_ASCII}"
    r"|'(?:[sdmt]|ll|ve|re)"
    rf"| ?[0-9]++{_AMONG_ASCII}"
    rf"| ?[{_PUNCTUATION}]++{_AMONG_ASCII}"
    rf"| ?[^{_SPACE}]+"
    rf"|[{_SPACE}]+(?![^{_SPACE}])"
    rf"|[{_SPACE}]"
)
"""GPT-2's pattern, `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`, for ASCII."""

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of Llama 3 (`pat_str` in its tokenizer.py), and of GPT-4 before it (cl100k_base)."""

QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
"""The pattern of Qwen 2 (its tokenizer.json): each digit is a word."""

_BEFORE_LETTERS = rf"(?![\r\n])[{_PUNCTUATION}{_SPACE}]"
_TO_A_LINE_END = rf"(?:[{_SPACE}]*[\r\n])?"
_LLAMA3 = re.compile(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
    rf"|(?:{_BEFORE_LETTERS})?[A-Za-z]++{_AMONG_ASCII}"
    rf"|(?:{_BEFORE_LETTERS})?[A-Za-z]*+[^\x00-\x7f{_SPACE}][^{_SPACE}]*+{_TO_A_LINE_END}"
    rf"|[0-9]{{3}}|[0-9]++{_AMONG_ASCII}"
    rf"| ?[{_PUNCTUATION}]++{_AMONG_ASCII}[\r\n]*+"
    rf"|(?: (?=[{_PUNCTUATION}]))?[^{_SPACE}]++{_TO_A_LINE_END}"
    rf"|[{_SPACE}]*[\r\n]"
    rf"|[{_SPACE}]+(?![^{_SPACE}])"
    rf"|[{_SPACE}]"
)
_QWEN2 = re.compile(_LLAMA3.pattern.replace(rf"[0-9]{{3}}|[0-9]++{_AMONG_ASCII}", "[0-9]"))
"""LLAMA3 and QWEN2 for ASCII. The alternatives that end in `_TO_A_LINE_END` are the runs that the library splits."""


class WordCache:
    """Encodes texts as `tokenizer` does, word by word.

    Args:
        tokenizer: What encodes words.
        words: What finds them, of `words_of`.
    """

    def __init__(self, tokenizer: Tokenizer, words: re.Pattern[str]) -> None:
        self._tokenizer, self._words = tokenizer, words
        self._forget()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The token ids of each text.

        Raises:
            Exception: the tokenizer has no token for something in a text (the library raises Exception itself).
        """
        if len(self._numbers) + len(self._tokens) > MOST:
            self._forget()
        known, number_of = len(self._numbers), self._numbers.__getitem__
        texts_in_words = [np.fromiter(map(number_of, self._words.findall(text)), np.int64) for text in texts]
        try:
            self._learn(list(islice(self._numbers, known, None)))
        except Exception:
            self._forget()
            raise
        return [self._tokens_of(words) for words in texts_in_words]

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._tokens = np.empty(0, np.int32)
        """The tokens of all words, one word after the other."""
        self._ends = np.empty(0, np.int64)
        """[words] Where those of each end."""

    def _learn(self, words: list[str]) -> None:
        new = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(words, add_special_tokens=False)]
        ends = len(self._tokens) + np.cumsum([len(ids) for ids in new], dtype=np.int64)
        self._ends = np.concatenate([self._ends, ends])
        self._tokens = np.concatenate([self._tokens, np.array([id for ids in new for id in ids], dtype=np.int32)])
        self._lengths = np.diff(self._ends, prepend=0)

    def _tokens_of(self, words: NDArray[np.int64]) -> NDArray[np.int32]:
        lengths = self._lengths[words]
        shifts = self._ends[words] - np.cumsum(lengths)  # from a token's place in the text to that in the table
        places = np.repeat(shifts, lengths) + np.arange(lengths.sum())
        tokens: NDArray[np.int32] = self._tokens[places]
        return tokens


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


def words_of(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """What finds the words of a text if it is encoded as those are, each on its own; None where that is not known.

    Special tokens are not looked for in texts (`encode_special_tokens`); other added ones would be.
    """
    file = json.loads(tokenizer.to_str())
    word_by_word = (
        file["normalizer"] is None
        and file["truncation"] is None
        and file["padding"] is None
        and not file["model"].get("dropout")
        and all(token["special"] for token in file["added_tokens"])
    )
    return _pattern_of(file["pre_tokenizer"]) if word_by_word else None


def _pattern_of(splitter: object) -> re.Pattern[str] | None:
    match splitter:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return _GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return {LLAMA3: _LLAMA3, QWEN2: _QWEN2}.get(pattern)
    return None
