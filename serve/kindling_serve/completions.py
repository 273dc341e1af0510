"""The two routes that generate: what a request wants continued, and how what is said becomes its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kindling_serve.answers import (
    AnswerPiece,
    Document,
    Envelope,
    chat_log_probabilities,
    text_log_probabilities,
    usage,
)
from kindling_serve.engine import Task
from kindling_serve.errors import ApiError
from kindling_serve.protocol import MOST_CHOICES, ChatRequest, CompletionRequest, Sampling
from kindling_serve.settings import ServeSettings
from kindling_trainer.inference.batching import Chosen
from kindling_trainer.inference.generate import Generator

CONTEXT_EXCEEDED = "context_length_exceeded"
"""OpenAI's code for a prompt that the model cannot read as a whole."""


@dataclass
class Choice:
    """One text of an answer, or a piece of it."""

    text: str = ""
    chosen: list[Chosen] = field(default_factory=list)
    prompt: Sequence[Chosen] = ()
    end: str | None = None
    is_first: bool = True
    """Whether nothing of it was told before."""

    def add(self, piece: AnswerPiece) -> None:
        """Takes in what came next."""
        self.text += piece.text
        self.chosen += [piece.chosen] if piece.chosen is not None else []
        self.prompt = piece.prompt or self.prompt
        self.end = piece.end


class Exchange(ABC):
    """A request that was understood, and its answer."""

    object: str
    """The form of the answer, as OpenAI names it."""
    piece_object: str
    """The form of its pieces."""

    def __init__(
        self, request: Sampling, generator: Generator, name: str, prompts: list[list[int]], tasks: list[Task]
    ) -> None:
        self.request, self.generator, self.name, self.tasks = request, generator, name, tasks
        self.texts: list[Sequence[int]] = []
        """The tokens that each choice is one text with; none where it is a text of its own."""
        self.prompt_tokens = sum(map(len, prompts))

    @abstractmethod
    def choice(self, number: int, choice: Choice) -> Document:
        """A whole choice."""

    @abstractmethod
    def piece(self, number: int, choice: Choice) -> Document:
        """A piece of one."""

    async def whole(self, pieces: AsyncIterator[AnswerPiece]) -> Document:
        """The answer, once all of it is said."""
        choices = [Choice() for _ in self.tasks]
        async for one in pieces:
            choices[one.number].add(one)
        documents = [_numbered(number, choice, self.choice(number, choice)) for number, choice in enumerate(choices)]
        counted = usage(self.prompt_tokens, sum(len(choice.chosen) for choice in choices))
        return Envelope(self.object, self.name).document(documents, usage=counted)

    async def pieces(self, pieces: AsyncIterator[AnswerPiece]) -> AsyncIterator[Document]:
        """The answer as it comes; tokens without text wait for the text."""
        envelope = Envelope(self.piece_object, self.name)
        options = self.request.stream_options
        more: dict[str, Any] = {"usage": None} if options and options.include_usage else {}
        choices = [Choice() for _ in self.tasks]
        count = 0
        async for one in pieces:
            count += one.chosen is not None
            choice = choices[one.number]
            choice.add(one)
            if choice.text or choice.end or choice.is_first:
                yield envelope.document([_numbered(one.number, choice, self.piece(one.number, choice))], **more)
                choices[one.number] = Choice(is_first=False)
        if more:
            yield envelope.document([], usage=usage(self.prompt_tokens, count))


class ChatExchange(Exchange):
    """`POST /v1/chat/completions`."""

    object, piece_object = "chat.completion", "chat.completion.chunk"

    def __init__(
        self, request: ChatRequest, generator: Generator, settings: ServeSettings, *, forget: bool = False
    ) -> None:
        """With `forget`, the oldest turns of a dialogue that is too long are left out.

        Raises UserError or ApiError where the request cannot be honoured.
        """
        asked = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        if asked == 0:
            raise ApiError(400, "max_tokens: found 0; allowed: from 1.", param="max_tokens")
        most = _most_tokens(asked, settings)
        messages = [message.plain() for message in request.messages]
        prompt = generator.prompt(generator.recent(messages, most) if forget else messages)
        _check_context([prompt], generator)
        most = min(
            most, max(1, generator.model.shape.context - len(prompt))
        )  # past it, the question would be forgotten
        likeliest = request.top_logprobs or 0
        stops = frozenset[int]() if request.ignore_eos else generator.stops
        tasks = [Task(prompt, request.options(most, choice), stops, likeliest) for choice in range(request.n)]
        super().__init__(request, generator, settings.name, [prompt], tasks)
        self._scored = request.logprobs

    def choice(self, number: int, choice: Choice) -> Document:
        """The assistant's message."""
        return {"message": {"role": "assistant", "content": choice.text, "refusal": None}, **self._scores(choice)}

    def piece(self, number: int, choice: Choice) -> Document:
        """What is added to the assistant's message."""
        role = {"role": "assistant"} if choice.is_first else {}
        return {"delta": {**role, "content": choice.text}, **self._scores(choice)}

    def _scores(self, choice: Choice) -> Document:
        scores = chat_log_probabilities(choice.chosen, self.generator.tokenizer) if self._scored else None
        return {"logprobs": scores}


