"""What a model says, in the documents of OpenAI's API: whole, or in pieces as it comes."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from kindling_serve.detokenizer import Detokenizer
from kindling_serve.engine import End, Session
from kindling_serve.errors import ApiError
from kindling_trainer.inference.batching import Chosen
from kindling_trainer.inference.generate import INCOMPLETE

Document = dict[str, Any]


@dataclass(frozen=True)
class AnswerPiece:
    """A piece of one choice."""

    number: int
    """Which choice."""
    text: str
    chosen: Chosen | None = None
    """The token it comes from; its text may come later, or never where a stop string began."""
    end: End | None = None
    """Why it is the last one."""
    prompt: Sequence[Chosen] = ()
    """With the first piece, where it was asked for: what the model thought of the prompt."""


async def stream_pieces(
    session: Session, tokenizer: Tokenizer, stops: Sequence[str], texts: Sequence[Sequence[int]] = ()
) -> AsyncIterator[AnswerPiece]:
    """All that is said in a session, as it comes; `texts` are the tokens that the choices are one text with, if any.

    Raises:
        ApiError: a text could not be continued.
    """
    detokenizers: dict[int, Detokenizer] = {}
    async for event in session:
        if event.end == "error":
            raise ApiError(500, "The model failed to continue the text; the server's log says why.")
        detokenizer = detokenizers.get(event.number)
        if detokenizer is None:
            before = texts[event.number] if texts else ()
            detokenizer = detokenizers[event.number] = Detokenizer(tokenizer, stops, before)
        text = detokenizer.add(event.chosen.token) if event.chosen else ""
        if event.end:
            text += detokenizer.end()
        if detokenizer.stopped:
            session.stop(event.number)
        yield AnswerPiece(event.number, text, event.chosen, "stop" if detokenizer.stopped else event.end, event.prompt)


@dataclass(frozen=True)
class Envelope:
    """What all documents of one answer have in common."""

    object: str
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def document(self, choices: list[Document], **more: Any) -> Document:
        """A whole document."""
        prefix = "chatcmpl" if self.object.startswith("chat") else "cmpl"
        head = {"id": f"{prefix}-{self.id}", "object": self.object, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **more}


def usage(prompt_tokens: int, completion_tokens: int) -> Document:
    """How many tokens there were."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def chat_log_probabilities(chosen: Sequence[Chosen], tokenizer: Tokenizer) -> Document:
    """`logprobs` of a chat answer."""

    def entry(token: int, chance: float) -> Document:
        text = text_of(tokenizer, token)
        return {"token": text, "logprob": chance, "bytes": list(text.encode())}

    content = [
        {**entry(one.token, one.log_probability), "top_logprobs": [entry(*other) for other in one.likeliest]}
        for one in chosen
    ]
    return {"content": content, "refusal": None}


def text_log_probabilities(
    chosen: Sequence[Chosen], tokenizer: Tokenizer, *, first: int | None = None, offset: int = 0
) -> Document:
    """`logprobs` of a text; `first` is the prompt's first token where it is echoed, of which nothing is known."""
    tokens = [text_of(tokenizer, one.token) for one in chosen]
    unknown: list[None] = []
    if first is not None:
        tokens, unknown = [text_of(tokenizer, first), *tokens], [None]
    return {
        "tokens": tokens,
        "token_logprobs": [*unknown, *(one.log_probability for one in chosen)],
        "top_logprobs": [*unknown, *(_with_likeliest(one, tokenizer) for one in chosen)],
        "text_offset": list(_offsets(tokens, offset)),
    }


def text_of(tokenizer: Tokenizer, token: int) -> str:
    """A token by itself; by its name in the vocabulary where it is no whole character."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    return text if text and INCOMPLETE not in text else tokenizer.id_to_token(token) or ""


def _with_likeliest(chosen: Chosen, tokenizer: Tokenizer) -> dict[str, float]:
    """The likeliest tokens, and the one that was chosen whether or not it is among them."""
    entry = {text_of(tokenizer, token): chance for token, chance in chosen.likeliest}
    return entry | {text_of(tokenizer, chosen.token): chosen.log_probability}


def _offsets(tokens: Sequence[str], start: int) -> Iterator[int]:
    for token in tokens:
        yield start
        start += len(token)
