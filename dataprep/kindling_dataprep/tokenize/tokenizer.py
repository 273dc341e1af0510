"""How text becomes tokens: trained, taken from elsewhere, one a character, or one a byte.

Whatever the kind, the tokenizer is kept as a `tokenizer.json` that the `tokenizers` library loads, with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from kindling_api.errors import DataError, finding
from kindling_api.v1alpha1.dataset_build import END_OF_DOCUMENT, TrainTokenizer
from kindling_api.v1alpha1.dataset_build import Tokenizer as TokenizerSpec
from kindling_api.v1alpha1.products import TokenizerKind
from kindling_dataprep.tokenize.pretrained import Existing
from kindling_dataprep.tokenize.word_cache import LLAMA3, QWEN2, WordCache, words_of

LONGEST_WORD = 1024
"""Bytes of a word that merges are learned from together. A merge costs as much as the words that hold it are long, and
DNA, or Chinese without punctuation, is one word; Llama 3's own tokenizer cuts such runs for that reason when it encodes
(`MAX_NO_WHITESPACES_CHARS`, 25,000, in its tokenizer.py)."""

_PATTERNS = {"gpt4": LLAMA3, "llama3": LLAMA3, "qwen2": QWEN2}
"""By the name of the splitting; GPT-2's is built into the library."""


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer ready for use."""

    kind: TokenizerKind
    tokenizer: Tokenizer
    end_of_document: int | None
    """The token that ends each document; None where there is none, and then nothing is appended."""

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    def to_bytes(self) -> bytes:
        """The content of tokenizer.json."""
        return self.tokenizer.to_str(pretty=True).encode()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, with the end-of-document token where there is one.

        Raises:
            DataError: the tokenizer has no token for something in a text.
        """
        end = [] if self.end_of_document is None else [self.end_of_document]
        if self.kind == "char":
            return self._encode_characters(texts)
        if self.kind == "byte":
            return [np.append(np.frombuffer(text.encode(), np.uint8).astype(np.int32), end[0]) for text in texts]
        # `encode_special_tokens`: a text that happens to contain "<|endoftext|>" does not end there.
        self.tokenizer.encode_special_tokens = True
        try:
            if self._words is not None:
                return [np.concatenate([ids, np.array(end, np.int32)]) for ids in self._words.encode(texts)]
            encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # the library raises Exception itself
            raise _no_token(str(error)) from error
        return [np.array(encoding.ids + end, dtype=np.int32) for encoding in encodings]

    @cached_property
    def _words(self) -> WordCache | None:
        words = words_of(self.tokenizer)
        return WordCache(self.tokenizer, words) if words is not None else None

    def _encode_characters(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The ids that `tokenizer` gives, by a table from code point to id: some 100 times as fast."""
        table = np.full(0x110000, -1, dtype=np.int32)
        for character, number in self.tokenizer.get_vocab().items():
            table[ord(character)] = number
        encoded = [table[np.frombuffer(text.encode("utf-32-le"), np.uint32)] for text in texts]
        for text, ids in zip(texts, encoded, strict=True):
            if (ids < 0).any():
                character = text[int(np.argmin(ids))]
                raise _no_token(f"no token for the character {character!r} (U+{ord(character):04X})")
        return encoded


def _no_token(found: str) -> DataError:
    """The error for a text that cannot be encoded; which text it is, the caller says."""
    remedy = "use a tokenizer that falls back to bytes or to an unknown token, or leave such documents out"
    return DataError(finding(found=found, allowed="texts that the tokenizer has tokens for", remedy=remedy))


def make(spec: TokenizerSpec, texts: Iterable[Sequence[str]], existing: Existing | None) -> TextEncoder:
    """The tokenizer that `spec` asks for: trained on batches of `texts`, or the `existing` one."""
    if spec.train is not None:
        return train_bpe(texts, spec.train)
    if spec.char is not None:
        return characters(texts)
    if spec.byte is not None:
        return of_bytes()
    assert existing is not None, "the caller fetches what `from` names"
    return load(existing.file, "other", existing.end_of_document)


def load(data: bytes, kind: TokenizerKind, end_of_document: int | None) -> TextEncoder:
    """The tokenizer in the bytes of a tokenizer.json."""
    tokenizer = Tokenizer.from_str(data.decode())
    tokenizer.no_truncation()  # which some files ask for, but documents are kept whole
    tokenizer.no_padding()
    return TextEncoder(kind, tokenizer, end_of_document)


def train_bpe(texts: Iterable[Sequence[str]], spec: TrainTokenizer) -> TextEncoder:
    """Byte-level BPE (Radford et al. 2019, section 2.2): 256 bytes, the special tokens, merges within words.

    The result does not depend on how the texts are cut into batches. It has fewer than `spec.vocab_size` tokens where
    the texts hold too few distinct words.
    """
    tokenizer = Tokenizer(models.BPE())
    words = _splitting(spec.split)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.FixedLength(LONGEST_WORD)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[END_OF_DOCUMENT, *spec.special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((list(batch) for batch in texts), trainer)
    tokenizer.pre_tokenizer = words[0] if len(words) == 1 else pre_tokenizers.Sequence(words)
    return TextEncoder("bpe", tokenizer, tokenizer.token_to_id(END_OF_DOCUMENT))


def _splitting(name: str) -> list[pre_tokenizers.PreTokenizer]:
    """What cuts a text into words of byte-level characters."""
    if name not in _PATTERNS:
        return [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    split = pre_tokenizers.Split(Regex(_PATTERNS[name]), "isolated")
    return [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def characters(texts: Iterable[Sequence[str]]) -> TextEncoder:
    """One token for each character that occurs, in the order of code points; no end-of-document token."""
    found: set[str] = set()
    for batch in texts:
        found.update(*batch)
    tokenizer = Tokenizer(models.WordLevel({character: number for number, character in enumerate(sorted(found))}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")  # in Oniguruma, (?m) lets . match \n
    tokenizer.decoder = decoders.Fuse()
    return TextEncoder("char", tokenizer, None)


def of_bytes() -> TextEncoder:
    """Token b is byte b, and 256 ends a document."""
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_DOCUMENT])
    return TextEncoder("byte", tokenizer, tokenizer.token_to_id(END_OF_DOCUMENT))


def byte_characters() -> Iterator[str]:
    """The printable character that stands for each byte in GPT-2's byte-level form.

    Bytes that print as themselves in Latin-1 stand for themselves; the others are numbered on from U+0100.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = 0
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(0x100 + others)
            others += 1
