"""A trained model continues a text, piece by piece."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_storage import ObjectStore, open_store
from kindling_trainer.align.formats import Message
from kindling_trainer.align.template import ChatTemplate
from kindling_trainer.batching import continue_tokens
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_model, read_stops, read_tokenizer
from kindling_trainer.models import Decoder
from kindling_trainer.sampling import GenerationOptions

INCOMPLETE = "�"  # what a decoder writes for bytes that are no character, or not one yet


@dataclass(frozen=True)
class Generator:
    """A model ready to continue texts."""

    model: Decoder
    """In evaluation mode."""
    tokenizer: Tokenizer
    end_of_document: int | None
    """The token that ends a text; None where the tokenizer has none."""
    chat: ChatTemplate | None = None
    """How a dialogue becomes a prompt; None for a model that only continues texts."""
    other_stops: frozenset[int] = frozenset()
    """Further tokens with which the model ends what it says."""

    @property
    def stops(self) -> frozenset[int]:
        """All tokens that end a text."""
        return self.other_stops if self.end_of_document is None else self.other_stops | {self.end_of_document}

    @property
    def vocab_size(self) -> int:
        """One more than the highest token that can be decoded; a padded vocabulary is larger."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    def generate(self, prompt: str, options: GenerationOptions) -> Iterator[str]:
        """The continuation of `prompt`, without the prompt, in pieces that are whole characters.

        It can be longer than the model's context: see `Batch.step`.

        Raises:
            SpecError: the tokenizer has no token for something in the prompt, or the prompt is empty and there is no
                end-of-document token to begin with.
        """
        return self._say(self.encode(prompt), options)

    def answer(self, messages: Sequence[Message], options: GenerationOptions) -> Iterator[str]:
        """What the assistant says next in a dialogue, in pieces; only for a model with a chat template.

        Raises:
            SpecError: the template refuses the dialogue.
            DataError: the tokenizer has no token for something in it.
        """
        assert self.chat is not None, "the caller knows whether it talks to a model that answers"
        return self._say(self.chat.prompt(messages), options)

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a text that is to be continued.

        Raises:
            SpecError: as `generate`.
        """
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

    def _say(self, tokens: Sequence[int], options: GenerationOptions) -> Iterator[str]:
        following = continue_tokens(self.model, tokens, options, self.vocab_size)
        return decode_pieces(self.tokenizer, _until(following, self.stops))


def load_model(source: ObjectStore | Path, device: torch.device | str = "cpu") -> Generator:
    """The model in a Hugging Face folder, ours or another's, in fp32.

    Raises:
        SpecError: the folder holds no model of a kind that Kindling has.
        StorageError: it cannot be read.
    """
    store = open_store(source.resolve().as_uri()) if isinstance(source, Path) else source
    model = read_model(store).to(device)
    tokenizer, end_of_document = read_tokenizer(store)
    template = read_chat_template(store)
    chat = None if template is None else ChatTemplate(template, tokenizer, end_of_document=end_of_document)
    return Generator(model, tokenizer, end_of_document, chat, read_stops(store))


def decode_pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of `tokens` as they come, in pieces that never split a character."""
    pieces = Pieces(tokenizer)
    for token in tokens:
        if piece := pieces.add(token):
            yield piece
    if rest := pieces.rest():
        yield rest


class Pieces:
    """Turns tokens into text as they come.

    A token of a byte-level tokenizer can hold part of a character; its text is held back until the rest has come. A
    part left at the very end is not shown.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._shown: list[int] = []  # the tokens of the last piece: some decoders look at what stands before
        self._held: list[int] = []

    def add(self, token: int) -> str:
        """The text that is complete with this token, perhaps none."""
        self._held.append(token)
        before, text = self._tokenizer.decode(self._shown), self._tokenizer.decode(self._shown + self._held)
        if text.endswith(INCOMPLETE):
            return ""
        self._shown, self._held = self._held, []
        return text[len(before) :]

    def rest(self) -> str:
        """What is left at the end, without a character that is not complete."""
        before, text = self._tokenizer.decode(self._shown), self._tokenizer.decode(self._shown + self._held)
        return text.rstrip(INCOMPLETE)[len(before) :] if self._held else ""


def _until(tokens: Iterable[int], stops: Collection[int]) -> Iterator[int]:
    for token in tokens:
        if token in stops:
            return
        yield token
