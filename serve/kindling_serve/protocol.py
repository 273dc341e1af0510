"""Requests as OpenAI's API has them.

Fields that are unknown are ignored, as clients send new ones all the time; those that would change the answer and
cannot be honoured are refused (`unsupported.py`). Null means the default, for every field.
"""

from __future__ import annotations

import re
from typing import Annotated, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from kindling_api.errors import SpecError, explain
from kindling_serve.errors import unlike
from kindling_serve.messages import ChatMessage, Lenient
from kindling_serve.unsupported import check_unsupported
from kindling_trainer.inference.sampling import GenerationOptions

MOST_CHOICES = 128
"""Texts of one request: prompts times choices."""

Stop = Annotated[str, Field(min_length=1, max_length=256)]
Likeliest = Annotated[int, Field(ge=0, le=20)]

# In JSON, what stands behind a backslash: a pair of surrogates, half of one, or anything else.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)


class StreamOptions(Lenient):
    """What a stream has beside the text."""

    include_usage: bool = False
    """Whether the last piece counts the tokens."""


class Sampling(Lenient):
    """What requests for dialogues and for texts have in common."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """By default the one that is served."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """Not OpenAI's; below 1 means all, as with vLLM."""
    min_p: float = 0.0
    """Not OpenAI's, but vLLM's."""
    repetition_penalty: float = 1.0
    """Not OpenAI's."""
    ignore_eos: bool = False
    """Not OpenAI's, but vLLM's: the answer goes on until its length."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _can_be_honoured(self) -> Self:
        self.options(1, 0)
        check_unsupported(self.model_extra or {})
        if self.stream_options is not None and not self.stream:
            allowed = "with stream: true alone"
            raise SpecError(explain("stream_options", found="no stream", allowed=allowed, remedy="leave it out"))
        return self

    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def options(self, max_tokens: int, choice: int) -> GenerationOptions:
        """How the answer of this number is generated; each has a seed of its own."""
        return GenerationOptions(
            max_tokens=max(1, max_tokens),
            temperature=self.temperature,
            top_k=self.top_k if self.top_k > 0 else None,
            top_p=self.top_p if self.top_p != 1 else None,
            min_p=self.min_p if self.min_p != 0 else None,
            repetition_penalty=self.repetition_penalty,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
        )


class ChatRequest(Sampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""
    logprobs: bool = False
    top_logprobs: Likeliest | None = None

    @model_validator(mode="after")
    def _likeliest_with_their_chances(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            allowed, remedy = "with logprobs: true alone", "set logprobs, or leave it out"
            raise SpecError(explain("top_logprobs", found=self.top_logprobs, allowed=allowed, remedy=remedy))
        return self


Request = TypeVar("Request", bound=Sampling)
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Sampling):
    """`POST /v1/completions`."""

    prompt: str | Tokens | Annotated[list[str], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)] = ""
    echo: bool = False
    """Whether the prompt is part of the answer; with `logprobs`, its tokens are scored, too."""
    logprobs: Likeliest | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _best_is_all(self) -> Self:
        if self.best_of not in (None, self.n):
            allowed = f"{self.n}, which is n: no answer is left out"
            raise SpecError(explain("best_of", found=self.best_of, allowed=allowed, remedy="leave it out"))
        return self

    def prompts(self) -> list[str | list[int]]:
        """Each one, as text or as tokens."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


def parse(kind: type[Request], body: bytes) -> Request:
    """The request in a body. Half a character, as programs leave it that cut text by UTF-16, becomes U+FFFD.

    Raises:
        ApiError: it is no JSON, or not such a request.
    """
    whole = _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], body)
    try:
        return kind.model_validate_json(whole)
    except ValidationError as error:
        raise unlike(error.errors(include_url=False)) from error
