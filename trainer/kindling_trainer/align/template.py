"""Chat templates: from a dialogue to text and tokens, and which of them the model is to say.

A template is Jinja, with the variables that transformers gives it. What the assistant says stands between
`{% generation %}` and `{% endgeneration %}`, as transformers has it too; a template without these tags serves as well,
as long as what it makes of a dialogue begins with what it makes of the dialogue's beginning. Servers do not know the
tags, so that a model is exported with a template in which they do nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

import jinja2
import numpy as np
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE

from kindling_api.errors import DataError, SpecError, explain, finding
from kindling_trainer.align.formats import Message, Messages

DEFAULT = """\
{%- set marks = {'system': '<|system|>', 'user': '<|user|>', 'assistant': '<|assistant|>'} %}
{%- for message in messages %}
    {{- marks[message['role']] }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- marks['assistant'] }}
{%- endif %}
"""
"""Every message begins and ends with a token of its own, so that no token can reach across their borders."""

_TOKEN = re.compile(r"<\|\w+\|>")
_TAG = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")

# Characters that Unicode keeps for a program's own use (noncharacters), and that no text has.
_BEGIN, _END, _BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
_OURS = re.compile(f"[{_BEGIN}{_END}{_BREAK}]")


class Encoded(NamedTuple):
    """One sequence."""

    tokens: NDArray[np.int32]
    counted: NDArray[np.bool_]
    """Whether the token is among those that the model is to say."""


class Piece(NamedTuple):
    """Text that is encoded by itself."""

    text: str
    spoken: int | None
    """Which of the assistant's messages says it, from 0; None for all else."""


