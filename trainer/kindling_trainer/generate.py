"""A trained model continues a text, piece by piece.

One text at a time: prompts of different lengths in one batch would need a mask, and nobody asks for it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kindling_api.errors import SpecError, explain
from kindling_storage import ObjectStore, open_store
from kindling_trainer.checkpoint.huggingface import read_model, read_tokenizer
from kindling_trainer.models import Decoder
from kindling_trainer.models.cache import Cache, new_cache
from kindling_trainer.sampling import GenerationOptions, choose

INCOMPLETE = "�"  # what a decoder writes for bytes that are no character, or not one yet


@dataclass(frozen=True)
class Generator:
    """A model ready to continue texts."""

    model: Decoder
    """In evaluation mode."""
    tokenizer: Tokenizer
    end_of_document: int | None
    """The token that ends a text; None where the tokenizer has none."""

    def generate(self, prompt: str, options: GenerationOptions) -> Iterator[str]:
        """The continuation of `prompt`, without the prompt, in pieces that are whole characters.

        It can be longer than the model's context: see `continue_tokens`.

        Raises:
            SpecError: the tokenizer has no token for something in the prompt, or the prompt is empty and there is no
                end-of-document token to begin with.
        """
        tokens = continue_tokens(self.model, self._encode(prompt), options, self._limit())
        return decode_pieces(self.tokenizer, _until(tokens, self.end_of_document))

    def _encode(self, prompt: str) -> list[int]:
        try:
            tokens: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        except Exception as error:  # the library raises Exception itself
            allowed, remedy = "text that the model's tokenizer covers", "leave out characters the model never saw"
            raise SpecError(explain("prompt", found=f"{prompt!r} ({error})", allowed=allowed, remedy=remedy)) from error
        if not tokens and self.end_of_document is not None:
            return [self.end_of_document]  # a new document begins after the end of another
        if not tokens:
            raise SpecError(explain("prompt", found="no text", allowed="at least one character", remedy="give one"))
        return tokens

    def _limit(self) -> int:
        """One more than the highest token that can be decoded; a padded vocabulary is larger."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())


def load_model(source: ObjectStore | Path, device: torch.device | str = "cpu") -> Generator:
    """The model in a Hugging Face folder, ours or another's, in fp32.

    Raises:
        SpecError: the folder holds no model of a kind that Kindling has.
        StorageError: it cannot be read.
    """
    store = open_store(source.resolve().as_uri()) if isinstance(source, Path) else source
    model = read_model(store).to(device)
    tokenizer, end_of_document = read_tokenizer(store)
    return Generator(model, tokenizer, end_of_document)


def continue_tokens(
    model: Decoder, tokens: list[int], options: GenerationOptions, vocab_size: int | None = None
) -> Iterator[int]:
    """Up to `options.max_tokens` tokens that follow `tokens`, none of them `vocab_size` or above.

    When the context is full, the model goes on from the newest half of it, read anew: positions are absolute in the
    cache, so it cannot simply slide. A prompt longer than the context is cut to that half likewise.
    """
    device = model.embedding.weight.device
    cache = new_cache(model.shape, 1, device=device, dtype=model.embedding.weight.dtype)
    generator = torch.Generator()
    if options.seed is None:
        generator.seed()
    else:
        generator.manual_seed(options.seed)
    seen, unread = list(tokens), list(tokens)
    for _ in range(options.max_tokens):
        if cache[0].length + len(unread) > model.shape.context:
            for layer in cache:
                layer.clear()
            unread = seen[-(model.shape.context // 2) :]
        logits = _next_logits(model, unread, cache)[:vocab_size]
        token = choose(logits, seen, options, generator)
        yield token
        seen.append(token)
        unread = [token]


def decode_pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of `tokens` as they come, in pieces that never split a character.

    A token of a byte-level tokenizer can hold part of a character; its text is held back until the rest has come. A
    part left at the very end is not shown.
    """
    shown: list[int] = []  # the tokens of the last piece: some decoders look at what stands before
    held: list[int] = []
    for token in tokens:
        held.append(token)
        before, text = tokenizer.decode(shown), tokenizer.decode(shown + held)
        if not text.endswith(INCOMPLETE):
            if len(text) > len(before):
                yield text[len(before) :]
            shown, held = held, []
    rest = tokenizer.decode(shown + held).rstrip(INCOMPLETE)[len(tokenizer.decode(shown)) :]
    if held and rest:
        yield rest


@torch.no_grad()
def _next_logits(model: Decoder, tokens: list[int], cache: Cache) -> Tensor:
    """Adds `tokens` to the cache; the logits [V] of what follows."""
    logits: Tensor = model(torch.tensor([tokens], device=model.embedding.weight.device), cache)
    return logits[0, -1]


def _until(tokens: Iterable[int], stop: int | None) -> Iterator[int]:
    for token in tokens:
        if token == stop:
            return
        yield token