class TextExchange(Exchange):
    """`POST /v1/completions`."""

    object = piece_object = "text_completion"

    def __init__(self, request: CompletionRequest, generator: Generator, settings: ServeSettings) -> None:
        """Raises UserError or ApiError where the request cannot be honoured."""
        given, choices = request.prompts(), request.n
        if len(given) * choices > MOST_CHOICES:
            raise ApiError(400, f"prompt: {len(given)} of them with n = {choices}; allowed: {MOST_CHOICES} together.")
        prompts = [_tokens_of(prompt, generator) for prompt in given]
        _check_context(prompts, generator)
        if request.max_tokens == 0 and not request.echo:
            raise ApiError(400, "max_tokens: found 0; allowed: from 1, or 0 with echo.", param="max_tokens")
        most = _most_tokens(request.max_tokens, settings)
        self._scored, self._echo = request.logprobs is not None, request.echo
        tasks = [
            Task(
                prompt,
                request.options(most, choice),
                frozenset() if request.ignore_eos else generator.stops,
                likeliest=request.logprobs or 0,
                score_prompt=self._scored and self._echo,
                only_read=most == 0,
            )
            for prompt in prompts
            for choice in range(choices)
        ]
        super().__init__(request, generator, settings.name, prompts, tasks)
        self.texts = [task.tokens for task in tasks]
        self._echoed = [
            prompt if isinstance(prompt, str) else generator.tokenizer.decode(prompt, skip_special_tokens=False)
            for prompt in given
            for _ in range(choices)
        ]
        self._offsets = [0] * len(tasks)

    def choice(self, number: int, choice: Choice) -> Document:
        """The text, after its prompt where that is wanted."""
        return self.piece(number, choice)

    def piece(self, number: int, choice: Choice) -> Document:
        """What is added to the text; the prompt comes with the first piece."""
        echo = self._echo and choice.is_first
        text = self._echoed[number] + choice.text if echo else choice.text
        return {"text": text, "logprobs": self._scores(number, choice, echo) if self._scored else None}

    def _scores(self, number: int, choice: Choice, echo: bool) -> Document:
        chosen, first = choice.chosen, None
        if echo:
            chosen, first = [*choice.prompt, *choice.chosen], self.tasks[number].tokens[0]
        scores = text_log_probabilities(chosen, self.generator.tokenizer, first=first, offset=self._offsets[number])
        self._offsets[number] += sum(map(len, scores["tokens"]))
        return scores


def _numbered(number: int, choice: Choice, document: Document) -> Document:
    return {"index": number, **document, "finish_reason": choice.end}


def _tokens_of(prompt: str | list[int], generator: Generator) -> list[int]:
    if isinstance(prompt, str):
        return generator.encode(prompt)
    generator.check("prompt", prompt)
    return prompt


def _check_context(prompts: list[list[int]], generator: Generator) -> None:
    longest, context = max(map(len, prompts)), generator.model.shape.context
    if longest > context:
        message = f"The prompt has {longest} tokens; the model's context has {context}. Shorten it."
        raise ApiError(400, message, code=CONTEXT_EXCEEDED, param="prompt")


def _most_tokens(asked: int | None, settings: ServeSettings) -> int:
    if asked is None:
        return min(settings.default_tokens, settings.most_tokens)
    if asked > settings.most_tokens:
        allowed = f"at most {settings.most_tokens}"
        raise ApiError(400, f"max_tokens: found {asked}; allowed: {allowed}.", param="max_tokens")
    return asked
