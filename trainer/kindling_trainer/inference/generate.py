"""A trained model continues a text, piece by piece."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_storage import ObjectStore, open_store
from kindling_trainer.chat.message import Message
from kindling_trainer.chat.template import ChatTemplate
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_model, read_shape, read_tokenizer
from kindling_trainer.inference.batching import continue_tokens
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import Decoder

INCOMPLETE = "�"  # what a decoder writes for bytes that are no character, or not one yet

Device = Literal["cpu", "cuda"]
"""Where a model generates."""

LOOK_BACK = 5
"""How many tokens before a text its decoder may look at, as with vLLM."""


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
    bos: int | None = None
    """The token that begins a text of nothing; None where that is the one that ends another."""

    @property
    def stops(self) -> frozenset[int]:
        """All tokens that end a text."""
        return self.other_stops if self.end_of_document is None else self.other_stops | {self.end_of_document}

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest token that the model has an embedding for and that can be decoded.

        A padded vocabulary has more rows than tokens; a tokenizer to which tokens were added later may have more
        tokens than rows.
        """
        named = 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())
        return min(named, self.model.embedding.weight.shape[0])

    def generate(self, prompt: str, options: GenerationOptions) -> Iterator[str]:
        """The continuation of `prompt`, without the prompt, in pieces that are whole characters.

        It can be longer than the model's context: see `DecodingBatch.step`.

        Raises:
            SpecError: the tokenizer has no token for something in the prompt, or the prompt is empty and there is no
                end-of-document token to begin with.
        """
        tokens = self.encode(prompt)
        return self._say(tokens, options, before=tokens)

    def answer(self, messages: Sequence[Message], options: GenerationOptions) -> Iterator[str]:
        """What is said next in a dialogue, in pieces, at most up to the end of the model's context.

        Of a dialogue that leaves no room for an answer, the oldest turns are left out: see `recent`.

        Raises:
            UserError: as `prompt`.
            SpecError: the last turn alone is longer than the context.
        """
        tokens = self.prompt(self.recent(messages, options.max_tokens))
        context = self.model.shape.context
        if len(tokens) > context:
            found, allowed = f"{len(tokens)} tokens", f"at most {context}, the model's context"
            raise SpecError(explain("messages", found=found, allowed=allowed, remedy="shorten the last one"))
        room = max(1, context - len(tokens))
        return self._say(tokens, replace(options, max_tokens=min(options.max_tokens, room)))

    def recent(self, messages: Sequence[Message], room: int) -> list[Message]:
        """A dialogue without its oldest turns, as many as must go for `room` tokens after it, half the context at most.

        A turn is what a user says with all that follows up to the next; the system's first messages stay, and the last
        turn.

        Raises:
            UserError: as `prompt`.
        """
        context = self.model.shape.context
        system = list(takewhile(lambda message: message.role == "system", messages))
        said = list(messages[len(system) :])
        while len(self.prompt([*system, *said])) + min(room, context // 2) > context:
            turns = [number for number, message in enumerate(said) if number and message.role == "user"]
            if not turns:
                break
            said = said[turns[0] :]
        return [*system, *said]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens after which the assistant answers; a base model, which does not answer, continues all that was
        said as one text.

        Raises:
            SpecError: the template refuses the dialogue.
            DataError: the tokenizer or the model has no token for something in it.
        """
        if self.chat is None:
            return self.encode("".join(message.content for message in messages))
        tokens = self.chat.prompt(messages)
        self.check("messages", tokens)
        return tokens

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a text that is to be continued, after those that the tokenizer itself puts before a text.

        Raises:
            SpecError: as `generate`.
        """
        try:
            tokens: list[int] = self.tokenizer.encode(prompt).ids
        except Exception as error:  # the library raises Exception itself
            allowed, remedy = "text that the model's tokenizer covers", "leave out characters the model never saw"
            raise SpecError(explain("prompt", found=f"{prompt!r} ({error})", allowed=allowed, remedy=remedy)) from error
        self.check("prompt", tokens)
        first = self.end_of_document if self.bos is None else self.bos
        if not tokens and first is not None:
            return [first]  # a new document begins after the end of another
        if not tokens:
            raise SpecError(explain("prompt", found="no text", allowed="at least one character", remedy="give one"))
        return tokens

    def check(self, where: str, tokens: Sequence[int]) -> None:
        """Raises SpecError where a text has a token that the model has no embedding for."""
        highest = max(tokens, default=0)
        if highest >= self.vocab_size:
            name = self.tokenizer.id_to_token(highest) if highest < 2**32 else None  # the library's own bound
            found = f"token {highest}" if name is None else f"{name!r}, which is token {highest}"
            allowed = f"tokens below {self.vocab_size}, for which the model has an embedding"
            raise SpecError(explain(where, found=found, allowed=allowed, remedy="leave it out"))

    def _say(self, tokens: Sequence[int], options: GenerationOptions, before: Sequence[int] = ()) -> Iterator[str]:
        following = continue_tokens(self.model, tokens, options, self.vocab_size)
        return decode_pieces(self.tokenizer, _until(following, self.stops), before)


def check_device(device: Device) -> None:
    """Raises SpecError where this machine has no such device, or its PyTorch was built for another."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"no GPU that PyTorch {torch.__version__} can use"
        remedy = "leave --device out, or install a driver and the PyTorch that fits it"
        raise SpecError(explain("--device", found=f"cuda, and {built}", allowed="cpu on this machine", remedy=remedy))


def placed(model: Decoder, device: Device) -> Decoder:
    """The model on its device: in fp32 on the CPU; on a GPU in bfloat16, in half the memory."""
    return model.to(device, torch.bfloat16) if device == "cuda" else model


def load_model(source: ObjectStore | Path, device: Device = "cpu") -> Generator:
    """The model in a Hugging Face folder, ours or another's, as `placed` has it.

    Raises:
        SpecError: there is no such device, or the folder holds no model of a kind that Kindling has, or a tokenizer
            that does not fit it.
        StorageError: it cannot be read.
    """
    store = open_store(source.resolve().as_uri()) if isinstance(source, Path) else source
    check_device(device)
    read_shape(store)  # what is no model is told as such
    tokenizer, special = read_tokenizer(store)  # and what is wrong with it before its weights are read
    template = read_chat_template(store)
    model = placed(read_model(store), device)
    chat = None if template is None else ChatTemplate(template, tokenizer, special.named)
    return Generator(model, tokenizer, special.eos, chat, frozenset(special.stops), special.bos)


def decode_pieces(tokenizer: Tokenizer, tokens: Iterable[int], before: Sequence[int] = ()) -> Iterator[str]:
    """The text of `tokens` as they come, in pieces that never split a character; see `TokenDecoder`."""
    pieces = TokenDecoder(tokenizer, before)
    for token in tokens:
        if piece := pieces.add(token):
            yield piece
    if rest := pieces.rest():
        yield rest


class TokenDecoder:
    """Turns tokens into text as they come.

    A token of a byte-level tokenizer can hold part of a character; its text is held back until the rest has come. A
    part left at the very end is not shown.

    `before` are the tokens of the text that is continued, if it is one text with them: a decoder that takes the space
    from the beginning of a text leaves it then.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._shown = list(
            before[-LOOK_BACK:]
        )  # the tokens of the last piece: some decoders look at what stands before
        if tokenizer.decode(self._shown).endswith(INCOMPLETE):
            self._shown = []
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