class ChatTemplate:
    """A template together with the tokenizer for what it makes.

    Raises:
        SpecError: the template is wrong, as a text or for a dialogue.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, *, end_of_document: int | None = None) -> None:
        """`tokenizer` has the template's special tokens (`add_special_tokens`)."""
        self.source, self.tokenizer = source, tokenizer
        end = None if end_of_document is None else tokenizer.id_to_token(end_of_document)
        self._variables = {"bos_token": end, "eos_token": end, "tools": None, "documents": None}
        self._special = {
            token.content: id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._template = _compiled(source)
        self._known: dict[str, bool] = {}

    @property
    def exported(self) -> str:
        """The template for others: the same text for every dialogue, without the tags that only training needs."""
        return _TAG.sub(lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", self.source)

    def stop_token(self) -> int | None:
        """The token with which the model ends what it says; None where the template gives it none."""
        word = next(filter(self.knows, ("a", "A", "0", ".")), "")
        (said,) = self.encode([((Message("user", word), Message("assistant", word)), 0)])
        special = set(self._special.values())
        return next((int(token) for token in said.tokens[said.counted][::-1] if int(token) in special), None)

    def knows(self, character: str) -> bool:
        """Whether the tokenizer keeps a character: BPE without bytes to fall back to leaves unknown ones out."""
        if character not in self._known:
            silent = isinstance(self.tokenizer.model, BPE) and not _OURS.match(character)
            self._known[character] = not silent or bool(self._encode_texts([character])[0])
        return self._known[character]

    def render(self, messages: Iterable[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a dialogue; with `add_generation_prompt`, up to where the assistant begins to speak."""
        return _OURS.sub("", self._render(tuple(messages), add_generation_prompt))

    def prompt(self, messages: Iterable[Message]) -> list[int]:
        """The tokens after which the assistant begins to speak."""
        text = self._render(tuple(messages), True)
        tokens: list[int] = []
        for encoding in self._encode_texts([piece.text for piece in _pieces(text)]):
            tokens += encoding
        return tokens

    def encode(self, dialogues: Sequence[tuple[Messages, int]]) -> Iterator[Encoded]:
        """The tokens of dialogues, of which those count that the assistant says in and after a message's number."""
        many = [list(self._spoken_pieces(messages)) for messages, _ in dialogues]
        encodings = iter(self._encode_texts([piece.text for pieces in many for piece in pieces]))
        for pieces, (messages, learned) in zip(many, dialogues, strict=True):
            first = sum(message.role == "assistant" for message in messages[:learned])
            tokens: list[int] = []
            counted: list[bool] = []
            for piece in pieces:
                ids = next(encodings)
                tokens += ids
                counted += [piece.spoken is not None and piece.spoken >= first] * len(ids)
            yield Encoded(np.array(tokens, np.int32), np.array(counted, np.bool_))

    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        try:
            return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        except Exception as error:  # the library raises Exception itself
            remedy = "use a model whose tokenizer falls back to bytes, or leave such texts out"
            allowed = "texts that the tokenizer has tokens for"
            raise DataError(finding(found=error, allowed=allowed, remedy=remedy)) from error

    def _spoken_pieces(self, messages: Messages) -> Iterator[Piece]:
        text = self._render(messages, False)
        if _BEGIN not in text:
            text = self._marked_by_prefix(messages, text)
        found = text.count(_BEGIN)
        said = sum(message.role == "assistant" for message in messages)
        if found != said:
            raise _wrong(
                f"{found} generation blocks in a dialogue in which the assistant speaks {said} times",
                remedy="put {% generation %} … {% endgeneration %} around each of its messages",
            )
        return _pieces(text)

    def _marked_by_prefix(self, messages: Messages, whole: str) -> str:
        """The text with marks around what the assistant says, where the template has no tags: what comes after the
        prompt of each of its messages."""
        marked, done = "", 0
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before, after = self._render(messages[:number], True), self._render(messages[: number + 1], False)
            if not (whole.startswith(before) and whole.startswith(after) and len(before) < len(after)):
                raise _wrong(
                    "no generation blocks, and a text that changes as the dialogue goes on, so that what the assistant "
                    "says cannot be found",
                    remedy="put {% generation %} … {% endgeneration %} around its messages",
                )
            marked += whole[done : len(before)] + _BEGIN + whole[len(before) : len(after)] + _END
            done = len(after)
        return marked + whole[done:]

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        """The text, with our characters around what is generated, and in what only looks like a special token."""
        plain = [{"role": message.role, "content": self._harmless(message.content)} for message in messages]
        try:
            return self._template.render(messages=plain, add_generation_prompt=add_generation_prompt, **self._variables)
        except (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise _wrong(error) from error

    def _harmless(self, content: str) -> str:
        """A text in which no special token can be found: what somebody says must not end their message."""
        content = _OURS.sub("", content)
        for token in self._special:
            if token in content:
                content = content.replace(token, token[:1] + _BREAK + token[1:])
        return content


def add_special_tokens(tokenizer: Tokenizer, source: str) -> list[str]:
    """Give `tokenizer` the tokens of the form `<|word|>` that a template uses and it does not have.

    Returns:
        Those added, in the order of their ids.
    """
    missing = [token for token in dict.fromkeys(_TOKEN.findall(source)) if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
    return missing


def _pieces(text: str) -> Iterator[Piece]:
    """What stands between our characters, each encoded by itself."""
    spoken, speaking, start = -1, False, 0
    for mark in [*_OURS.finditer(text), None]:
        end = mark.start() if mark else len(text)
        if end > start:
            yield Piece(text[start:end], spoken if speaking else None)
        if mark is None:
            return
        if mark[0] != _BREAK:
            speaking = mark[0] == _BEGIN
            spoken += speaking
        start = mark.end()


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`: what stands between is between our characters in the text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{_BEGIN}{caller()}{_END}"


class _Strict(jinja2.Undefined):
    """May be asked for, as transformers' own templates do, but not written: a name misspelt would leave a hole."""

    __str__ = __iter__ = __len__ = jinja2.Undefined._fail_with_undefined_error


def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=_Strict, extensions=[_Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise _wrong(f"{error} in line {error.lineno}") from error


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _wrong(found: object, remedy: str = "correct the template, or use `default`") -> SpecError:
    allowed = "a Jinja template over messages and add_generation_prompt, as transformers has it"
    return SpecError(explain("spec.chatTemplate", found=found, allowed=allowed, remedy=remedy))
