"""Requests as OpenAI's API has them, and the errors it answers with.

Fields that are unknown are ignored, as clients send new ones all the time; those that would change the answer and
cannot be honoured are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kindling_trainer.align.formats import Message
from kindling_trainer.sampling import GenerationOptions

MOST_CHOICES = 128
"""Texts of one request: prompts times choices."""

Stop = Annotated[str, Field(min_length=1, max_length=256)]
Zero = Annotated[float, Field(ge=0, le=0)]
Nothing = Annotated[list[Any] | dict[str, Any], Field(max_length=0)]


class ApiError(Exception):
    """What a client is told, in OpenAI's form."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, Any]:
        """The document that tells it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class StreamOptions(_Request):
    """What a stream has beside the text."""

    include_usage: bool = False
    """Whether the last piece counts the tokens."""


class Sampling(_Request):
    """What requests for dialogues and for texts have in common."""

    model: str
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    """Not OpenAI's; below 1 means all, as with vLLM."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Not OpenAI's."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Nothing | None = None

    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def options(self, max_tokens: int, choice: int) -> GenerationOptions:
        """How the answer of this number is generated; each has a seed of its own."""
        return GenerationOptions(
            max_tokens=max(1, max_tokens),
            temperature=self.temperature,
            top_k=self.top_k if self.top_k is not None and self.top_k > 0 else None,
            top_p=self.top_p if self.top_p != 1 else None,
            repetition_penalty=self.repetition_penalty,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
        )


class ContentPart(_Request):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Request):
    """A message of a dialogue."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]

    def plain(self) -> Message:
        """With one text, and roles as templates know them."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class ResponseFormat(_Request):
    """The form of the answer."""

    type: Literal["text"]


class ChatRequest(Sampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """The newer name of `max_tokens`."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Nothing | None = None
    functions: Nothing | None = None
    response_format: ResponseFormat | None = None


Request = TypeVar("Request", bound=Sampling)
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Sampling):
    """`POST /v1/completions`."""

    prompt: str | Tokens | Annotated[list[str], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)] = ""
    echo: bool | None = None
    """Whether the prompt is part of the answer; with `logprobs`, its tokens are scored, too."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _best_is_all(self) -> Self:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of other than n is not supported")
        return self

    def prompts(self) -> list[str | list[int]]:
        """Each one, as text or as tokens."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


def parse(kind: type[Request], body: bytes) -> Request:
    """The request in a body.

    Raises:
        ApiError: it is no JSON, or not such a request.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        names = {"str", "int", "float", "bool", "list"}
        path = [str(part) for part in first["loc"] if str(part).partition("[")[0] not in names]
        where = ".".join(path)
        what = "The body is not JSON" if first["type"] == "json_invalid" else where or "The body"
        raise ApiError(400, f"{what}: {first['msg']}.", param=where or None) from error
